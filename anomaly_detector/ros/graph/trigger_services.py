"""The services of a node that only say what is to be done: ``std_srvs/Trigger``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from anomaly_detector.alarms.incidents import IncidentWatch

try:
    from std_srvs.srv import Trigger
except ImportError:  # of ROS 2's wheels it is one of its own
    Trigger = None

Answer = Callable[[], tuple[bool, str]]
"""Does it, and returns whether that worked and what there is to say."""


class TriggerServices:
    """Services of type ``std_srvs/Trigger``; each answer is logged, too.

    Args:
        node: an ``rclpy.node.Node``.
        answers: what each service does, by its name.
    """

    def __init__(self, node: Any, answers: Mapping[str, Answer]) -> None:
        self._node = node
        self._services = []
        if Trigger is None:
            names = " and ".join(answers)
            node.get_logger().warning(
                f"no {names}: the package std_srvs is missing, install it", once=True
            )
            return
        for name, answer in answers.items():
            self._services.append(node.create_service(Trigger, name, partial(self._call, answer)))

    def close(self) -> None:
        """Take the services out of the graph."""
        for service in self._services:
            self._node.destroy_service(service)

    def _call(self, answer: Answer, _: Any, response: Any) -> Any:
        response.success, response.message = answer()
        self._node.get_logger().info(response.message)
        return response


def snooze_answers(incidents: IncidentWatch) -> dict[str, Answer]:
    """Return the services that snooze the place of the newest alarm, and end that."""

    def snooze() -> tuple[bool, str]:
        snoozed = incidents.snooze()
        if snoozed is None:
            return False, (
                "nothing snoozed: there was no alarm yet, or the place of the newest is not known"
            )
        return True, f"snoozed: {snoozed}; recording goes on"

    def end() -> tuple[bool, str]:
        return True, f"{incidents.end_snoozes()} snoozes ended"

    return {"~/snooze": snooze, "~/end_snooze": end}
