"""Tasks on a running Dask cluster (``dask scheduler``, ``dask worker``)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.scoring.fleet.processes import Finished
from anomaly_detector.scoring.fleet.task import ScoreTask, score_task

_CONNECT_S = 30.0
_WORKERS_S = 60.0

# Python 3.10 has two.
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)


def run_on_dask(tasks: Sequence[ScoreTask], scheduler: str, retries: int) -> Iterator[Finished]:
    """Run tasks on a Dask cluster, in the order in which they end.

    The scheduler gives the tasks of a lost worker to others; a task that has taken
    ``distributed.scheduler.allowed-failures`` workers with it (3 by default) is given up.

    Args:
        tasks: what to do; the paths in them must lead to the same files on every worker.
        scheduler: its address, such as ``tcp://10.0.0.5:8786``.
        retries: times that a task is tried again after an error.

    Raises:
        AnomalyDetectorError: Dask is not installed, the scheduler cannot be reached or is lost, or
            it has no worker.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise AnomalyDetectorError(
            f"--scheduler {scheduler} needs Dask ({error}): run 'pip install dask distributed'"
        ) from error
    try:
        # First: a client that was given no address at all takes a minute to go away.
        get_address_host_port(scheduler)
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TypeError, ValueError, *_TIMEOUTS) as error:
        raise AnomalyDetectorError(
            f"scheduler {scheduler} cannot be reached ({error}): start 'dask scheduler' there or "
            "give its address, such as tcp://10.0.0.5:8786"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKERS_S)
        except (OSError, *_TIMEOUTS) as error:
            raise AnomalyDetectorError(
                f"scheduler {scheduler} has no worker: start 'dask worker {scheduler}'"
            ) from error
        job = uuid.uuid4().hex
        futures = {
            # A key of its own: a result of an earlier job, of other files, is never taken.
            client.submit(score_task, task, key=f"score-{job}-{task.name}", retries=retries): task
            for task in tasks
        }
        for future in as_completed(list(futures), loop=client.loop):
            task = futures.pop(future)
            if future.cancelled():
                raise AnomalyDetectorError(
                    f"scheduler {scheduler} was lost: run the same command again, what is finished "
                    "is kept"
                )
            failure = future.exception()
            if failure is None:
                yield task, future.result()
            elif isinstance(failure, AnomalyDetectorError):
                yield task, failure
            elif isinstance(failure, KilledWorker):
                reason = "every worker that scored it died: was it killed, or out of memory?"
                yield task, AnomalyDetectorError(reason)
            else:
                yield task, AnomalyDetectorError(f"{type(failure).__name__}: {failure}")
            # The cluster may forget the tables now.
            future.release()
