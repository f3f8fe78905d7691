"""The loader of models: one at a time, the newest wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ros_harness import DEADLINE_S

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detector
from anomaly_detector.ros.node.model_loader import Loaded, ModelLoader, is_loading

BLACK = np.zeros((64, 64, 3), np.uint8)


class Loading:
    """Loads a model once it is let; ``is_free``, at once."""

    def __init__(self, model: Path, *, is_free: bool = False) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        if is_free:
            self.may_end.set()
        self.detector: Detector | None = None
        self._model = model

    def __call__(self) -> Detector:
        """Load."""
        self.begun.set()
        assert self.may_end.wait(DEADLINE_S)
        self.detector = Detector(self._model)
        return self.detector


@pytest.fixture
def loader() -> ModelLoader:
    return ModelLoader(lambda: None)


def taken(loader: ModelLoader) -> Loaded:
    assert loader.wait(DEADLINE_S)
    loaded = loader.take()
    assert loaded is not None
    return loaded


def end_of_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "model-loader":
            thread.join(DEADLINE_S)
    assert not is_loading()


def test_newest_wins_and_those_between_are_never_begun(loader: ModelLoader, model: Path) -> None:
    loadings = [Loading(model) for _ in range(4)]
    loader.start(loadings[0])
    assert loadings[0].begun.wait(DEADLINE_S)
    for loading in loadings[1:]:
        loader.start(loading)
    assert not loader.wait(0.0)
    for loading in loadings:
        loading.may_end.set()
    detector = taken(loader).detector
    end_of_thread()
    assert [loading.begun.is_set() for loading in loadings] == [True, False, False, True]
    assert detector is not None
    assert detector is loadings[3].detector
    detector.detect(BLACK, "rgb")
    assert not loader.is_busy
    # The first has been freed.
    superseded = loadings[0].detector
    assert superseded is not None
    with pytest.raises(AnomalyDetectorError, match="closed"):
        superseded.detect(BLACK, "rgb")


def test_what_is_cancelled_gives_nothing_and_what_comes_next_waits_for_it(
    loader: ModelLoader, model: Path
) -> None:
    cancelled, following = Loading(model), Loading(model)
    loader.start(cancelled)
    assert cancelled.begun.wait(DEADLINE_S)
    loader.cancel()
    assert not loader.is_busy
    assert loader.wait(0.0)
    assert is_loading()
    following.may_end.set()
    loader.start(following)
    assert not loader.wait(0.05)
    assert not following.begun.is_set()
    cancelled.may_end.set()
    assert taken(loader).detector is following.detector
    end_of_thread()


def test_error_is_reported_and_the_thread_goes_on(loader: ModelLoader, model: Path) -> None:
    def fail(error: Exception) -> Callable[[], Detector]:
        def load() -> Detector:
            raise error

        return load

    for error, text in (
        (AnomalyDetectorError("no such model"), "no such model"),
        (ValueError("odd"), "ValueError: odd"),
    ):
        loader.start(fail(error))
        assert taken(loader) == Loaded(None, text)
    good = Loading(model, is_free=True)
    loader.start(good)
    assert taken(loader).detector is good.detector
    end_of_thread()


def test_done_is_reported_of_wanted_models_only(model: Path) -> None:
    done: list[bool] = []
    loader = ModelLoader(lambda: done.append(True))
    first = Loading(model)
    loader.start(first)
    loader.start(Loading(model, is_free=True))
    first.may_end.set()
    assert loader.wait(DEADLINE_S)
    end_of_thread()
    assert done == [True]
    loader.close()
    loader.start(Loading(model, is_free=True))
    end_of_thread()
    assert done == [True]
