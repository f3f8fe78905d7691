"""How a network is fitted, whatever it is for: batches, callbacks, checkpoints, several machines.

``fit`` does it; a ``TrainingRun`` says on what, a ``TrainingResult`` what came of it.
"""
