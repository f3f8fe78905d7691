"""Recipes: the options of a training run in a YAML file.

A recipe is a mapping from option to value, for example ``architecture: v4``. What the command line
gives goes before the recipe, and the recipe before the defaults. The recipes in
``training/recipes`` repeat the trainings of the thesis and of the paper.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from anomaly_detector.errors import AnomalyDetectorError, as_one_line
from training.config.options import OptionType, TrainOptions, check_given, option_types

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


def resolve_options(arguments: Mapping[str, Any], recipe: Path | None = None) -> TrainOptions:
    """Join the command line, a recipe and the defaults, in this order of precedence.

    Args:
        arguments: the options given on the command line, by field name.
        recipe: the recipe file.

    Raises:
        AnomalyDetectorError: the recipe is at fault, neither gives what is required, or one gives
            an option that the scorer does not use.
    """
    given = dict(read_recipe(recipe)) if recipe is not None else {}
    # Of two options that exclude each other the command line's counts.
    for one, other in (
        ("threshold", "false_alarm_rate"),
        ("false_alarm_rate", "threshold"),
        ("clipnorm", "global_clipnorm"),
        ("global_clipnorm", "clipnorm"),
    ):
        # A limit of 0 is none, and leaves the other one in force.
        if arguments.get(one) or (one == "threshold" and one in arguments):
            given.pop(other, None)
    if arguments.get("plateau_patience") == 0:
        # The rate never falls.
        for name in ("plateau_factor", "min_learning_rate"):
            given.pop(name, None)
    given |= arguments
    for item in fields(TrainOptions):
        if item.default is MISSING and item.name not in given:
            raise AnomalyDetectorError(
                f"option {item.name!r} is missing: give --{item.name} or put it into a recipe"
            )
    options = TrainOptions(**given)
    check_given(options, given)
    return options
