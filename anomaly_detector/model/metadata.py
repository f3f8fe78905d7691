"""What a model file says about itself: the JSON entry in the ONNX metadata.

A score without a scale is useless, and a model fed with frames that were shrunk in another way is
wrong without a sign of it. So all that is needed to use a model right travels inside its file,
under the key :data:`METADATA_KEY`, and is checked when the file is loaded.
``docs/model-format.md`` describes every field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any, TypeVar

from anomaly_detector.errors import AnomalyDetectorError, ModelError
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.images.image import RegionOfInterest
from anomaly_detector.images.preprocessing import (
    COMPATIBLE_RESIZE_METHODS,
    INPUT_SIZE,
    RESIZE_METHOD,
    View,
)
from anomaly_detector.model.fingerprint import Fingerprint
from anomaly_detector.model.map_scale import MapScale
from anomaly_detector.model.older_models import completed

FORMAT_VERSION = 2
METADATA_KEY = "anomaly_detector"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Calibration:
    """Where a threshold comes from.

    Attributes:
        method: ``split-conformal``, or ``fixed`` for a threshold that was given.
        false_alarm_rate: wanted share of normal frames at or above the threshold; None when fixed.
        frames: number of held-out normal frames the threshold was computed from; 0 when fixed.
        quantiles: score quantiles of held-out normal frames, probability (as text, ``"0.5"``) to
            score; the normalised score takes its scale from them.
        effective_frames: number of independent frames that tell as much as those consecutive
            ones; None when fixed.
        false_alarm_interval: 95 % interval of the true false-alarm rate; None when fixed.
    """

    method: str
    false_alarm_rate: float | None = None
    frames: int = 0
    quantiles: Mapping[str, float] = field(default_factory=dict)
    effective_frames: int | None = None
    false_alarm_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """The contents of the metadata entry.

    Attributes:
        name: short name of the model.
        architecture: network, for example ``v5``.
        scorer: name of what makes the score; for people, nothing depends on it.
        score_units: the unit of the raw score, in words.
        score_maximum: the largest possible score; None where it has no upper end.
        map_scale: which values of the anomaly map are shown as heat, at the model's own threshold.
        threshold: a frame is anomalous when its score is at or above this value.
        calibration: where the threshold comes from.
        input_size: height and width of the input image, pixels.
        color_order: always ``rgb``.
        resize_method: name and version of the shrink the model was trained with.
        region_of_interest: x, y, width and height of the part of the camera's frame that the model
            was trained on, pixels; a width or height of 0 reaches to the edge.
        image_scaling: the values that become black and white in pictures of more than 8 bits; None
            where the encoding says it.
        training_recordings: what the recordings are known by that the model was trained on; empty
            for older models.
        provenance: data, seed, options and versions that made the model.
        metrics: figures from training, for example ``validation_mse``.
        format_version: of this JSON entry.
    """

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
    score_maximum: float | None = None
    map_scale: MapScale = MapScale(0.0, None)  # noqa: RUF009
    training_recordings: tuple[Fingerprint, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def view(self) -> View:
        """What the model sees of a frame."""
        scaling = None if self.image_scaling is None else ImageScaling(*self.image_scaling)
        return View(RegionOfInterest(*self.region_of_interest), scaling)

    def with_view(self, view: View) -> ModelMetadata:
        """Return the metadata of a model that sees frames so."""
        scaling = None if view.scaling is None else astuple(view.scaling)
        return replace(self, region_of_interest=astuple(view.region), image_scaling=scaling)

    def with_threshold(self, threshold: float, calibration: Calibration) -> ModelMetadata:
        """Return the metadata of the model with another threshold."""
        scale = self.map_scale.at(threshold, self.threshold)
        return replace(self, threshold=threshold, calibration=calibration, map_scale=scale)

    def view_warning(self, view: View) -> str | None:
        """Return what is to be said of a view that is not the model's; None for its own."""
        own = self.view
        parts = []
        if view.region != own.region:
            parts.append(f"region of interest {view.region}, not its own {own.region}")
        if view.scaling != own.scaling:
            parts.append(f"image scaling {view.scaling}, not its own {own.scaling or 'none'}")
        if not parts:
            return None
        return (
            f"model {self.name} is given {' and '.join(parts)}: calibrate it with the same, or "
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
                f"model {source}: metadata entry {METADATA_KEY!r} is not JSON ({error}): "
                "export the model again with 'python -m training train'"
            ) from error
        if not isinstance(raw, dict):
            raise ModelError(
                f"model {source}: metadata entry {METADATA_KEY!r} is a {type(raw).__name__}, "
                "not an object: export the model again with 'python -m training train'"
            )
        reader = _FieldReader(raw, source)
        version = reader.integer("format_version")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"model {source}: format version {version}, this package reads {FORMAT_VERSION}: "
                "export the model with the version of anomaly_detector that runs it"
            )
        calibration = _FieldReader(reader.mapping("calibration"), source, "calibration.")
        quantiles = _FieldReader(calibration.mapping("quantiles"), source, "calibration.quantiles.")
        metadata = cls(
            name=reader.text("name"),
            architecture=reader.text("architecture"),
            scorer=reader.text("scorer"),
            score_units=reader.text("score_units"),
            threshold=reader.number("threshold"),
            calibration=Calibration(
                method=calibration.text("method"),
                false_alarm_rate=calibration.optional("false_alarm_rate", calibration.number),
                frames=calibration.integer("frames"),
                quantiles={key: quantiles.number(key) for key in quantiles.raw},
                effective_frames=calibration.optional("effective_frames", calibration.integer),
                false_alarm_interval=calibration.optional(
                    "false_alarm_interval", calibration.interval
                ),
            ),
            input_size=reader.integer("input_size"),
            color_order=reader.text("color_order"),
            resize_method=reader.text("resize_method"),
            # Models from before regions look at the whole frame.
            region_of_interest=reader.region("region_of_interest")
            if "region_of_interest" in raw
            else (0, 0, 0, 0),
            image_scaling=reader.optional("image_scaling", reader.scaling)
            if "image_scaling" in raw
            else None,
            training_recordings=reader.fingerprints("training_recordings")
            if "training_recordings" in raw
            else (),
            provenance=reader.mapping("provenance"),
            metrics=reader.mapping("metrics"),
            format_version=version,
        )
        for name, got, wanted, accepted in (
            ("input_size", metadata.input_size, INPUT_SIZE, {INPUT_SIZE}),
            ("color_order", metadata.color_order, "rgb", {"rgb"}),
            ("resize_method", metadata.resize_method, RESIZE_METHOD, COMPATIBLE_RESIZE_METHODS),
        ):
            if got not in accepted:
                raise ModelError(
                    f"model {source}: {name} is {got!r}, this package prepares frames with "
                    f"{wanted!r}: train the model again with this version"
                )
        if "map_scale" not in raw:
            return completed(metadata)
        maximum = reader.optional("score_maximum", reader.number)
        return replace(metadata, score_maximum=maximum, map_scale=reader.map_scale("map_scale"))


@dataclass(frozen=True)
class _FieldReader:
    """Typed access to a JSON object, with errors that name the model and the field."""

    raw: Mapping[str, Any]
    source: str
    prefix: str = ""

    def _get(self, key: str, kind: str, types: tuple[type, ...]) -> Any:
        if key not in self.raw:
            raise ModelError(
                f"model {self.source}: metadata field {self.prefix + key!r} is missing: "
                "export the model again with 'python -m training train'"
            )
        value = self.raw[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ModelError(
                f"model {self.source}: metadata field {self.prefix + key!r} is {value!r}, "
                f"not {kind}: export the model again with 'python -m training train'"
            )
        return value

    def text(self, key: str) -> str:
        return str(self._get(key, "a text", (str,)))

    def integer(self, key: str) -> int:
        return int(self._get(key, "an integer", (int,)))

    def number(self, key: str) -> float:
        value = float(self._get(key, "a number", (int, float)))
        if not math.isfinite(value):
            raise ModelError(
                f"model {self.source}: metadata field {self.prefix + key!r} is {value}, "
                "not a finite number: export the model again with 'python -m training train'"
            )
        return value

    def interval(self, key: str) -> tuple[float, float]:
        value = self._get(key, "a list of two numbers", (list,))
        ends = _FieldReader({str(i): end for i, end in enumerate(value)}, self.source, f"{key}.")
        if len(value) != 2:
            raise ModelError(
                f"model {self.source}: metadata field {self.prefix + key!r} is {value!r}, "
                "not a list of two numbers: export the model again with 'python -m training train'"
            )
        return ends.number("0"), ends.number("1")

    def scaling(self, key: str) -> tuple[float, float]:
        minimum, maximum = self.interval(key)
        try:
            ImageScaling(minimum, maximum)
        except AnomalyDetectorError as error:
            raise ModelError(
                f"model {self.source}: metadata field {self.prefix + key!r}: {error}"
            ) from error
        return minimum, maximum

    def region(self, key: str) -> tuple[int, int, int, int]:
        value = self._get(key, "a list of four integers", (list,))
        try:
            x, y, width, height = value
            region = RegionOfInterest(x, y, width, height)
        except (AnomalyDetectorError, TypeError, ValueError) as error:
            raise ModelError(
                f"model {self.source}: metadata field {self.prefix + key!r} is {value!r}, not x, "
                "y, width and height: export the model again with 'python -m training train'"
            ) from error
        return region.x, region.y, region.width, region.height

    def map_scale(self, key: str) -> MapScale:
        scale = _FieldReader(self.mapping(key), self.source, f"{key}.")
        try:
            return MapScale(
                scale.number("low"),
                scale.optional("high", scale.number),
                scale.integer("window"),
                bool(scale._get("follows_threshold", "true or false", (bool,))),
            )
        except ModelError:
            raise
        except AnomalyDetectorError as error:
            raise ModelError(
                f"model {self.source}: metadata field {self.prefix + key!r}: {error}"
            ) from error

    def fingerprints(self, key: str) -> tuple[Fingerprint, ...]:
        items = self._get(key, "a list", (list,))
        found = []
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                raise ModelError(
                    f"model {self.source}: metadata field {self.prefix + key!r} has {item!r}, not "
                    "an object: export the model again with 'python -m training train'"
                )
            reader = _FieldReader(item, self.source, f"{key}.{index}.")
            found.append(
                Fingerprint(reader.text("name"), reader.integer("frames"), reader.text("hashes"))
            )
        return tuple(found)

    def optional(self, key: str, read: Callable[[str], _T]) -> _T | None:
        """Read a field that may be null, but not missing."""
        return None if key in self.raw and self.raw[key] is None else read(key)

    def mapping(self, key: str) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self._get(key, "an object", (dict,))
        return value
