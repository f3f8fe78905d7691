"""Tasks on this machine: in this process, or in several of which each may die alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from typing import TypeAlias

from tqdm import tqdm

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.scoring.fleet.task import ScoreOutcome, ScoreTask, score_task

_IDLE_END_S = 1.0
"""An idle process takes milliseconds to end by itself."""

Finished: TypeAlias = tuple[ScoreTask, "ScoreOutcome | Exception"]
"""A task with what came of it."""


def run_here(tasks: Sequence[ScoreTask], retries: int) -> Iterator[Finished]:
    """Run tasks one after the other; each is tried again ``retries`` times after an error."""
    for task in tasks:
        for _ in range(retries + 1):
            result = _attempt(task)
            if isinstance(result, ScoreOutcome):
                break
        yield task, result


def run_in_processes(tasks: Sequence[ScoreTask], workers: int, retries: int) -> Iterator[Finished]:
    """Run tasks in several processes, in the order in which they end.

    A process that dies takes only its own task with it, which is tried again in a new process.

    Args:
        tasks: what to do.
        workers: processes.
        retries: times that a task is tried again after an error or the death of its process.
    """
    pool = _WorkerPool(retries)
    with ThreadPoolExecutor(workers) as threads:
        try:
            futures = {threads.submit(pool.run, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.stop()
            threads.shutdown(wait=False, cancel_futures=True)


class _WorkerPool:
    """Gives every thread that calls :meth:`run` a process of its own."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._stopped = False

    def run(self, task: ScoreTask) -> ScoreOutcome | Exception:
        result: ScoreOutcome | Exception = AnomalyDetectorError("stopped before it was scored")
        for _ in range(self._retries + 1):
            try:
                result = self._worker().run(task)
            except (EOFError, OSError):
                self._own.worker = None
                result = AnomalyDetectorError(
                    "the process that scored it died: was it killed, or out of memory?"
                )
            if self._stopped or isinstance(result, ScoreOutcome):
                break
        return result

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            with self._lock:
                if self._stopped:
                    raise EOFError
                worker = _Worker()
                self._workers.append(worker)
            self._own.worker = worker
        return worker

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.stop()


class _Worker:
    """A process that runs one task after the other."""

    def __init__(self) -> None:
        # Spawned, not forked: OpenCV and ONNX Runtime have threads, which a fork would lose.
        context = multiprocessing.get_context("spawn")
        self._connection, its_end = context.Pipe()
        self._is_busy = False
        self._process = context.Process(target=_serve, args=(its_end,), daemon=True)
        self._process.start()
        # Only the process itself may hold its end, or its death would go unnoticed.
        its_end.close()

    def run(self, task: ScoreTask) -> ScoreOutcome | Exception:
        """Run a task.

        Raises:
            EOFError: the process died.
            OSError: likewise.
        """
        self._is_busy = True
        self._connection.send(task)
        result: ScoreOutcome | Exception = self._connection.recv()
        self._is_busy = False
        return result

    def stop(self) -> None:
        """End the process: at once when it has work, which nobody waits for any more."""
        if not self._is_busy:
            self._connection.close()
            self._process.join(_IDLE_END_S)
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection) -> None:
    # tqdm's own lock is a semaphore of the system, which a process that is killed leaves behind.
    tqdm.set_lock(threading.RLock())
    # Ctrl-C reaches every process of the terminal: the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
            connection.send(_attempt(task))
        except (EOFError, OSError):
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # A job that was killed leaves no process behind that goes on for nobody.
        os._exit(1)


def _attempt(task: ScoreTask) -> ScoreOutcome | Exception:
    try:
        return score_task(task)
    except AnomalyDetectorError as error:
        return error
    except Exception as error:  # whatever it is, the other recordings are to be scored
        return AnomalyDetectorError(f"{type(error).__name__}: {error}")
