"""Options of training: each is used by the scorer that it is given with, or refused."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from conftest import make_drive, options_for, write_images

from anomaly_detector.errors import AnomalyDetectorError
from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.cli.train import add_options
from training.config.options import TrainOptions, option_types
from training.export.provenance import resolved_recipe
from training.fitting.run import TrainingResult
from training.networks.autoencoders import ARCHITECTURES, NetworkSettings, build_autoencoder
from training.networks.backend import import_keras
from training.scorers.options import (
    check_options,
    resolve_options,
    used_options,
    without_unused,
)
from training.scorers.registry import find_scorer, networks, scorers
from training.train import prepare

OF_EXPOSURE = {"exposure_epochs", "exposure_steps"}
EXCLUSIVE = {
    "outlier-exposure": OF_EXPOSURE,
    "outlier-exposure-pretrained": OF_EXPOSURE,
    "mlp": OF_EXPOSURE,
    "mlp-finetuned": OF_EXPOSURE,
    "mlp-thesis": {"mlp_epochs"},
    "realnvp": {"realnvp_epochs"},
    "realnvp-oe": {"realnvp_epochs"},
}


def parsed(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return vars(parser.parse_args(arguments))


def sample(name: str) -> tuple[list[str], str]:
    """An option with a value: as it is written on a command line, and in a recipe."""
    flag = "--" + name.replace("_", "-")
    kind = option_types()[name].kind
    if kind is bool:
        return [flag], f"{name}: true"
    choices = {
        "device": "cpu",
        "hold_out": "days",
        "initializer": "he_normal",
        "augmentation": "thesis",
    }
    if name == "image_scaling":
        return [flag, "0", "4095"], f"{name}: [0, 4095]"
    value = {int: "3", float: "0.3"}.get(kind, choices.get(name, "x"))
    return [flag, value], f"{name}: {value}"


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *networks()])
@pytest.mark.parametrize("scorer", scorers())
def test_every_option_with_every_scorer_is_used_or_refused(
    scorer: str, architecture: str, tmp_path: Path
) -> None:
    own_network = find_scorer(scorer).architecture
    if architecture != own_network and (own_network or architecture in networks()):
        with pytest.raises(AnomalyDetectorError, match=f"scorer {scorer} .*{architecture}"):
            resolve_options(parsed("--data", "d", "--out", "m.onnx", "--scorer", scorer,
                                   "--architecture", architecture))  # fmt: skip
        return
    base = ["--data", "d", "--out", "m.onnx", "--scorer", scorer, "--architecture", architecture]
    used = used_options(resolve_options(parsed(*base)))
    refused = set()
    for name in option_types():
        if name in ("data", "out", "scorer", "architecture"):
            assert name in used
            continue
        arguments, line = sample(name)
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(line)
        ways: list[tuple[list[str], Path | None]] = [(arguments, None), ([], recipe)]
        for given, file in ways:
            if name in used:
                value = getattr(resolve_options(parsed(*base, *given), file), name)
                assert value != getattr(TrainOptions(["d"], Path("m.onnx")), name)
                continue
            with pytest.raises(AnomalyDetectorError) as caught:
                resolve_options(parsed(*base, *given), file)
            message = str(caught.value)
            assert f"scorer {scorer} " in message
            assert f"does not use {arguments[0]} (for " in message
            assert message.endswith(": leave it out")
            assert "\n" not in message
            # What would use it is named: other scorers, or other networks of this one.
            users = [other for other, its in scorers().items() if name in its.options]
            users = users if scorer not in users else ["v2", "v3"]
            assert f"(for {', '.join(users)})" in message
            refused.add(name)
    own = EXCLUSIVE.get(scorer, set())
    expected = set().union(*EXCLUSIVE.values()) - own
    if scorer == "realnvp" or scorer.startswith("reconstruction"):
        expected.add("anomalies")
    if own_network:
        expected |= find_scorer("reconstruction").options
    elif architecture not in ("v2", "v3"):
        expected |= {"embedding_l1", "embedding_l2"}
    assert refused == expected


def test_defaults_that_are_given_are_refused_too(tmp_path: Path) -> None:
    """Who writes --epochs 100 expects a hundred epochs."""
    with pytest.raises(AnomalyDetectorError, match="does not use --epochs, --learning-rate"):
        resolve_options(
            parsed("--data", "d", "--out", "m.onnx", "--epochs", "100", "--learning-rate", "1e-3")
        )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("plateau_factor: 0.5\nepochs: 7\n")
    command = parsed("--data", "d", "--out", "m.onnx", "--scorer", "realnvp")
    factor = {"plateau_patience": 0, "plateau_factor": 0.1}
    with pytest.raises(AnomalyDetectorError, match="does not use --plateau-factor with --plateau-"):
        resolve_options(command | factor)
    # The command line counts before the recipe.
    assert resolve_options(command | {"plateau_patience": 0}, recipe).epochs == 7


def test_refused_options_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    command = ["train", "--data", str(tmp_path), "--out", str(out), "--epochs", "3"]
    command += ["--learning-rate", "1e-5", "--dropout", "0.9", "--folds", "4", "--mlp-epochs", "9"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert (
        "outlier-exposure-pretrained does not use --epochs, --learning-rate, --dropout, --folds"
        in error
    )
    assert (
        "outlier-exposure-pretrained does not use --mlp-epochs (for mlp-thesis): leave them out"
        in error
    )
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
    # In Python likewise; what is asked for many scorers can be cut down to what one uses.
    options = TrainOptions([str(tmp_path)], out, epochs=3, exposure_epochs=2)
    with pytest.raises(AnomalyDetectorError, match="does not use --epochs"):
        check_options(options)
    check_options(without_unused(options))
    assert without_unused(options) == replace(options, epochs=100)
    with pytest.raises(AnomalyDetectorError, match=r"threshold is 3 and false_alarm_rate 0\.1"):
        check_options(TrainOptions([str(tmp_path)], out, threshold=3.0, false_alarm_rate=0.1))


@pytest.mark.parametrize("scorer", scorers())
def test_recipe_of_a_model_holds_what_was_used(scorer: str, tmp_path: Path) -> None:
    options = TrainOptions(["d"], Path("m.onnx"), scorer=scorer)
    recipe = json.loads(json.dumps(resolved_recipe(options)))
    assert recipe["scorer"] == scorer
    assert set(recipe) < used_options(options)
    assert ("epochs" in recipe) == find_scorer(scorer).needs_autoencoder
    assert ("exposure_steps" in recipe) == (EXCLUSIVE.get(scorer) == OF_EXPOSURE)
    assert ("mlp_epochs" in recipe) == (scorer == "mlp-thesis")
    # One of the two says where the threshold comes from.
    fixed = {"threshold": 0.5} if scorer == "mlp-thesis" else {"false_alarm_rate": 0.01}
    assert {key: recipe[key] for key in ("threshold", "false_alarm_rate") if key in recipe} == fixed
    # It can be given back as it is.
    again = tmp_path / "recipe.yaml"
    again.write_text(yaml.safe_dump(recipe))
    repeated = resolved_recipe(resolve_options(parsed("--data", "d", "--out", "m"), again))
    assert json.loads(json.dumps(repeated)) == recipe
    asked = resolved_recipe(replace(options, false_alarm_rate=0.2))
    assert (asked["false_alarm_rate"], "threshold" in asked) == (0.2, False)


def test_factors_of_the_latent_table_are_for_networks_with_one() -> None:
    settings = NetworkSettings(embedding_l1=0.1, embedding_l2=0.1)
    for architecture in ("v2", "v5"):
        plain = build_autoencoder(architecture).model.losses
        changed = build_autoencoder(architecture, settings).model.losses
        options = TrainOptions(["d"], Path("m"), scorer="mlp", architecture=architecture)
        assert ("embedding_l1" in used_options(options)) == (len(changed) > len(plain))


class Read(TrainOptions):
    """Options that note which of them the modules that train have read."""

    names: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        reader = sys._getframe(1)
        module = reader.f_globals["__name__"]
        trains = module.startswith("training.scorers.") and not module.endswith(".options")
        if trains or reader.f_code.co_name == "patience":
            Read.names.add(name)
        return super().__getattribute__(name)


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A short drive, and another one of the same kind, which nobody can tell from it."""
    folder = tmp_path_factory.mktemp("drives")
    return tuple(write_images(folder / str(i), make_drive(60, seed=i)) for i in range(2))  # type: ignore[return-value]


def train_on(
    drives: tuple[Path, Path], scorer: str, base: TrainingResult | None = None, **options: Any
) -> TrainingResult:
    """Train without exporting; on the given autoencoder, if there is one."""
    from training.scorers.autoencoder import cross_validate, train_autoencoder

    folder = drives[0].parent
    asked: TrainOptions = Read(
        [str(drives[0])],
        folder / f"{scorer}.onnx",
        scorer=scorer,
        anomalies=[str(drives[1])] if "anomalies" in find_scorer(scorer).options else (),
        cache=folder / "cache",
        progress=False,
        **options,
    )
    run = prepare(asked)
    entry = find_scorer(scorer)
    if entry.needs_autoencoder and base is None:
        base = train_autoencoder(run)
        if asked.folds:
            cross_validate(run)
    return entry.train(run, base)


@pytest.fixture(scope="module")
def of_autoencoder(drives: tuple[Path, Path]) -> tuple[TrainingResult, set[str]]:
    """An autoencoder, trained once for all scorers on one, and the options that were read."""
    Read.names.clear()
    return train_on(drives, "reconstruction", epochs=1, folds=2), Read.names.copy()


@pytest.fixture(scope="module")
def autoencoder(of_autoencoder: tuple[TrainingResult, set[str]]) -> TrainingResult:
    return of_autoencoder[0]


@pytest.mark.parametrize(
    "scorer", ["outlier-exposure", "reconstruction", "mlp", "mlp-thesis", "realnvp-oe"]
)
def test_options_that_a_scorer_uses_are_those_that_its_training_reads(
    scorer: str, drives: tuple[Path, Path], of_autoencoder: tuple[TrainingResult, set[str]]
) -> None:
    base, read = of_autoencoder if find_scorer(scorer).needs_autoencoder else (None, set())
    Read.names.clear()
    short: dict[str, Any] = {"mlp_epochs": 1, "realnvp_epochs": 1}
    short |= {"exposure_epochs": 1, "exposure_steps": 1}
    chosen = {name: value for name, value in short.items() if name in find_scorer(scorer).options}
    train_on(drives, scorer, base, **chosen)
    fields = set(option_types())
    of_some = set().union(*(traits.options for traits in scorers().values()))
    # The frames of anomalies are read before.
    assert (read | Read.names) & of_some == set(find_scorer(scorer).options & fields) - {
        "anomalies"
    }


@pytest.mark.parametrize("scorer", ["mlp-thesis", "realnvp", "realnvp-oe"])
def test_early_stopping_patience_is_that_of_every_network(
    scorer: str, drives: tuple[Path, Path], autoencoder: TrainingResult
) -> None:
    """What cannot be learned gets no better, so patience runs out."""
    network = "mlp" if scorer == "mlp-thesis" else "realnvp"
    epochs: dict[str, Any] = {f"{network}_epochs": 40}
    stopped = train_on(drives, scorer, autoencoder, early_stopping_patience=3, **epochs)
    course = stopped.provenance[network]
    assert (course["stopped_by"], course["epochs"]) == ("early-stopping", course["best_epoch"] + 3)
    assert course["epochs"] < 40
    epochs = {f"{network}_epochs": course["epochs"] + 1}
    patient = train_on(drives, scorer, autoencoder, early_stopping_patience=0, **epochs)
    assert patient.provenance[network]["epochs"] == course["epochs"] + 1


@pytest.mark.parametrize(
    ("scorer", "runs"),
    [("mlp-thesis", {"autoencoder", "mlp"}), ("realnvp", {"realnvp"})],
)
def test_tensorboard_logs_every_network(
    scorer: str,
    runs: set[str],
    drives: tuple[Path, Path],
    autoencoder: TrainingResult,
    tmp_path: Path,
) -> None:
    import_keras()
    import tensorflow

    (network,) = runs - {"autoencoder"}
    epochs: dict[str, Any] = {"epochs": 1, f"{network}_epochs": 3}
    base = None if "autoencoder" in runs else autoencoder
    trained = train_on(drives, scorer, base, tensorboard=tmp_path, **epochs)
    assert {folder.name for folder in tmp_path.iterdir()} == runs
    (file,) = (tmp_path / network).iterdir()
    found: dict[str, list[float]] = {}
    for record in tensorflow.data.TFRecordDataset(str(file)):
        event = tensorflow.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(float(tensorflow.make_ndarray(value.tensor)))
    assert set(found) == {"loss", "val_loss", "learning_rate"}
    np.testing.assert_allclose(found["val_loss"], trained.histories[network]["val_loss"], rtol=1e-6)


def test_false_alarm_rate_takes_the_place_of_the_fixed_threshold(
    drives: tuple[Path, Path], autoencoder: TrainingResult, tmp_path: Path
) -> None:
    from training.train import export_trained

    options = options_for(
        drives[0], tmp_path / "mlp.onnx",
        scorer="mlp-thesis", anomalies=[str(drives[1])], mlp_epochs=2, false_alarm_rate=0.25,
    )  # fmt: skip
    run = prepare(options)
    metadata = export_trained(run, find_scorer("mlp-thesis").train(run, autoencoder))
    assert metadata.calibration.method == "split-conformal"
    assert metadata.threshold != 0.5
    assert Detector(options.out).metadata.provenance["recipe"]["false_alarm_rate"] == 0.25
    assert "exposure_epochs" not in metadata.provenance["recipe"]
