"""Visual anomaly detection for robots: the robot side.

Nothing outside :mod:`anomaly_detector.ros` imports rclpy or ROS messages, and nothing here imports
TensorFlow: the same code scores frames on the robot, in the command line and during training.
"""

import os

__all__ = ["__version__"]

__version__ = "0.1.0"

# ONNX Runtime reads this when it is imported. Since 1.29 it else writes a device id and a database
# of events, and looks up an outside host. Whatever imports it here has imported this package first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# OpenCV reads this when it is imported: a file that asks for a giant picture costs nothing. It is
# anomaly_detector.pixels.MAX_PIXELS.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "40000000")
