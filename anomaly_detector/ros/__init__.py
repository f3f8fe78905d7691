"""The ROS side: nodes, players and recorders that translate messages for the core.

This is the only subpackage that imports rclpy or ROS messages; everything else runs without ROS.
:mod:`~anomaly_detector.ros.node.parameters` and :mod:`~anomaly_detector.ros.graph.dds` can be
imported without ROS too, because documentation, tests and launch files read them.
"""
