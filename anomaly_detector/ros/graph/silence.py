"""Why no image arrives: what the ROS graph says of the two ends of the image topic."""

from __future__ import annotations

from typing import Any

from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.utilities import get_rmw_implementation_identifier

from anomaly_detector.ros.graph.image_loss import large_image_remedy
from anomaly_detector.ros.graph.node_name import node_name


def type_name(message_type: Any) -> str:
    """Return a message class' name as the graph has it: ``sensor_msgs/msg/Image``."""
    package = message_type.__module__.split(".")[0]
    return f"{package}/msg/{message_type.__name__}"


def explain_silence(node: Any, subscription: Any) -> str:
    """Return the likeliest reason why a node's subscription receives nothing, and the remedy."""
    topic = subscription.topic_name
    image_type = type_name(subscription.msg_type)
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        transport = "raw" if topic.endswith("/compressed") else "compressed"
        other = topic.removesuffix("/compressed") if transport == "raw" else f"{topic}/compressed"
        if node.count_publishers(other):
            return f"it has no publisher, but {other} has: set image_transport to {transport}"
        own = f"{node.get_fully_qualified_name()}/"
        others = sorted(
            name
            for name, types in node.get_topic_names_and_types()
            if image_type in types and name != topic and not name.startswith(own)
        )
        known = f"; there is {', '.join(others)}" if others else ""
        return f"it has no publisher; start the camera or remap image to its topic{known}"
    count = f"it has {len(publishers)} publisher{'s' if len(publishers) > 1 else ''}"
    wanted = [info for info in publishers if info.topic_type == image_type]
    if not wanted:
        types = ", ".join(sorted({info.topic_type for info in publishers}))
        return f"{count} of {types}; set image_transport or remap image to a camera's topic"
    reasons = [reason for info in wanted if (reason := _incompatibility(info, subscription))]
    if len(reasons) == len(wanted):
        return (
            f"{count} of incompatible QoS ({'; '.join(sorted(set(reasons)))}); change it "
            f"with the parameters qos_overrides.{topic}.subscription.*"
        )
    return (
        f"{count} but nothing arrives; is the camera running? "
        f"{large_image_remedy(get_rmw_implementation_identifier())}"
    )


def explain_incompatible_qos(node: Any, subscription: Any) -> str:
    """Name the publishers that offer a node's subscription less than it asks for, and why.

    The text is empty while the graph has no name for one of them.
    """
    topic = subscription.topic_name
    sides = []
    for info in node.get_publishers_info_by_topic(topic):
        reason = _incompatibility(info, subscription)
        if reason and not (name := node_name(info)):
            return ""
        if reason:
            sides.append(f"publisher {name} ({reason})")
    found = ", ".join(sides) or "a publisher that is gone again"
    return (
        f"incompatible QoS on {topic}: {found} against subscription "
        f"{node.get_fully_qualified_name()}; no image comes from there. Change one side, here with "
        f"the parameters qos_overrides.{topic}.subscription.*"
    )


def explain_unheard(node: Any, publisher: Any) -> str:
    """Name the subscribers that ask for something else than a node's publisher offers.

    The text is empty when every subscriber that the graph can name receives what is published.
    """
    topic, kind = publisher.topic_name, type_name(publisher.msg_type)
    me = node.get_fully_qualified_name()
    # As the graph has it: there durations that nobody set are infinite, in the publisher's own 0.
    offered = next(
        (
            info.qos_profile
            for info in node.get_publishers_info_by_topic(topic)
            if node_name(info) == me
        ),
        publisher.qos_profile,
    )
    sides = []
    for info in node.get_subscriptions_info_by_topic(topic):
        if info.topic_type != kind:
            reason = f"of {info.topic_type}, not {kind}"
        else:
            reason = _mismatch(offered, info.qos_profile)
        if reason and (name := node_name(info)):
            sides.append(f"{name} ({reason})")
    if not sides:
        return ""
    return (
        f"subscribers of {topic} receive nothing, for they ask for another type or QoS: "
        f"{', '.join(sides)}; change their side"
    )


def _incompatibility(info: Any, subscription: Any) -> str:
    return _mismatch(info.qos_profile, subscription.qos_profile)


def _mismatch(offered: Any, asked: Any) -> str:
    compatibility, reason = qos_check_compatible(offered, asked)
    return reason.strip(" ;") if compatibility == QoSCompatibility.ERROR else ""
