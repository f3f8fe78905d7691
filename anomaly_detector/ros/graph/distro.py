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
    """Return a message's publisher and number, as far as the middleware gives them.

    rclpy's info is empty on Humble, and without the publisher on Jazzy: then the publisher is
    empty, and the number None where several publish.
    """
    number = info.get("publication_sequence_number")
    publisher: bytes = (info.get("publisher_gid") or {}).get("data", b"")
    if number is not None and not publisher and count_publishers() > 1:
        number = None
    return publisher, number
