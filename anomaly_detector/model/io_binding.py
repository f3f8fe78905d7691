"""Runs of one frame with inputs and outputs at fixed places in a device's memory.

CUDA graphs need them: the recorded launches read and write the same addresses each time. Elsewhere
the plain ``session.run`` is as fast (``benchmarks/inference.py``), and is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class BoundRun:
    """Runs a session on frames of one shape.

    Args:
        session: an ``onnxruntime.InferenceSession``.
        input_name: of its input.
        shape: of the input, uint8, batch dimension included.
        outputs: names and shapes of the outputs, float32.
        device: ``cpu`` or ``cuda``, whose first device is taken.
    """

    def __init__(
        self,
        session: Any,
        input_name: str,
        shape: Sequence[int],
        outputs: Mapping[str, Sequence[int]],
        device: str = "cpu",
    ) -> None:
        self._session = session
        self._input = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.uint8), device, 0)
        self._outputs = [
            onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(size), np.float32, device, 0)
            for size in outputs.values()
        ]
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(input_name, self._input)
        for name, value in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def __call__(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run once; the outputs are copies, in the order in which they were named."""
        self._input.update_inplace(np.ascontiguousarray(images))
        self._session.run_with_iobinding(self._binding)
        # On the CPU numpy() is a view of memory that the next run writes to.
        return [np.array(value.numpy()) for value in self._outputs]
