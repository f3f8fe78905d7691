"""Reads PyTorch's checkpoints of before version 1.6, without PyTorch and without trusting them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from anomaly_detector.errors import AnomalyDetectorError


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a state dictionary in the file's order.

    The file is a row of pickles (magic number, version, sizes of types, tensors, keys of their
    storages) and then each storage: its length and its values.

    Raises:
        AnomalyDetectorError: the file is of another format, is cut off, or holds anything else
            than tensors of float32 and int64; nothing of it has been run.
    """
    try:
        with path.open("rb") as file:
            header = [_Unpickler(file).load() for _ in range(3)]
            if header[0] != 0x1950A86A20F9469CFC6C:
                raise pickle.UnpicklingError("no magic number of PyTorch")
            unpickler = _Unpickler(file)
            tensors = dict(unpickler.load())
            for key in _Unpickler(file).load():
                _fill(file, unpickler.storages[key])
    except (pickle.UnpicklingError, ArithmeticError, AttributeError, LookupError,
            MemoryError, OSError, EOFError, TypeError, ValueError) as error:  # fmt: skip
        raise AnomalyDetectorError(
            f"checkpoint {path} cannot be read ({error}): install its package again"
        ) from error
    return tensors


def _fill(file: IO[bytes], storage: NDArray[Any]) -> None:
    length = int.from_bytes(file.read(8), "little")
    data = file.read(storage.nbytes)
    if length != storage.size or len(data) != storage.nbytes:
        raise EOFError(f"a storage of {storage.size} values is cut off")
    storage[:] = np.frombuffer(data, storage.dtype)


def _tensor(
    storage: NDArray[Any], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    """Return a view of a storage, which is filled later; numpy checks that it stays inside."""
    size = storage.itemsize
    steps = [size * step for step in stride]
    view: NDArray[Any] = np.ndarray(shape, storage.dtype, storage, offset * size, steps)
    return view


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Unpickler(pickle.Unpickler):
    """Knows the names that tensors need, and no others."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _NAMES[module, name]

    def persistent_load(self, identity: Any) -> NDArray[Any]:
        _, dtype, key, _, size, _ = identity
        return self.storages.setdefault(key, np.empty(size, dtype))
