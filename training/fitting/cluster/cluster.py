"""Several machines that train one network together: synchronous data parallelism.

TensorFlow's ``MultiWorkerMirroredStrategy`` carries the sums between them. Every worker has the
whole recording and takes its share of every batch; the gradients are averaged over all, so that
every worker makes the same steps as one machine would with the whole batch. Worker 0, the chief,
writes the model and the checkpoints; the others write nothing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.files import atomic_path
from training.networks.backend import import_keras, import_tensorflow

FROM_ENVIRONMENT = "TF_CONFIG"
"""In the place of addresses: as TensorFlow's environment variable of this name says."""


@dataclass(frozen=True)
class Membership:
    """Who trains together.

    Attributes:
        addresses: HOST:PORT of every worker, at which the others reach it; the same everywhere.
        index: which of them this process is, from 0, the chief.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """This is the worker that writes the model."""
        return self.index == 0


def read_membership(
    addresses: Sequence[str], index: int | None, environment: Mapping[str, str] = os.environ
) -> Membership:
    """Check who trains together.

    Args:
        addresses: HOST:PORT of every worker, or :data:`FROM_ENVIRONMENT` alone.
        index: which of them this process is.
        environment: where ``TF_CONFIG`` is looked up.

    Raises:
        AnomalyDetectorError: an address or the index is at fault, or no host has such a name.
    """
    if list(addresses) == [FROM_ENVIRONMENT]:
        if index is not None:
            raise AnomalyDetectorError(
                f"--worker {index}: {FROM_ENVIRONMENT} has the index already: leave --worker out"
            )
        addresses, index = _from_environment(environment)
    if len(addresses) < 2:
        raise AnomalyDetectorError(
            f"--cluster {' '.join(addresses)} is one worker: name the HOST:PORT of all of them, "
            "this one's too, or leave --cluster out"
        )
    if index is None:
        raise AnomalyDetectorError(
            f"--cluster needs --worker: say which of its {len(addresses)} addresses is this "
            "machine's, 0 for the first"
        )
    if not 0 <= index < len(addresses):
        raise AnomalyDetectorError(
            f"--worker {index} is none of the {len(addresses)} workers of --cluster: give 0 to "
            f"{len(addresses) - 1}"
        )
    for address in addresses:
        _check_address(address)
    if len(set(addresses)) < len(addresses):
        raise AnomalyDetectorError(
            f"--cluster {' '.join(addresses)} names an address twice: give every worker a port of "
            "its own"
        )
    return Membership(tuple(addresses), index)


def _from_environment(environment: Mapping[str, str]) -> tuple[Sequence[str], int]:
    text = environment.get(FROM_ENVIRONMENT, "")
    try:
        config = json.loads(text)
        workers, task = config["cluster"], config["task"]
        # Kubernetes' operators call the first worker "chief".
        chiefs = list(workers.get("chief", []))
        offset = len(chiefs) if task["type"] == "worker" else 0
        return [*map(str, chiefs), *map(str, workers["worker"])], offset + int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnomalyDetectorError(
            f"environment variable {FROM_ENVIRONMENT} is {text!r}, which names no workers: set it "
            "as TensorFlow's guide to multi-worker training says, or give --cluster HOST:PORT ..."
        ) from error


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise AnomalyDetectorError(
            f"--cluster {address} is no HOST:PORT: write for example 10.0.0.5:12345"
        )
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise AnomalyDetectorError(
            f"--cluster {address}: no host of that name is known here "
            f"({error.strerror or error}): check it, or give its IP address"
        ) from error


class Cluster:
    """The workers, connected; every method raises ``AnomalyDetectorError`` when one is gone.

    Args:
        membership: who they are.
        strategy: TensorFlow's, with one replica a worker.
    """

    def __init__(self, membership: Membership, strategy: Any) -> None:
        self.index = membership.index
        self.size = len(membership.addresses)
        self.is_chief = membership.is_chief
        self._strategy = strategy

    @classmethod
    def join(cls, membership: Membership) -> Cluster:
        """Connect to the others; waits until all are there.

        To be called before TensorFlow has computed anything.

        Raises:
            AnomalyDetectorError: Keras does not run on TensorFlow, the port is taken, or a worker
                has several GPUs.
        """
        backend = import_keras().backend.backend()
        if backend != "tensorflow":
            raise AnomalyDetectorError(
                f"--cluster trains with TensorFlow, but Keras runs on {backend}: unset "
                "KERAS_BACKEND or set it to tensorflow"
            )
        tensorflow = import_tensorflow()
        index, addresses = membership.index, membership.addresses
        _check_port(addresses[index])
        others = ", ".join(a for i, a in enumerate(addresses) if i != index)
        print(
            f"worker {index} of {len(addresses)}, waiting for {others} (Ctrl-C ends it)",
            file=sys.stderr,
        )
        resolver = tensorflow.distribute.cluster_resolver.SimpleClusterResolver(
            tensorflow.train.ClusterSpec({"worker": list(addresses)}),
            task_type="worker",
            task_id=index,
            rpc_layer="grpc",
        )
        with translated_errors(), _default_interrupt():
            strategy = tensorflow.distribute.MultiWorkerMirroredStrategy(resolver)
        if strategy.num_replicas_in_sync != len(addresses):
            raise AnomalyDetectorError(
                f"{len(addresses)} workers have {strategy.num_replicas_in_sync} devices: give "
                "each worker one GPU, with CUDA_VISIBLE_DEVICES, and start one worker for each"
            )
        return cls(membership, strategy)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of tensors as the replica of this worker, inside of a ``tf.function``."""
        return self._strategy.run(function, args=arguments)

    def mean(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """Average tensors over the workers; to be called in a function that :meth:`run` runs."""
        return self._reduce(import_tensorflow().distribute.ReduceOp.MEAN, tensors)

    def gather(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Return every worker's values, float64 [workers, values]."""
        table = np.zeros((self.size, len(values)))
        table[self.index] = values
        (result,) = self._sum([table])
        return result

    def hand_out(self, path: Path) -> None:
        """Write the chief's file, if the chief has it, at every worker."""
        content = path.read_bytes() if self.is_chief and path.is_file() else b""
        length = int(self.gather([len(content)])[0, 0])
        if not length:
            return
        # The others add nothing to what the chief has.
        own = np.frombuffer(content or bytes(length), np.uint8).astype(np.int32)
        (data,) = self._sum([own])
        if not self.is_chief:
            with atomic_path(path) as temporary:
                temporary.write_bytes(data.astype(np.uint8).tobytes())

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Check that all workers train the same.

        Args:
            facts: name to something that has to be the same everywhere, as JSON knows it.

        Raises:
            AnomalyDetectorError: it is not.
        """
        sums = [zlib.crc32(json.dumps(fact, sort_keys=True).encode()) for fact in facts.values()]
        for name, column in zip(facts, self.gather(sums).T, strict=True):
            different = np.flatnonzero(column != column[0])
            if len(different):
                raise AnomalyDetectorError(
                    f"worker {different[0]} has other {name} than worker 0: start all workers with "
                    "the same options and the same recordings"
                )

    def synchronize(self, model: Any) -> None:
        """Bring the variables of a compiled model together after some steps.

        The steps are the same everywhere up to the rounding of unlike processors: the chief's
        weights and optimizer hold. What layers count over the frames that they see (batch
        normalisation) is averaged: moving averages are linear in what is averaged.
        """
        stepped = [*model.trainable_variables, *model.optimizer.variables]
        counted = model.non_trainable_variables
        floats = [v for v in [*stepped, *counted] if "float" in str(v.dtype)]
        own = [np.asarray(v) for v in floats]
        is_stepped = {id(v) for v in stepped}
        shares = [
            array * array.dtype.type(self.is_chief if id(v) in is_stepped else 1 / self.size)
            for v, array in zip(floats, own, strict=True)
        ]
        for variable, array in zip(floats, self._sum(shares), strict=True):
            variable.assign(array)

    def _sum(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        tensors = [import_tensorflow().convert_to_tensor(array) for array in arrays]
        with translated_errors():
            return [np.asarray(tensor) for tensor in self._sum_tensors(tensors)]

    @cached_property
    def _sum_tensors(self) -> Callable[..., Any]:
        tensorflow = import_tensorflow()
        add = tensorflow.distribute.ReduceOp.SUM

        def reduce(tensors: Any) -> Any:
            return self.run(lambda *own: self._reduce(add, own), *tensors)

        # Collective operations run in graphs only.
        compiled: Callable[..., Any] = tensorflow.function(
            reduce, autograph=False, reduce_retracing=True
        )
        return compiled

    @staticmethod
    def _reduce(operation: Any, tensors: Sequence[Any]) -> Sequence[Any]:
        tensorflow = import_tensorflow()
        context = tensorflow.distribute.get_replica_context()
        # A function's arguments are on no device yet, which all_reduce goes by.
        placed = [tensorflow.identity(tensor) for tensor in tensors]
        reduced: Sequence[Any] = context.all_reduce(operation, placed)
        return reduced


@contextmanager
def translated_errors() -> Iterator[None]:
    """Say in one line that another worker is gone.

    Raises:
        AnomalyDetectorError: in the place of TensorFlow's error.
    """
    try:
        yield
    except import_tensorflow().errors.OpError as error:
        # It begins with a stack of the graph's making.
        told = re.search(r"aborted by: *(.+)", error.message)
        reason = told[1] if told else type(error).__name__
        raise AnomalyDetectorError(
            f"the cluster broke off ({reason}): see what ended the other worker, then start all "
            "of them again with --resume"
        ) from error


@contextmanager
def _default_interrupt() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process: TensorFlow waits without looking at Python."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, signal.SIG_DFL) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _check_port(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with socket.socket() as probe:
        # As TensorFlow's server does: a port that a dead process held is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise AnomalyDetectorError(
                f"port {port} of --cluster {address} cannot be had ({error.strerror}): end the "
                "process that has it or choose another one"
            ) from error
