"""The services that snooze the place of the newest alarm, and end that."""

from __future__ import annotations

from typing import Any

from anomaly_detector.alarms.incidents import IncidentWatch

try:
    from std_srvs.srv import Trigger
except ImportError:  # of ROS 2's wheels it is one of its own
    Trigger = None


class SnoozeServices:
    """``~/snooze`` and ``~/end_snooze``, of type ``std_srvs/Trigger``.

    Args:
        node: an ``rclpy.node.Node``.
        incidents: of the node.
    """

    def __init__(self, node: Any, incidents: IncidentWatch) -> None:
        self._node, self._incidents = node, incidents
        self._services = []
        if Trigger is None:
            node.get_logger().warning("no ~/snooze: it needs the package std_srvs, install it")
            return
        for name, answer in (("~/snooze", self._snooze), ("~/end_snooze", self._end)):
            self._services.append(node.create_service(Trigger, name, answer))

    def close(self) -> None:
        """Take the services out of the graph."""
        for service in self._services:
            self._node.destroy_service(service)

    def _snooze(self, _: Any, response: Any) -> Any:
        snooze = self._incidents.snooze()
        response.success = snooze is not None
        response.message = (
            "nothing snoozed: there was no alarm yet, or the place of the newest is not known"
            if snooze is None
            else f"snoozed: {snooze}; recording goes on"
        )
        self._node.get_logger().info(response.message)
        return response

    def _end(self, _: Any, response: Any) -> Any:
        response.success = True
        response.message = f"{self._incidents.end_snoozes()} snoozes ended"
        self._node.get_logger().info(response.message)
        return response
