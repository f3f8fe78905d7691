"""Images that are lost between camera and node: whether so many are, and what to do about it."""

from __future__ import annotations

import math

from anomaly_detector.monitoring.statistics import StatisticsReport
from anomaly_detector.ros.graph.dds import PROFILE_VARIABLES

ENOUGH_SENT = 30
"""Images that a camera has to have sent before the share that was lost says anything."""

_LOST_SHARE = 0.3
"""Fast DDS without the profile loses nearly all large images; a busy machine loses some."""

_LEAST_GAPS = 3
"""The transport loses images again and again; a node that stood still lost them at once."""

_BUSY = 0.5
"""Above this share of processing time the images may be lost to a lack of time."""

_LARGE_FAST_DDS = 500_000
_LARGE_UDP = 64_000
"""Bytes of an image that needs the remedy: no room in shared memory, or in one UDP packet."""

_CURRENT, _OLDER = PROFILE_VARIABLES


def explain_loss(
    report: StatisticsReport, expected_rate: float, topic: str, image_bytes: int, rmw: str
) -> str | None:
    """Describe a loss of large images on their way in one sentence, with the remedy.

    The numbers of a report say what was sent; where the middleware gives none, the rate against the
    expected one does (0: not known). The text is None when few images are lost, or small ones, or
    for a lack of time, or while the node or the camera stood still.
    """
    large = _LARGE_FAST_DDS if rmw.startswith("rmw_fastrtps") else _LARGE_UDP
    if report.busy > _BUSY or image_bytes < large:
        return None
    if report.dropped is not None:
        sent = report.recent_received + report.recent_dropped
        if sent < ENOUGH_SENT or report.recent_dropped < _LOST_SHARE * sent:
            return None
        if report.recent_gaps < max(_LEAST_GAPS, _LOST_SHARE * report.recent_received):
            return None
        lost = f"{report.recent_dropped} of {sent} images on {topic} did not arrive"
    else:
        rate = report.input_rate
        if math.isnan(rate) or rate > (1 - _LOST_SHARE) * expected_rate:
            return None
        lost = f"{rate:.1f} images/s arrive on {topic}, {expected_rate:g} are expected"
    return f"{lost}: {large_image_remedy(rmw)}, or use compressed images"


def large_image_remedy(rmw: str) -> str:
    """Say what to do so that a middleware, such as ``rmw_fastrtps_cpp``, delivers large images."""
    if rmw.startswith("rmw_fastrtps"):
        return (
            "Fast DDS loses images over 0.5 MB unless the camera's process loads the package's "
            f"config/fastdds_large_images.xml (environment variable {_CURRENT}, on Jazzy and "
            f"earlier {_OLDER})"
        )
    if rmw == "rmw_cyclonedds_cpp":
        return (
            "Cyclone DDS loses large images when the receiving socket's buffer is small: allow "
            "more with 'sysctl -w net.core.rmem_max=33554432' and start this node with "
            "CYCLONEDDS_URI set to the package's config/cyclonedds_large_images.xml"
        )
    return f"see how {rmw} is set up for large messages"
