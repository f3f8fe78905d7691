"""The list of cameras that ``multi_camera.launch.py`` starts detectors for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from anomaly_detector.ros.node.parameters import IMAGE_TRANSPORTS, PARAMETERS

_NAMESPACE = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_OWN_KEYS = ("model", "image_transport")


@dataclass(frozen=True)
class Camera:
    """One camera: the namespace of its node, its topic (relative to that), its parameters."""

    name: str
    image_topic: str = "image"
    params_file: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


def read_cameras(path: Path) -> list[Camera]:
    """Read a YAML file with one key, ``cameras``: a list of mappings with ``name`` and more.

    Raises:
        AnomalyDetectorError: the file cannot be read, or an entry is wrong.
    """
    import yaml  # a dependency of rclpy, and not of the node itself

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = as_one_line(error)
        raise AnomalyDetectorError(f"cameras file {path} cannot be read: {reason}") from error
    entries = document.get("cameras") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries or set(document) != {"cameras"}:
        raise AnomalyDetectorError(
            f"cameras file {path} has no list 'cameras', or more than that: "
            "see config/multi_camera.yaml"
        )
    cameras = [_read_camera(path, index, entry) for index, entry in enumerate(entries)]
    names = [camera.name.strip("/") for camera in cameras]
    for name in names:
        if names.count(name) > 1:
            raise AnomalyDetectorError(
                f"cameras file {path} has two cameras named {name!r}: each needs a name of its own"
            )
    return cameras


def _read_camera(path: Path, index: int, entry: object) -> Camera:
    where = f"cameras file {path}, camera {index + 1}"
    known = {"name", "image_topic", "params_file", "parameters", *_OWN_KEYS}
    if not isinstance(entry, dict) or "name" not in entry:
        raise AnomalyDetectorError(f"{where} has no 'name': give it one, such as front")
    for key in entry:
        if key not in known:
            raise AnomalyDetectorError(f"{where} has the unknown key {key!r}: use {sorted(known)}")
    texts = {key: _text(where, entry, key) for key in entry if key != "parameters"}
    name = texts["name"]
    if not _NAMESPACE.fullmatch(name):
        raise AnomalyDetectorError(
            f"{where} has the name {name!r}: a namespace is letters, digits, _ and /, "
            "and no part begins with a digit"
        )
    own = texts.get("params_file")
    params_file = None if own is None else path.parent / os.path.expanduser(own)
    if params_file is not None and not params_file.is_file():
        raise AnomalyDetectorError(f"{where}: params_file {params_file} does not exist")
    return Camera(
        name,
        texts.get("image_topic", "image"),
        params_file,
        {**_parameters(where, entry), **{key: texts[key] for key in _OWN_KEYS if key in texts}},
    )


def _text(where: str, entry: Mapping[str, Any], key: str) -> str:
    value = entry[key]
    if not isinstance(value, str) or not value:
        raise AnomalyDetectorError(f"{where}: {key} is {value!r}: give a text, quoted if need be")
    if key == "image_transport" and value not in IMAGE_TRANSPORTS:
        raise AnomalyDetectorError(
            f"{where}: image_transport is {value!r}, it must be {' or '.join(IMAGE_TRANSPORTS)}"
        )
    return value


def _parameters(where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    values = entry.get("parameters", {})
    if not isinstance(values, dict):
        raise AnomalyDetectorError(f"{where}: parameters is {values!r}: give names and values")
    names = {definition.name for definition in PARAMETERS}
    for name in values:
        # The middle part of qos_overrides.* is the name of a topic.
        if name not in names and not str(name).startswith("qos_overrides."):
            raise AnomalyDetectorError(f"{where}: no parameter is named {name!r}, see docs/node.md")
    return dict(values)
