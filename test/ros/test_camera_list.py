"""The list of cameras: what it may say, and what is reported when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.shipped import share_path
from anomaly_detector.ros.launching.camera_list import Camera, read_cameras


def read(folder: Path, text: str | None) -> list[Camera]:
    file = folder / "cameras.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    return read_cameras(file)


def test_example_is_read() -> None:
    front, rear = read_cameras(share_path("config", "multi_camera.yaml"))
    assert front == Camera("front", "/front_camera/color/image_raw", None, {"model": "corridor"})
    assert rear.parameters == {
        "model": "corridor",
        "image_transport": "compressed",
        "expected_rate": 15.0,
        "alarm_raise_frames": 4,
    }


@pytest.mark.parametrize("given", ["own.yaml", "~/own.yaml"])
def test_defaults_and_params_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").touch()
    text = f"cameras: [{{name: robot/front}}, {{name: rear, params_file: {given}}}]"
    assert read(tmp_path, text) == [
        Camera("robot/front"),
        Camera("rear", params_file=tmp_path / "own.yaml"),
    ]


def test_qos_of_one_topic_can_be_overridden(tmp_path: Path) -> None:
    name = "qos_overrides./front/image.subscription.depth"
    text = f"cameras: [{{name: front, parameters: {{{name}: 5}}}}]"
    assert read(tmp_path, text)[0].parameters == {name: 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("cameras: [", "cannot be read"),
        ("- name: front", "has no list 'cameras'"),
        ("cameras: []", "has no list 'cameras'"),
        ("cameras: [{name: front}]\nmodel: corridor", "or more than that"),
        ("cameras: [{image_topic: /image}]", "camera 1 has no 'name'"),
        ("cameras: [front]", "camera 1 has no 'name'"),
        ("cameras: [{name: front}, {name: rear, topic: /image}]", "camera 2 has the unknown key"),
        ("cameras: [{name: 2nd}]", "has the name '2nd'"),
        ("cameras: [{name: 2}]", "name is 2: give a text"),
        ("cameras: [{name: front, model: 2024}]", "model is 2024: give a text"),
        ("cameras: [{name: a, image_transport: theora}]", "image_transport is 'theora'"),
        ("cameras: [{name: a, params_file: none.yaml}]", "none.yaml does not exist"),
        ("cameras: [{name: a, parameters: {treshold: 1}}]", "no parameter is named 'treshold'"),
        ("cameras: [{name: a, parameters: 3}]", "parameters is 3"),
        ("cameras: [{name: front}, {name: /front}]", "two cameras named 'front'"),
    ],
)
def test_wrong_list_is_reported(tmp_path: Path, text: str | None, message: str) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"cameras file .*cameras\.yaml") as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
