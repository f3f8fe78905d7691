"""Recipes: the options of a training in a YAML file, one ``option: value`` a line.

Those in ``training/config/recipes`` repeat the trainings of the thesis and of the paper.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from training.config.options import OptionType, option_types

RECIPES = Path(__file__).parent / "recipes"
"""Where the recipes lie that come with the package."""

_KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false"}


def read_recipe(path: Path) -> dict[str, Any]:
    """Read and check a recipe file.

    Args:
        path: the file; paths in it are relative to the working directory, as on the command line.

    Returns:
        The options it gives, by the names of :class:`training.config.options.TrainOptions`' fields.

    Raises:
        AnomalyDetectorError: no such file, no YAML mapping, an unknown key or a wrong type.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise AnomalyDetectorError(
            f"recipe {path} cannot be read ({getattr(error, 'strerror', None) or error}): "
            f"name a YAML file; {RECIPES} has {known}"
        ) from error
    except yaml.YAMLError as error:
        reason = as_one_line(error)
        raise AnomalyDetectorError(f"recipe {path} is not YAML: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise AnomalyDetectorError(
            f"recipe {path} is a {type(content).__name__}: write one 'option: value' a line"
        )
    return {str(key): _value(path, str(key), value) for key, value in content.items()}


def _value(path: Path, key: str, value: Any) -> Any:
    """Check the type of a value; return it as the option wants it."""
    types = option_types()
    if key not in types:
        near = difflib.get_close_matches(key, types, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(types)}"
        raise AnomalyDetectorError(f"recipe {path}: option {key!r} is not known: {hint}")
    wanted = types[key]
    if value is None and wanted.optional:
        return None
    if wanted.is_list:
        values = value if isinstance(value, list) else [value]
        return tuple(_scalar(path, key, item, wanted) for item in values)
    return _scalar(path, key, value, wanted)


def _scalar(path: Path, key: str, value: Any, wanted: OptionType) -> Any:
    kind = wanted.kind
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float:
        # YAML 1.1 takes 1e-3, without a point, for a text.
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise AnomalyDetectorError(
        f"recipe {path}: option {key!r} is {value!r}: give {_KIND_NAMES.get(kind, 'a text')}"
    )
