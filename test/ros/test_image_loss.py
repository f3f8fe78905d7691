"""Images that are lost on their way are logged when the camera starts, with the remedy."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ros_harness
from ros_harness import ros_client, running, running_node

from anomaly_detector.monitoring.statistics import FrameStatistics, StatisticsReport
from anomaly_detector.ros.benchmarking.live import plain_environment
from anomaly_detector.ros.graph.dds import large_image_environment
from anomaly_detector.ros.graph.image_loss import explain_loss, large_image_remedy

FAST_DDS = "rmw_fastrtps_cpp"


def report(arrivals: int, dropped: int | None, period: float = 0.1) -> StatisticsReport:
    """Return what the statistics say of a stream with as many drops before each arrival."""
    statistics = FrameStatistics()
    for index in range(arrivals):
        statistics.receive(index * period, dropped)
        statistics.score(index * period, 0.001, None)
    return statistics.report(arrivals * period)


def explain(of: StatisticsReport, expected_rate: float = 0.0) -> str | None:
    return explain_loss(of, expected_rate, "/camera/image", 921_600, FAST_DDS)


def test_many_lost_images_are_reported_with_their_number() -> None:
    text = explain(report(10, 9))
    assert text is not None
    assert "90 of 100 images on /camera/image did not arrive" in text
    assert "fastdds_large_images.xml" in text


@pytest.mark.parametrize(
    "fine",
    [
        report(100, 0),
        replace(report(100, 0), recent_dropped=10),  # a busy machine
        report(2, 9),  # too few to say
        replace(report(10, 9), busy=0.6),  # the node may be too slow
        replace(report(2, 0), recent_dropped=60, recent_gaps=1),  # it stood still at the start
        replace(report(20, 0), recent_dropped=90, recent_gaps=3),  # and again
        report(0, None),
    ],
)
def test_few_lost_images_are_not(fine: StatisticsReport) -> None:
    assert explain(fine) is None


def test_small_images_are_not_lost_for_their_size() -> None:
    lost = report(10, 9)
    assert explain_loss(lost, 0.0, "/image", 100_000, FAST_DDS) is None
    assert explain_loss(lost, 0.0, "/image", 100_000, "rmw_cyclonedds_cpp") is not None


def test_without_numbers_the_expected_rate_decides() -> None:
    text = explain(report(20, None), expected_rate=30.0)
    assert text is not None
    assert "30 are expected" in text
    assert explain(report(20, None), expected_rate=10.0) is None
    assert explain(report(20, None)) is None
    assert math.isnan(report(1, None).input_rate)
    assert explain(report(1, None), expected_rate=30.0) is None


@pytest.mark.parametrize(
    ("rmw", "words"),
    [
        ("rmw_fastrtps_cpp", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("rmw_fastrtps_dynamic_cpp", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("rmw_cyclonedds_cpp", "CYCLONEDDS_URI"),
        ("rmw_zenoh_cpp", "rmw_zenoh_cpp"),
    ],
)
def test_remedy_is_that_of_the_middleware(rmw: str, words: str) -> None:
    assert words in large_image_remedy(rmw)


# A camera whose images have no subscriber's acknowledgement to wait for; the test ends before it.
CAMERA = [
    *(sys.executable, "-m", "anomaly_detector.ros.benchmarking.camera", "--hz", "30"),
    *("--frames", "3000", "--reliability", "best_effort", "--out"),
]


@pytest.mark.parametrize("has_profile", [False, True])
def test_node_names_the_profile_when_a_camera_sends_without_it(
    model: Path, tmp_path: Path, has_profile: bool
) -> None:
    assert ros_harness.DOMAIN_ID  # inherited by the processes
    environment = dict(os.environ)
    camera_environment = (
        large_image_environment(environment)
        if has_profile
        else plain_environment(environment, tmp_path)
    )
    # What the machine has no time for at once is kept, so that only the transport loses images.
    depth = "qos_overrides./image.subscription.depth:=100"
    # A camera that is found and takes its time is no camera without the profile.
    stale_s = 60.0 if has_profile else 2.0
    with (
        running_node(
            "-p", depth, model=model, diagnostics_period=0.2, stale_timeout=stale_s
        ) as node,
        ros_client() as client,
    ):
        node.wait_for_line("active, waiting for")
        with running([*CAMERA, str(tmp_path / "sent.json")], camera_environment):
            if has_profile:
                client.spin_until(lambda: len(client.detections) > 60, "answers")
                assert "did not arrive" not in node.output
                assert "fastdds_large_images.xml" not in node.output
            else:
                # As Fast DDS comes next to nothing arrives, or nothing at all.
                line = node.wait_for_line("fastdds_large_images.xml")
                assert "WARN" in line
                assert "did not arrive" in line or "nothing arrives" in line
