"""Differences between distros: what Humble, Jazzy and Kilted say of a message."""

from __future__ import annotations

from typing import Any

import pytest
from rclpy.subscription import Subscription

from anomaly_detector.ros.graph.distro import image_callback, publisher_identity

GID = {"implementation_identifier": "rmw_fastrtps_cpp", "data": b"\x01\x02"}


@pytest.mark.parametrize(
    ("info", "publishers", "expected"),
    [
        ({}, 1, (b"", None)),  # Humble
        ({"publication_sequence_number": 7}, 1, (b"", 7)),  # Jazzy
        ({"publication_sequence_number": 7}, 2, (b"", None)),
        ({"publication_sequence_number": 7, "publisher_gid": GID}, 2, (b"\x01\x02", 7)),
        ({"publication_sequence_number": None, "publisher_gid": None}, 1, (b"", None)),
    ],
)
def test_publisher_identity(
    info: dict[str, Any], publishers: int, expected: tuple[bytes, int | None]
) -> None:
    assert publisher_identity(info, lambda: publishers) == expected


def test_callback_takes_the_message_alone_where_rclpy_gives_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, Any]] = []

    def callback(message: Any, info: Any) -> None:
        calls.append((message, info))

    assert image_callback(callback) is callback
    monkeypatch.delattr(Subscription, "CallbackType")  # as on Humble
    image_callback(callback)("message")
    assert calls == [("message", {})]
