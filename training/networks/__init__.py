"""Keras networks and their layers, what augments their inputs, and the quiet import of Keras.

They know nothing of recordings, options and training.
"""
