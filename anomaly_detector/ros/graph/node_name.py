"""The names of nodes in the ROS graph."""

from __future__ import annotations

from typing import Any


def node_name(info: Any) -> str:
    """Return the full name of the node of an ``rclpy.topic_endpoint_info.TopicEndpointInfo``.

    It is empty for as long as an endpoint is found and its node is not.
    """
    # As rmw has it; rclpy has no constant for it.
    if info.node_name == "_NODE_NAME_UNKNOWN_":
        return ""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
