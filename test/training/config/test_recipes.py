"""Recipes and options: types, precedence, errors, and those that are shipped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from anomaly_detector.errors import AnomalyDetectorError
from training.cli.main import main
from training.cli.train import add_options
from training.config.options import TrainOptions, option_types
from training.config.recipe import RECIPES, read_recipe
from training.export.provenance import resolved_recipe
from training.fitting.device import select_device
from training.networks.autoencoders import ARCHITECTURES
from training.networks.backend import import_keras
from training.scorers.options import check_options, resolve_options

INPUTS: dict[str, Any] = {
    "data": ["drive"],
    "out": Path("model.onnx"),
    "scorer": "reconstruction",
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def parse(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return vars(parser.parse_args(arguments))


def test_there_is_a_recipe_for_every_architecture() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(ARCHITECTURES)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe(path: Path, tmp_path: Path) -> None:
    options = resolve_options(INPUTS | {"out": tmp_path / "model.onnx"}, path)
    check_options(options)
    assert (options.architecture, options.scorer) == (path.stem, "reconstruction")
    assert options.learning_rate == 1e-3
    assert options.thesis_folds == (path.stem in {"v3", "v4", "v5"})
    assert options.batch_size == (320 if path.stem == "paper" else 32)
    assert options.epochs == (300 if path.stem == "v1" else 100)
    # What is in the file is what is resolved.
    for key, value in read_recipe(path).items():
        assert resolved_recipe(options)[key] == value


def test_command_line_beats_recipe_beats_default(tmp_path: Path) -> None:
    recipe = write(tmp_path, "epochs: 7\nbatch_size: 8\nlearning_rate: 1e-4\nthesis_folds: true\n")
    given = parse("--data", "a", "b", "--out", "m.onnx", "--epochs", "9", "--no-thesis-folds")
    given["scorer"] = "realnvp"
    options = resolve_options(given, recipe)
    assert options.data == ["a", "b"]
    assert (options.epochs, options.batch_size, options.learning_rate) == (9, 8, 1e-4)
    assert options.thesis_folds is False
    assert options.plateau_patience == TrainOptions(["a"], Path("m.onnx")).plateau_patience


def test_a_threshold_of_the_command_line_replaces_the_recipes_rate(tmp_path: Path) -> None:
    recipe = write(tmp_path, "threshold: 200\nglobal_clipnorm: 10\n")
    options = resolve_options(INPUTS | {"false_alarm_rate": 0.1, "clipnorm": 2.0}, recipe)
    assert options.threshold is None
    assert options.false_alarm_rate == 0.1
    assert options.global_clipnorm is None


def test_all_options_can_be_in_a_recipe(tmp_path: Path) -> None:
    recipe = write(
        tmp_path,
        "data: [a, b]\nout: m.onnx\nanomalies: c\nscorer: mlp\ncache: folder\ntopic: null\n"
        "resume: yes\n",
    )
    options = resolve_options({}, recipe)
    assert tuple(options.data) == ("a", "b")
    assert tuple(options.anomalies) == ("c",)
    assert (options.out, options.cache) == (Path("m.onnx"), Path("folder"))
    assert options.topic is None
    assert options.resume is True
    assert set(parse()) == set()
    assert "progress" not in option_types()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epoch: 3", "option 'epoch' is not known: did you mean 'epochs'?"),
        ("epochs: many", "option 'epochs' is 'many': give a whole number"),
        ("epochs: 1.5", "option 'epochs' is 1.5: give a whole number"),
        ("epochs: true", "option 'epochs' is True: give a whole number"),
        ("epochs: null", "option 'epochs' is None: give a whole number"),
        ("learning_rate: fast", "option 'learning_rate' is 'fast': give a number"),
        ("thesis_folds: 1", "option 'thesis_folds' is 1: give true or false"),
        ("architecture: 5", "option 'architecture' is 5: give a text"),
        ("data: [1]", "option 'data' is 1: give a text"),
        ("- epochs", "is a list: write one 'option: value' a line"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(AnomalyDetectorError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert reason in message
    assert str(path) in message
    assert "\n" not in message


def test_missing_recipe_and_missing_options(tmp_path: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match=r"cannot be read.*paper, v1, v2"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(AnomalyDetectorError, match="'data' is missing: give --data"):
        resolve_options({"out": Path("m.onnx")})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--scorer reconstruction --folds 1", "folds is 1: give 2 or more"),
        ("--scorer reconstruction --dropout 1", "dropout is 1.0: give a share such as 0.1"),
        ("--scorer reconstruction --dropout -0.1", "dropout is -0.1: give a share such as 0.1"),
        ("--scorer reconstruction --l2 -1", "l2 is -1.0: give 0 or more"),
        ("--scorer reconstruction --clipnorm 1 --global-clipnorm 1", "give one of them"),
        ("--scorer reconstruction --plateau-factor 1", "plateau factor is 1.0: give a number"),
        ("--scorer reconstruction --epochs 0", "epochs is 0: give 1 or more"),
        ("--scorer realnvp --learning-rate nan", "learning rate is nan: give 0.001 or so"),
        ("--scorer realnvp --learning-rate inf", "learning rate is inf: give 0.001 or so"),
        ("--scorer mlp-thesis", "give --anomalies RECORDING"),
        ("--epochs 3", "outlier-exposure-pretrained does not use --epochs"),
        ("--held-out 0", "held out is 0.0: give 0.05 to 0.5"),
        ("--false-alarm-rate 2", "false alarm rate is 2.0: give a share such as 0.01"),
        ("--threshold nan", "threshold is nan: give a finite number"),
        ("--seed 4294967296", "seed is 4294967296: give 0 to 4294967295"),
        ("--worker 0", "--worker 0 is for training on several machines"),
        ("--out model.pb", "model.pb does not end with .onnx"),
        ("--recipe none.yaml", "recipe none.yaml cannot be read"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    tmp_path: Path, arguments: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", "missing", "--out", str(tmp_path / "model.onnx")]
    assert main([*command, *arguments.split()]) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_choice_in_a_recipe_is_checked(tmp_path: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match="'much' is not known: choose one of none"):
        resolve_options(INPUTS, write(tmp_path, "augmentation: much"))


def test_gpu_is_refused_where_there_is_none() -> None:
    if import_keras().distribution.list_devices("gpu"):
        pytest.skip("this machine has a GPU")
    select_device("auto")
    select_device("cpu")
    with pytest.raises(AnomalyDetectorError, match="choose --device cpu"):
        select_device("gpu")
