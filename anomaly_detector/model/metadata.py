"""What a model file says about itself: the JSON entry in the ONNX metadata.

A score without a scale is useless, and a model fed with frames that were resized in another way is
wrong without a sign of it. So all that is needed to use a model right travels inside its file,
under the key :data:`METADATA_KEY`, and is checked when the file is loaded.
``docs/model-format.md`` describes every field.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, is_dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from anomaly_detector.camera_health.reference import CameraReference
from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import RegionOfInterest
from anomaly_detector.images.mask import Mask
from anomaly_detector.images.preprocessing import (
    COMPATIBLE_RESIZE_METHODS,
    INPUT_SIZE,
    INPUT_SIZES,
    RESIZE_METHOD,
    View,
)
from anomaly_detector.model.fingerprint import Fingerprint
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.older_models import completed

FORMAT_VERSION = 2
METADATA_KEY = "anomaly_detector"

_EXPORT = "export the model again with 'python -m training train'"

# Fields of version 2 that came later; models from before look at the whole frame.
_ADDED_LATER: dict[str, Any] = {
    "region_of_interest": [0, 0, 0, 0],
    "image_scaling": None,
    "training_recordings": [],
    "mask": None,
    "camera_reference": None,
}


@dataclass(frozen=True)
class Calibration:
    """Where a threshold comes from."""

    method: str
    false_alarm_rate: float | None = None
    frames: int = 0
    quantiles: Mapping[str, float] = field(default_factory=dict)
    effective_frames: int | None = None
    false_alarm_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """The contents of the metadata entry, field by field as in ``docs/model-format.md``."""

    name: str
    architecture: str
    scorer: str
    score_units: str
    threshold: float
    calibration: Calibration
    input_size: int = INPUT_SIZE
    color_order: str = "rgb"
    resize_method: str = RESIZE_METHOD
    region_of_interest: tuple[int, int, int, int] = (0, 0, 0, 0)
    image_scaling: tuple[float, float] | None = None
    mask: str | None = None
    score_maximum: float | None = None
    map_scale: MapScale = MapScale(0.0, None)  # noqa: RUF009
    training_recordings: tuple[Fingerprint, ...] = ()
    camera_reference: CameraReference | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def view(self) -> View:
        """What the model sees of a frame."""
        scaling = None if self.image_scaling is None else ImageScaling(*self.image_scaling)
        return View(RegionOfInterest(*self.region_of_interest), scaling, self.input_size)

    @functools.cached_property
    def input_mask(self) -> Mask | None:
        """What of its input the model does not look at; None for a model without a mask."""
        return None if self.mask is None else Mask.from_text(self.mask, self.input_size)

    def with_mask(self, mask: Mask | None) -> ModelMetadata:
        """Return the metadata of a model with a mask."""
        return replace(self, mask=None if mask is None else mask.to_text())

    def with_view(self, view: View) -> ModelMetadata:
        """Return the metadata of a model that sees frames so.

        Raises:
            AnomalyDetectorError: its mask is for another region.
        """
        if self.mask is not None and view.region != self.view.region:
            raise AnomalyDetectorError(
                f"model {self.name} has a mask for region {self.view.region}, which lies elsewhere "
                f"in region {view.region}: keep the region, or train a model for that one"
            )
        scaling = None if view.scaling is None else astuple(view.scaling)
        return replace(
            self,
            input_size=view.size,
            region_of_interest=astuple(view.region),
            image_scaling=scaling,
        )

    def with_threshold(self, threshold: float, calibration: Calibration) -> ModelMetadata:
        """Return the metadata of the model with another threshold."""
        scale = self.map_scale.at(threshold, self.threshold)
        return replace(self, threshold=threshold, calibration=calibration, map_scale=scale)

    def view_warning(self, view: View, verb: str = "calibrate") -> str | None:
        """Return what is to be said of a view that is not the model's; None for its own.

        Args:
            view: the view.
            verb: what to do to the model for it to be its own.
        """
        own = self.view
        parts = []
        if view.region != own.region:
            parts.append(f"region of interest {view.region}, not its own {own.region}")
        if view.scaling != own.scaling:
            parts.append(f"image scaling {view.scaling}, not its own {own.scaling or 'none'}")
        if not parts:
            return None
        if self.mask is not None and view.region != own.region:
            parts[0] += ", where its mask lies elsewhere"
        return (
            f"model {self.name} is given {' and '.join(parts)}: {verb} it with the same, or "
            "leave them out"
        )

    def to_json(self) -> str:
        """Return the JSON text for the ONNX metadata entry.

        Raises:
            ValueError: a number in it is NaN or infinite, which JSON cannot say.
        """
        return json.dumps(asdict(self), allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelMetadata:
        """Read and check the JSON text of a model file.

        Args:
            text: the metadata entry.
            source: the model's path, for errors.

        Raises:
            ModelError: no JSON object, another format version, a field missing or of a wrong
                type, a threshold that is not finite, or an input this package does not produce.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(
                f"model {source}: metadata entry {METADATA_KEY!r} is not JSON ({error}): {_EXPORT}"
            ) from error
        if not isinstance(raw, dict):
            raise ModelError(
                f"model {source}: metadata entry {METADATA_KEY!r} is a {type(raw).__name__}, "
                f"not an object: {_EXPORT}"
            )
        version = raw.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise ModelError(
                f"model {source}: format version {version}, this package reads {FORMAT_VERSION}: "
                "export the model with the version of anomaly_detector that runs it"
            )
        is_older = "map_scale" not in raw
        raw = _ADDED_LATER | raw
        if is_older:
            raw |= {"score_maximum": None, "map_scale": asdict(MapScale(0.0, None))}
        try:
            metadata: ModelMetadata = _read(cls, raw, "")
            _ = metadata.view, metadata.input_mask  # their parts have ranges
        except AnomalyDetectorError as error:
            raise ModelError(f"model {source}: metadata field {error}: {_EXPORT}") from error
        for name, got, wanted, accepted in (
            ("input_size", metadata.input_size, "16 to 512 pixels", INPUT_SIZES),
            ("color_order", metadata.color_order, "rgb", {"rgb"}),
            ("resize_method", metadata.resize_method, RESIZE_METHOD, COMPATIBLE_RESIZE_METHODS),
        ):
            if got not in accepted:
                raise ModelError(
                    f"model {source}: {name} is {got!r}, this package prepares frames with "
                    f"{wanted!r}: train the model again with this version"
                )
        return completed(metadata) if is_older else metadata


_fields_of = functools.cache(get_type_hints)

_IN_WORDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}


def _read(kind: Any, value: Any, place: str) -> Any:
    """Return a value of JSON as a type of :class:`ModelMetadata`'s fields.

    Raises:
        AnomalyDetectorError: it is none; the message begins with its place.
    """

    def check(is_good: bool, wanted: str) -> None:
        if not is_good:
            raise AnomalyDetectorError(f"{place!r} is {value!r}, not {wanted}")

    inner = get_args(kind)
    if kind is Any and isinstance(value, list):
        return [_read(Any, item, f"{place}.{index}") for index, item in enumerate(value)]
    if kind is Any and isinstance(value, dict):
        return _read(Mapping[str, Any], value, place)
    if kind is Any:
        check(not isinstance(value, float) or math.isfinite(value), "a finite number")
        return value
    if type(None) in inner:  # T | None
        return None if value is None else _read(inner[0], value, place)
    if get_origin(kind) is Mapping:
        check(isinstance(value, dict), "an object")
        return {key: _read(inner[1], item, f"{place}.{key}") for key, item in value.items()}
    if get_origin(kind) is tuple:
        check(isinstance(value, list), "a list")
        if inner[1] is Ellipsis:
            inner = (inner[0],) * len(value)
        check(len(value) == len(inner), f"a list of {len(inner)} numbers")
        items = zip(inner, value, range(len(inner)), strict=True)
        return tuple(_read(part, item, f"{place}.{index}") for part, item, index in items)
    if isinstance(kind, type) and is_dataclass(kind):
        check(isinstance(value, dict), "an object")
        prefix = f"{place}." if place else ""
        values = {}
        for name, part in _fields_of(kind).items():
            if name not in value:
                raise AnomalyDetectorError(f"{prefix + name!r} is missing")
            values[name] = _read(part, value[name], prefix + name)
        try:
            return kind(**values)
        except AnomalyDetectorError as error:
            raise AnomalyDetectorError(f"{place!r}: {error}") from error
    types = (int, float) if kind is float else (kind,)
    is_right = isinstance(value, types) and isinstance(value, bool) == (kind is bool)
    check(is_right, _IN_WORDS[kind])
    check(kind is not float or math.isfinite(value), "a finite number")
    return kind(value)
