"""Visual anomaly detection for robots: the robot side.

Nothing outside :mod:`anomaly_detector.ros` imports rclpy or ROS messages, and nothing here imports
TensorFlow: the same code scores frames on the robot, in the command line and during training.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
