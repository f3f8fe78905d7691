"""Stress faults look and measure as they say, and the stress test counts them right."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_drive, write_images
from matplotlib.patches import Rectangle
from model_files import grey_difference_score, write_grey_difference_model
from numpy.typing import NDArray
from test_layout import ARROWS

from anomaly_detector.errors import AnomalyDetectorError, SourceError
from anomaly_detector.images.image import Image
from anomaly_detector.images.preprocessing import WHOLE_FRAME, preprocess
from anomaly_detector.model.detector import Detector
from anomaly_detector.recordings import Frame, ImageFolderSource
from training.cli.stress import add_arguments, run
from training.evaluation.faults import FAULT_SETS, FAULTS, Fault, FrozenFrame, choose_faults
from training.evaluation.stress import (
    Exclusion,
    StressResult,
    fault_generator,
    inject,
    numbered_frames,
    run_stress,
)
from training.reports.stress import stress_figure

SMALL, LARGE = (90, 120), (360, 480)
CHANGING = [fault for fault in FAULTS.values() if not isinstance(fault, FrozenFrame)]
PLACED = [
    "object_6", "object_10", "object_16", "object_24", "thin_lines", "cable_loop", "lens_dirt",
    "lens_drops", "cover_hand", "cover_cloth", "cover_tape", "lost_blocks", "flat_box_6",
    "flat_box_10", "flat_box_16", "flat_box_24", "plain_dirt",
]  # fmt: skip


def _scene(size: tuple[int, int] = SMALL) -> NDArray[np.uint8]:
    """Return a scene with edges, fine texture, light and dark: a road with posts, RGB."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    y, x = rows / height, columns / width
    light = 70 + 60 * y + 25 * np.sin(x * 40) * np.sin(y * 30)
    light[np.abs(x - 0.5) < 0.03 + 0.2 * y] = 150
    light[(y < 0.45) & ((x * 8) % 1 < 0.2)] = 210
    scene = np.stack([light, light * 0.9, light * 0.75 + 10], -1)
    return np.asarray(np.clip(scene, 0, 255), np.uint8)


def _frame(image: NDArray[np.uint8]) -> Frame:
    return Frame("scene", None, Image(image, "rgb"))


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return preprocess(Image(image, "rgb"))


def _apply(name: str, image: NDArray[np.uint8], number: int = 0) -> NDArray[np.uint8]:
    fault = FAULTS[name]
    given = _small(image) if fault.stage == "input" else image
    return fault.apply(given, fault_generator(0, fault, number))[0]


def _detail(image: NDArray[np.uint8]) -> float:
    """Return the mean difference of neighbouring pixels."""
    values = image.astype(float)
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean())


@pytest.mark.parametrize("size", [SMALL, LARGE, (64, 64), (33, 200)])
@pytest.mark.parametrize("fault", CHANGING, ids=lambda fault: fault.name)
def test_every_fault_changes_a_frame_of_any_size(fault: Fault, size: tuple[int, int]) -> None:
    image = _scene(size)
    if fault.stage == "input":
        image = _small(image)
    before = image.copy()
    result, mask = fault.apply(image, np.random.default_rng(1))
    np.testing.assert_array_equal(image, before)
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert (result != image).any()
    assert (mask is not None) == (fault.name in PLACED)
    if mask is not None:
        assert mask.shape == image.shape[:2]
        assert mask.dtype == np.bool_
        assert 0 < mask.mean() < 0.9


@pytest.mark.parametrize("fault", CHANGING, ids=lambda fault: fault.name)
def test_faults_follow_their_seed_alone(fault: Fault) -> None:
    frame = _frame(_scene())
    first, mask = inject(fault, frame, fault_generator(3, fault, 7))
    again, mask_again = inject(fault, frame, fault_generator(3, fault, 7))
    np.testing.assert_array_equal(first, again)
    if mask is not None and mask_again is not None:
        np.testing.assert_array_equal(mask, mask_again)
    draws = {fault_generator(s, fault, n).random() for s in (3, 4) for n in (7, 8)}
    other = next(item for item in FAULTS.values() if item.name != fault.name)
    assert len(draws | {fault_generator(3, other, 7).random()}) == 5


@pytest.mark.parametrize("name", PLACED)
def test_what_lies_far_from_the_mask_is_unchanged(name: str) -> None:
    fault = FAULTS[name]
    for number in range(4):
        image = _scene(LARGE)
        if fault.stage == "input":
            image = _small(image)
        result, mask = fault.apply(image, fault_generator(0, fault, number))
        assert mask is not None
        changed = np.abs(result.astype(int) - image).max(axis=2)
        # Soft edges and shadows reach a few units past the mask, with little weight.
        side = 2 * round(6 * image.shape[1] / 64) + 1
        near = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
        assert changed[~near].max(initial=0) <= 8
        assert np.mean(changed[mask] > 0) > 0.6


@pytest.mark.parametrize("size", [SMALL, LARGE, (720, 1280)])
@pytest.mark.parametrize("side", [6, 10, 16, 24])
def test_objects_have_their_size_at_64(side: int, size: tuple[int, int]) -> None:
    frame = _frame(_scene(size))
    for name in (f"object_{side}", f"flat_box_{side}"):
        for number in range(8):
            fault = FAULTS[name]
            _, mask = inject(fault, frame, fault_generator(0, fault, number))
            assert mask is not None
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert abs(high - side) <= 1
            assert abs(wide - side) <= 1
            assert rows.max() >= 36


def test_flat_box_is_one_colour_in_the_lower_half() -> None:
    image = _small(_scene())
    fault = FAULTS["flat_box_10"]
    colors = set()
    for number in range(10):
        result, mask = fault.apply(image, fault_generator(0, fault, number))
        assert mask is not None
        assert not mask[:32].any()
        assert mask.sum() == 100
        assert len(np.unique(result[mask], axis=0)) == 1
        np.testing.assert_array_equal(result[~mask], image[~mask])
        colors.add(tuple(result[mask][0].tolist()))
    assert len(colors) == 10


def test_lines_are_thin() -> None:
    frame = _frame(_scene(LARGE))
    for number in range(5):
        fault = FAULTS["thin_lines"]
        _, mask = inject(fault, frame, fault_generator(0, fault, number))
        assert mask is not None
        # Two or three lines of at most 55 units, each at most two pixels thick.
        assert 20 < mask.sum() < 3 * 60 * 2


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_blurs_take_detail_away_in_order(size: tuple[int, int]) -> None:
    image = _scene(size)
    clean = _detail(_small(image))
    for family in (
        ("blur_1", "blur_2", "blur_4"),
        ("defocus_2.5", "defocus_5"),
        ("motion_blur_8", "motion_blur_16"),
    ):
        details = [_detail(_small(_apply(name, image))) for name in family]
        assert clean > details[0]
        assert details == sorted(details, reverse=True)


@pytest.mark.parametrize("name", ["blur_2", "defocus_2.5"])
def test_a_blur_is_as_wide_on_a_small_frame_as_on_a_large_one(name: str) -> None:
    small, large = np.zeros((96, 96, 3), np.uint8), np.zeros((768, 768, 3), np.uint8)
    small[:, 48:], large[:, 384:] = 200, 200
    edges = [_small(_apply(name, image)).astype(int) for image in (small, large)]
    assert np.abs(edges[0] - edges[1]).max() <= 8


def test_gaussian_blur_has_its_sigma_at_64() -> None:
    step = np.zeros((512, 512, 3), np.uint8)
    step[:, 256:] = 200
    slope = np.diff(_small(_apply("blur_2", step))[32, :, 0].astype(float)) / 200
    places = np.arange(slope.size)
    middle = (slope * places).sum()
    assert math.sqrt((slope * (places - middle) ** 2).sum()) == pytest.approx(2.0, abs=0.2)


def test_exposure_faults_change_brightness_as_they_say() -> None:
    image = _scene()
    mean = image.mean()
    assert _apply("dark", image).mean() == pytest.approx(0.3 * mean, rel=0.05)
    assert _apply("plain_dark", image).mean() == pytest.approx(0.3 * mean, rel=0.02)
    assert _apply("black", image).mean() < 7
    assert _apply("plain_black", image).max() == 0
    expected = np.minimum(image.astype(float) * 1.8, 255).mean()
    assert _apply("bright", image).mean() == pytest.approx(expected, rel=0.01)
    assert _apply("plain_bright", image).mean() == pytest.approx(expected, rel=0.02)
    assert np.mean(_apply("overexposed", image) >= 250) > 0.5
    for number in range(5):
        covered = _small(_apply("cover_all", image, number))
        assert covered.mean() < 80
        assert covered.std() > 0.5


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("name", ["noise_20", "plain_noise"])
def test_noise_has_its_deviation_at_64(name: str, size: tuple[int, int]) -> None:
    grey = np.full((*size, 3), 128, np.uint8)
    result = _apply(name, grey)
    assert _small(result).astype(float).std() == pytest.approx(20, abs=1.5)


def test_salt_and_pepper_covers_its_share() -> None:
    result = _apply("salt_pepper", np.full((*LARGE, 3), 128, np.uint8))
    for value in (0, 255):
        assert np.mean((result == value).all(axis=2)) == pytest.approx(0.025, abs=0.01)


def test_colour_cast_shifts_colours() -> None:
    grey = np.full((*SMALL, 3), 120, np.uint8)
    tints = {tuple(_apply("color_cast", grey, number)[0, 0].tolist()) for number in range(8)}
    assert len(tints) > 4
    assert all(max(tint) - min(tint) > 30 for tint in tints)


@pytest.mark.parametrize("name", ["tilt_5", "tilt_10", "tilt_20", "plain_turn"])
def test_tilt_turns_a_line_by_its_angle(name: str) -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[126:130] = 255
    degrees = FAULTS[name].parameters()["degrees"]
    signs = set()
    for number in range(6):
        result = _apply(name, image, number)
        middle = len(result) // 2
        inner = slice(middle // 2, middle + middle // 2)
        rows, columns = np.nonzero(result[:, inner, 0] > 100)
        slope = np.polyfit(columns, rows, 1)[0]
        assert abs(math.degrees(math.atan(slope))) == pytest.approx(degrees, abs=1.2)
        signs.add(slope > 0)
    assert signs == {True, False}


def test_torn_and_shifted_rows_keep_the_rows_contents() -> None:
    image = _scene()
    torn, shifted = _apply("torn_frame", image), _apply("shifted_rows", image)
    changed = (torn != image).any(axis=(1, 2))
    first = int(np.argmax(changed))
    assert 14 * 90 / 64 - 1 <= first <= 46 * 90 / 64 + 1
    np.testing.assert_array_equal(torn[:first], image[:first])
    # A shifted row holds the same pixels in another place.
    np.testing.assert_array_equal(np.sort(shifted, axis=1), np.sort(image, axis=1))
    assert (shifted != image).any(axis=(1, 2)).mean() > 0.5


def test_jpeg_ruin_is_worse_than_a_normal_jpeg_would_be() -> None:
    for size in (SMALL, LARGE):
        image = _scene(size)
        difference = np.abs(_small(_apply("jpeg_ruin", image)).astype(int) - _small(image))
        assert 3 < difference.mean() < 40


def test_frozen_frame_is_a_fault_of_the_sequence() -> None:
    fault = FAULTS["frozen"]
    assert isinstance(fault, FrozenFrame)
    assert not fault.per_frame
    assert [fault.shown(number) for number in (0, 39, 40, 79, 85)] == [0, 0, 40, 40, 80]
    assert all(other.per_frame for other in CHANGING)


def test_sets_names_and_descriptions() -> None:
    names = [fault.name for faults in FAULT_SETS.values() for fault in faults]
    assert len(set(names)) == len(names) == len(FAULTS)
    assert len(FAULT_SETS["reference"]) == 11
    for fault in FAULTS.values():
        assert fault.description.endswith(".")
        assert "name" not in fault.parameters()
    assert [fault.name for fault in choose_faults(["black", "blur_2"])] == ["black", "blur_2"]
    with pytest.raises(AnomalyDetectorError, match="fault 'fog' is unknown: choose from flat_box"):
        choose_faults(["black", "fog"])
    with pytest.raises(AnomalyDetectorError, match="every name once"):
        choose_faults(["black", "black"])


def test_faults_are_independent_of_all_other_drawing_code() -> None:
    faults = {name for name in ARROWS if name.startswith("training.evaluation.faults")}
    assert len(faults) >= 8
    assert set().union(*(ARROWS[name] for name in faults)) <= faults | {"anomaly_detector.errors"}
    # They measure, none trains on them; above all nothing that makes outliers for training.
    assert {name for name, imported in ARROWS.items() if imported & faults} - faults == {
        "training.cli.compare",
        "training.cli.compare_models",
        "training.cli.stress",
        "training.evaluation.compare",
        "training.evaluation.stress",
        "training.evaluation.precision",
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_grey_difference_model(tmp_path / "grey.onnx", threshold=4000.0)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return write_images(tmp_path / "drive", make_drive(24))


def _run(*options: str | int | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(option) for option in options]))


def test_figures_by_hand(model: Path, drive: Path) -> None:
    source = ImageFolderSource(drive)
    faults = choose_faults(["plain_black", "flat_box_24", "object_16", "plain_dark", "frozen"])
    result = run_stress(
        Detector(model), numbered_frames(source, WHOLE_FRAME), faults, bootstrap=20, progress=False
    )
    clean = np.array([grey_difference_score(preprocess(frame.pixels)) for frame in source])
    np.testing.assert_allclose(result.clean_scores, clean, rtol=1e-5)
    assert result.frames == 24
    black = result.of("plain_black")
    assert black.median_score == pytest.approx(128.0**2)
    assert (black.roc_auc.value, black.recall, black.raised) == (1.0, 1.0, 1.0)
    assert math.isnan(black.pointing)
    assert 0.5 < black.median_normalized_score < 1
    assert result.false_alarms == np.mean(clean >= 4000)

    # The same frame by frame, without the runner.
    fault = FAULTS["flat_box_24"]
    scores, hits = [], []
    for number, frame in numbered_frames(source, WHOLE_FRAME):
        image, mask = inject(fault, frame, fault_generator(0, fault, number))
        assert mask is not None
        scores.append(grey_difference_score(image))
        row, column = divmod(int(np.argmax(((image.astype(float) - 128) ** 2).mean(2))), 64)
        around = mask[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        hits.append(around.any())
    box = result.of("flat_box_24")
    pairs = np.array(scores)[:, np.newaxis] - clean
    assert box.roc_auc.value == pytest.approx(np.mean(pairs > 0) + np.mean(pairs == 0) / 2)
    assert box.recall == np.mean(np.array(scores) >= 4000)
    assert box.raised == np.mean(np.array(scores) > clean)
    assert box.pointing == np.mean(hits)
    assert 0 < box.pointing < 1

    # Frozen: every score is that of frame 0, and it counts for nothing.
    frozen = result.of("frozen")
    assert frozen.median_score == pytest.approx(clean[0], rel=1e-5)
    assert not frozen.counted
    areas = [item.roc_auc.value for item in result.faults[:-1]]
    assert result.mean_roc_auc.value == pytest.approx(np.mean(areas))
    assert result.mean_recall == pytest.approx(np.mean([f.recall for f in result.faults[:-1]]))
    # Two of the four in every frame.
    assert (result.recall.low, result.recall.high) == (0.5, 0.5)
    worst = result.worst
    assert worst is not None
    assert worst.roc_auc.value == min(areas)


def test_figures_depend_neither_on_the_other_faults_nor_on_the_other_frames(
    model: Path, drive: Path
) -> None:
    detector, source = Detector(model), ImageFolderSource(drive)
    chosen = choose_faults(["lens_dirt", "object_10", "noise_20"])

    def stress(faults: Sequence[Fault], seed: int, *exclude: Exclusion) -> StressResult:
        frames = numbered_frames(source, WHOLE_FRAME, exclude)
        return run_stress(detector, frames, faults, seed, bootstrap=0, progress=False)

    many, alone = stress(chosen, 5), stress(chosen[1:2], 5)
    assert many.of("object_10").to_dict() == alone.of("object_10").to_dict()
    other = stress(chosen[1:2], 6)
    assert other.of("object_10").median_score != alone.of("object_10").median_score

    # A frame gets the same fault when frames before it are left out.
    last = stress(chosen[:1], 5, (0, 22))
    fault = chosen[0]
    *_, (number, frame) = numbered_frames(source, WHOLE_FRAME)
    image, _ = inject(fault, frame, fault_generator(5, fault, number))
    assert (number, last.frames) == (23, 1)
    assert last.of("lens_dirt").median_score == pytest.approx(
        grey_difference_score(image), rel=1e-5
    )


def test_pointing_finds_a_glaring_object(model: Path) -> None:
    grey = np.full((*SMALL, 3), 128, np.uint8)
    frames = [(number, _frame(grey)) for number in range(12)]
    fault = replace(FAULTS["flat_box_10"], name="flat_box_10")
    result = run_stress(Detector(model), frames, [fault], bootstrap=0, progress=False)
    assert result.of("flat_box_10").pointing == 1.0
    assert result.of("flat_box_10").raised == 1.0
    assert result.mean_pointing == 1.0
    with pytest.raises(KeyError):
        result.of("black")


def test_figure_draws_the_recall_beside_the_roc_auc(model: Path, drive: Path) -> None:
    """Faults that rank alike, of which the threshold flags some and misses others."""
    source = ImageFolderSource(drive)
    frames = list(numbered_frames(source, WHOLE_FRAME))
    faults = choose_faults(["black", "object_16", "frozen"])
    result = run_stress(Detector(model), frames, faults, bootstrap=0, progress=False)
    ranking, flagged = stress_figure(result).axes
    areas = [float(np.asarray(line.get_xdata())[0]) for line in ranking.lines[:3]]
    assert areas == [item.roc_auc.value for item in result.faults]
    recalls = [item.recall for item in result.faults]
    bars = [bar.get_width() for bar in flagged.patches if isinstance(bar, Rectangle)]
    assert bars == [100 * recall for recall in recalls]
    assert recalls[0] == 1.0
    assert recalls[1] < 1.0
    assert flagged.get_xlabel().startswith("Recall at the threshold")
    assert [text.get_text() for text in flagged.texts] == [f"{100 * r:.0f}" for r in recalls]


def test_excluded_frames_are_left_out(drive: Path) -> None:
    source = ImageFolderSource(drive)
    numbers = [number for number, _ in numbered_frames(source, WHOLE_FRAME, [(3, 5), (20, 99)])]
    assert numbers == [0, 1, 2, *range(6, 20)]
    (drive / "frame_2.png").write_bytes(b"not an image")
    numbers = [
        number for number, _ in numbered_frames(ImageFolderSource(drive), WHOLE_FRAME, [(4, 4)])
    ]
    assert numbers == [0, 1, 3, *range(5, 24)]
    with pytest.raises(SourceError, match="has frames 0 to 23"):
        list(numbered_frames(source, WHOLE_FRAME, [(24, 30)]))


def test_command_line_end_to_end(
    model: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = _run(
        "--model", model, "--normal", drive, "--exclude", "3-5", "--bootstrap", 20,
        "--seed", 1, "--out", out,
    )  # fmt: skip
    assert code == 0
    printed = capsys.readouterr().out
    assert re.search(r"^overexposed +[01]\.\d{3} \[", printed, re.MULTILINE)
    assert re.search(r"^frozen .* not counted$", printed, re.MULTILINE)
    assert re.search(r"^mean +0\.\d{3}", printed, re.MULTILINE)

    assert sorted(file.name for file in out.iterdir()) == ["report.html", "stress.json"]
    result = json.loads((out / "stress.json").read_text())
    full = FAULT_SETS["full"]
    assert result["frames"] == 21
    assert [item["fault"] for item in result["faults"]] == [fault.name for fault in full]
    by_name = {item["fault"]: item for item in result["faults"]}
    assert by_name["blur_2"]["parameters"] == {"sigma": 2.0}
    assert by_name["blur_2"]["pointing"] is None
    assert 0 <= by_name["object_16"]["pointing"] <= 1
    assert not by_name["frozen"]["counted"]
    areas = [item["roc_auc"]["value"] for item in result["faults"] if item["counted"]]
    summary = result["summary"]
    assert summary["faults_counted"] == len(full) - 1 == len(areas)
    assert summary["mean_roc_auc"]["value"] == pytest.approx(np.mean(areas))
    assert summary["minimum_roc_auc"] == min(areas)
    low, high = by_name["cover_tape"]["roc_auc"]["interval_95"]
    assert low <= by_name["cover_tape"]["roc_auc"]["value"] <= high

    page = (out / "report.html").read_text()
    for fault in full:
        assert page.count(fault.name) >= 3
    # A frame and its map for each fault and for the clean frame, and the figure.
    assert page.count("<img") == 2 * (len(full) + 1) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "--seed is -1: give 0 or more"),
        (["--bootstrap", "-1"], "--bootstrap is -1"),
        (["--block", "0"], "--block is 0: give 1 or more"),
        (["--faults", "fog"], "fault 'fog' is unknown"),
        (["--exclude", "0-23"], "leaves none of the 24 frames"),
        (["--exclude", "30-40"], "has frames 0 to 23"),
        (["--topic", "/camera"], "is not a bag"),
    ],
)
def test_wrong_options_are_named(
    model: Path, drive: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(AnomalyDetectorError, match=re.escape(message)):
        _run("--model", model, "--normal", drive, "--out", out, *options)
    assert not out.exists()


def test_an_output_folder_in_use_is_refused(model: Path, drive: Path) -> None:
    with pytest.raises(AnomalyDetectorError, match="not empty"):
        _run("--model", model, "--normal", drive, "--out", drive)


def test_no_frame_and_no_fault_are_errors(model: Path) -> None:
    detector = Detector(model)
    with pytest.raises(SourceError, match="no frame to stress"):
        run_stress(detector, [], choose_faults(["black"]), progress=False)
    with pytest.raises(ValueError, match="at least one"):
        run_stress(detector, [], [], progress=False)
