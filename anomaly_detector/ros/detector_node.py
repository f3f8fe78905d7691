"""Entry point of the detector node's process; it runs :mod:`anomaly_detector.ros.node.process`.

This module imports next to nothing, so that a signal ends the process quietly from its first
instruction on: the node's imports take half a second.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from anomaly_detector.signals import EndRequest, open_standard_streams


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; ``args`` are ROS arguments, None for ``sys.argv``.

    Returns:
        Exit code: 0 after a signal, 1 when the node cannot be made. A model that cannot be loaded
        leaves it unconfigured, to be tried again.
    """
    open_standard_streams()
    end = EndRequest()
    from anomaly_detector.ros.node.model_loader import is_loading
    from anomaly_detector.ros.node.process import run

    try:
        code = run(args, end)
    finally:
        # The node's parts refer to each other; Fast DDS removes its shared memory, tens of
        # megabytes with the profile for large images, when the last of them is gone.
        gc.unfreeze()
        gc.collect()
        end.close()
    if is_loading():
        # An interpreter that ends beneath ONNX Runtime is aborted.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
