"""Keras, imported quietly; that takes seconds, so only modules that train import this one."""

from training.networks.backend import import_keras

import_keras()

import keras as keras  # noqa: E402
