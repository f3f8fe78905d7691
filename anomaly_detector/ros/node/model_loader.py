"""Loads models beside the one that runs, so that no frame has to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, describe_error
from anomaly_detector.model.detector import Detector
from anomaly_detector.model.tensorrt import BuildEvent
from anomaly_detector.ros.node.parameters import Parameters

_THREAD_NAME = "model-loader"


@dataclass
class BuildNotice:
    """Logs that a TensorRT engine is being built; ``text`` says so while it is.

    It is called from the thread that loads.
    """

    logger: Any
    text: str = ""

    def __call__(self, event: BuildEvent) -> None:
        """Log an event."""
        if event.state == "started":
            self.text = "a TensorRT engine is being built, which may take minutes"
            self.logger.warning(self.text)
        else:
            self.text = ""
            kept = "" if event.folder is None else f", kept in {event.folder}"
            self.logger.info(f"TensorRT engine {event.state} in {event.seconds:.1f} s{kept}")


def load_detector(settings: Parameters, on_build: Callable[[BuildEvent], None]) -> Detector:
    """Load, check and warm up the model that the parameters name.

    Raises:
        AnomalyDetectorError: it cannot be used.
    """
    return Detector(
        settings.model,
        providers=settings.providers,
        require_gpu=settings.require_gpu,
        intra_op_threads=settings.intra_op_threads,
        threshold=settings.threshold,
        view=settings.view,
        fp16=settings.fp16,
        cuda_graph=settings.cuda_graph,
        on_build=on_build,
    )


def is_loading() -> bool:
    """Return whether this process loads a model, wanted or not: that cannot be interrupted."""
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())


@dataclass(frozen=True)
class Loaded:
    """What came of loading: a detector, or why there is none."""

    detector: Detector | None
    error: str


class ModelLoader:
    """Loads in a thread, one model at a time; of the requests that wait, the newest wins.

    Args:
        on_done: called from the thread when :meth:`take` has something to give; not to wait.
    """

    def __init__(self, on_done: Callable[[], None]) -> None:
        self._on_done = on_done
        self._changed = threading.Condition()
        self._newest: Callable[[], Detector] | None = None
        """Asked for, and neither done nor cancelled."""
        self._next: Callable[[], Detector] | None = None
        """The same until the thread takes it up."""
        self._result: Loaded | None = None
        self._is_running = False

    @property
    def is_busy(self) -> bool:
        """Whether a model that is wanted is being loaded or waits to be taken."""
        with self._changed:
            return self._newest is not None or self._result is not None

    def start(self, load: Callable[[], Detector]) -> None:
        """Load once what is being loaded is done; what was asked for before is not wanted any more.

        Args:
            load: makes the detector, or raises AnomalyDetectorError; another object each time.
        """
        with self._changed:
            self._newest = self._next = load
            self._result = None
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name=_THREAD_NAME, daemon=True).start()

    def cancel(self) -> None:
        """Have nothing come of what was asked for."""
        with self._changed:
            self._newest = self._next = self._result = None
            self._changed.notify_all()

    def close(self) -> None:
        """Cancel for good, and let go of the owner: what is being loaded may outlive it."""
        self.cancel()
        self._on_done = lambda: None

    def wait(self, timeout: float) -> bool:
        """Wait until nothing is asked for; return False when the seconds are over before."""
        with self._changed:
            return self._changed.wait_for(lambda: self._newest is None, timeout)

    def take(self) -> Loaded | None:
        """Return the result of the newest request, once; None before it is there."""
        with self._changed:
            result, self._result = self._result, None
            return result

    def _run(self) -> None:
        while True:
            with self._changed:
                load, self._next = self._next, None
                if load is None:
                    self._is_running = False
                    return
            try:
                result = Loaded(load(), "")
            except AnomalyDetectorError as error:
                result = Loaded(None, str(error))
            except Exception as error:  # a thread that dies in silence would leave a user waiting
                result = Loaded(None, describe_error(error))
            with self._changed:
                if load is self._newest:
                    self._newest, self._result = None, result
                    self._changed.notify_all()
                    self._on_done()
                    continue
            if result.detector is not None:
                result.detector.close()
