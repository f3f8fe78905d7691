"""Scorers: what makes the score of a detector, each in a module of its own.

Everything that training knows of a scorer is its :class:`training.scorers.base.Scorer`.
:mod:`training.scorers.registry` lists them and takes others in, :mod:`training.scorers.options`
says which options each uses. ``autoencoder`` and ``latents`` are what several of them share.
"""
