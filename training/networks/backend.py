"""Imports Keras and TensorFlow quietly and in one place.

Only the verbs that train or export call these functions, so that ``--help`` and the tools that need
neither stay quick.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError


def import_keras() -> Any:
    """Return the ``keras`` module (Keras 3).

    Raises:
        AnomalyDetectorError: it is not installed.
    """
    return _import_quietly("keras")


def import_tensorflow() -> Any:
    """Return the ``tensorflow`` module.

    Raises:
        AnomalyDetectorError: it is not installed.
    """
    return _import_quietly("tensorflow")


def _import_quietly(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    # TensorFlow's C++ log would tear the progress bar.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        with warnings.catch_warnings(), _silent_stderr():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise AnomalyDetectorError(
            f"{name} cannot be imported ({error}): run 'pip install -e .[training]'"
        ) from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silence what libraries write to the descriptor itself.

    TensorFlow announces missing GPUs and oneDNN before its log level is read. An import that fails
    raises, so nothing that matters is lost.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(null)
        os.close(saved)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and the Keras backend, so that a run can be repeated on one machine."""
    import_keras().utils.set_random_seed(seed)
