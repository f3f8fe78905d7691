"""What the tests of the ROS side share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
import ros_harness
from rclpy.context import Context


@pytest.fixture
def context() -> Iterator[Any]:
    """A context of rclpy in this process, in the domain of the tests."""
    assert ros_harness.DOMAIN_ID  # set for every context of this process
    context = Context()
    rclpy.init(args=[], context=context)
    yield context
    context.try_shutdown()
