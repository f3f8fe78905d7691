"""Loads a model beside the one that runs, so that no frame has to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from anomaly_detector.detector import Detector
from anomaly_detector.errors import AnomalyDetectorError, describe_error

__all__ = ["Loaded", "ModelLoader"]


@dataclass(frozen=True)
class Loaded:
    """What came of loading: a detector, or why there is none."""

    detector: Detector | None
    error: str


class ModelLoader:
    """Runs one loading at a time in a thread; a newer request makes the older one worthless.

    Args:
        on_done: called from the thread when :meth:`take` has something to give.
    """

    def __init__(self, on_done: Callable[[], None]) -> None:
        self._on_done = on_done
        self._lock = threading.Lock()
        self._request = 0
        self._result: Loaded | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a model is being loaded or waits to be taken."""
        with self._lock:
            alive = self._thread is not None and self._thread.is_alive()
            return alive or self._result is not None

    def start(self, load: Callable[[], Detector]) -> None:
        """Load in a thread.

        Args:
            load: makes the detector, or raises AnomalyDetectorError.
        """
        with self._lock:
            self._request += 1
            request = self._request
            self._result = None
            thread = threading.Thread(
                target=self._run, args=(request, load), name="model-loader", daemon=True
            )
            self._thread = thread
        thread.start()

    def cancel(self) -> None:
        """Have nothing come of what is being loaded."""
        with self._lock:
            self._request += 1
            self._result = None

    def take(self) -> Loaded | None:
        """Give the result of the newest request, once; None before it is there."""
        with self._lock:
            result, self._result = self._result, None
            return result

    def _run(self, request: int, load: Callable[[], Detector]) -> None:
        try:
            result = Loaded(load(), "")
        except AnomalyDetectorError as error:
            result = Loaded(None, str(error))
        except Exception as error:  # a thread that dies in silence would leave a user waiting
            result = Loaded(None, describe_error(error))
        with self._lock:
            if request != self._request:
                return
            self._result = result
        self._on_done()
