"""What differs between the rclpy of ROS 2's distros, from Humble to Rolling, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rclpy.subscription import Subscription

try:
    from rclpy import event_handler as qos_event
except ImportError:  # Humble
    from rclpy import qos_event

PublisherEventCallbacks = qos_event.PublisherEventCallbacks
SubscriptionEventCallbacks = qos_event.SubscriptionEventCallbacks


def image_callback(callback: Callable[[Any, Mapping[str, Any]], None]) -> Callable[..., None]:
    """Return a subscription's callback that passes the message info on, or nothing of it.

    Humble's rclpy calls every callback with the message alone; later ones look at how many
    arguments it takes.
    """
    if hasattr(Subscription, "CallbackType"):
        return callback
    return lambda message: callback(message, {})


def publisher_identity(
    info: Mapping[str, Any], count_publishers: Callable[[], int]
) -> tuple[bytes, int | None]:
    """Return what tells a message's publisher from others, and the message's number.

    Args:
        info: rclpy's message info: empty on Humble, without the publisher on Jazzy.
        count_publishers: of the topic; asked only where the info does not name the publisher.

    Returns:
        The publisher, empty where there is only one; and the number, None where the middleware
        gives none or the publishers cannot be told apart.
    """
    number = info.get("publication_sequence_number")
    publisher: bytes = (info.get("publisher_gid") or {}).get("data", b"")
    if number is not None and not publisher and count_publishers() > 1:
        number = None
    return publisher, number
