"""Augmentation: every transformation by itself, both presets, and that samples can be repeated."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from training.networks.augmentation import (
    AUGMENTATIONS,
    Preset,
    augment,
    compiled_augment,
    perlin_bank,
)

Images = np.ndarray[Any, np.dtype[np.uint8]]


def pictures(count: int = 6) -> Images:
    """Smooth pictures without symmetry."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), np.uint8)
    resized = [cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse]
    return np.asarray(resized, np.uint8)


def apply(preset: Preset, images: Images, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples = preset.sample(np.random.default_rng(seed), len(images))
    result = np.array(augment(images, samples, preset.fill_mode))
    assert result.shape == images.shape
    assert result.dtype == np.float32
    assert result.min() >= 0.0
    assert result.max() <= 255.0
    return result


def presets() -> list[str]:
    return [name for name, preset in AUGMENTATIONS.items() if preset is not None]


def test_a_preset_of_nothing_changes_nothing() -> None:
    np.testing.assert_array_equal(apply(Preset(), pictures()), pictures().astype(np.float32))


def test_flip_is_about_the_vertical_axis_and_half_the_frames_get_one() -> None:
    images = pictures()
    flipped = apply(Preset(flip_probability=1.0), images)
    np.testing.assert_allclose(flipped, images[:, :, ::-1], atol=1e-3)
    matrices = Preset(flip_probability=0.5).sample(np.random.default_rng(0), 1000)["matrix"]
    assert 430 < np.count_nonzero(matrices[:, 0] < 0) < 570


def test_rotation_agrees_with_opencv() -> None:
    images = pictures(1)
    preset = Preset(rotation=40.0)
    matrix = preset.sample(np.random.default_rng(0), 1)["matrix"][0]
    angle = np.degrees(np.arctan2(matrix[3], matrix[0]))
    assert 1 < abs(angle) <= 40
    expected = cv2.warpAffine(
        images[0].astype(np.float32),
        matrix.reshape(2, 3),
        (64, 64),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    # OpenCV rounds positions to 1/32 of a pixel.
    np.testing.assert_allclose(apply(preset, images)[0], expected, atol=6)
    centre = np.array([31.5, 31.5, 1])
    np.testing.assert_allclose(matrix.reshape(2, 3) @ centre, centre[:2], atol=1e-4)


def test_rotation_is_of_all_angles_in_the_range() -> None:
    matrix = Preset(rotation=10.0).sample(np.random.default_rng(0), 500)["matrix"]
    angle = np.degrees(np.arctan2(matrix[:, 3], matrix[:, 0]))
    assert np.abs(angle).max() <= 10.001
    assert angle.min() < -9 < 9 < angle.max()


def test_zoom_shows_a_part_of_the_frame() -> None:
    matrix = Preset(zoom=(0.5, 1.0)).sample(np.random.default_rng(0), 300)["matrix"]
    for factor in (matrix[:, 0], matrix[:, 4]):
        assert 0.5 <= factor.min() < 0.55
        assert 0.95 < factor.max() <= 1.0
    assert not np.allclose(matrix[:, 0], matrix[:, 4])
    images = pictures(1)
    zoomed = apply(Preset(zoom=(0.5, 0.5)), images)[0]
    # The inner half, up to the blur of resizing.
    inner = cv2.resize(images[0, 16:48, 16:48], (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(zoomed[2:-2, 2:-2], inner[2:-2, 2:-2], atol=2)


def test_crop_is_a_square_inside_the_frame_resized_back() -> None:
    preset = Preset(crop=(50, 64), crop_probability=1.0)
    matrix = preset.sample(np.random.default_rng(0), 500)["matrix"].reshape(-1, 2, 3)
    height = matrix[:, 0, 0] * 64
    np.testing.assert_allclose(height, np.round(height), atol=1e-3)
    assert round(height.min()) == 50
    assert round(height.max()) == 64
    np.testing.assert_allclose(matrix[:, 0, 0], matrix[:, 1, 1])
    # The outer edges of the first and the last pixel of the result lie inside the frame's.
    for axis in (0, 1):
        first = matrix[:, axis, axis] * -0.5 + matrix[:, axis, 2] + 0.5
        assert first.min() > -1e-3
        assert (first + height).max() < 64 + 1e-3
    images = pictures(1)
    samples = preset.sample(np.random.default_rng(4), 1)
    scale, shift_x, shift_y = (float(samples["matrix"][0, i]) for i in (0, 2, 5))
    size = round(scale * 64)
    left, top = (round(shift - scale / 2 + 0.5) for shift in (shift_x, shift_y))
    cut = images[0, top : top + size, left : left + size]
    expected = cv2.resize(cut, (64, 64), interpolation=cv2.INTER_LINEAR)
    got = np.array(augment(images, samples, "reflect"))[0]
    np.testing.assert_allclose(got[2:-2, 2:-2], expected[2:-2, 2:-2], atol=2)


def test_outside_of_the_frame() -> None:
    images = pictures(1)
    samples = Preset().neutral(1)
    samples["matrix"] = np.array([[1, 0, -3, 0, 1, 0]], np.float32)  # three pixels to the right
    nearest = np.array(augment(images, samples, "nearest"))[0]
    np.testing.assert_allclose(nearest[:, 3:], images[0, :, :-3], atol=1e-3)
    np.testing.assert_allclose(nearest[:, :3], np.repeat(images[0, :, :1], 3, axis=1), atol=1e-3)
    reflect = np.array(augment(images, samples, "reflect"))[0]
    np.testing.assert_allclose(reflect[:, :3], images[0, :, 2::-1], atol=1e-3)


def test_brightness_and_contrast() -> None:
    images = pictures(200)
    bright = apply(Preset(gain=(1.2, 1.2)), images)
    np.testing.assert_allclose(bright, np.minimum(images * 1.2, 255), atol=1e-3)
    shifted = apply(Preset(offset=25.5), images)
    change = (shifted - images)[:, 32, 32, 0]
    assert np.abs(change).max() <= 25.501
    samples = Preset(gain=(0.6, 1.7), color_probability=0.5).sample(np.random.default_rng(0), 400)
    assert 140 < np.count_nonzero(samples["gain"] == 1.0) < 260
    assert samples["gain"].min() >= 0.6
    assert samples["gain"].max() <= 1.7


def test_perlin_noise_is_blended_in() -> None:
    preset = Preset(noise_probability=0.5, noise_weight=0.3)
    samples = preset.sample(np.random.default_rng(0), 100)
    weight = samples["noise_weight"]
    assert 30 < np.count_nonzero(weight) < 70
    assert weight.max() <= 0.3
    images = pictures(100)
    result = np.array(augment(images, samples))
    share = weight[:, None, None, None]
    expected = images * (1 - share) + samples["noise"][..., None] * share
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_perlin_noise_is_smooth_and_covers_the_range() -> None:
    bank = perlin_bank()
    assert bank.dtype == np.uint8
    assert bank.min() == 0
    assert bank.max() == 255
    steps = np.abs(np.diff(bank.astype(np.int16), axis=2))
    assert steps.max() < 40
    assert bank.std(axis=(1, 2)).min() > 20
    assert len(np.unique(bank.reshape(len(bank), -1), axis=0)) == len(bank)


def test_salt_and_pepper() -> None:
    images = pictures(50)
    result = apply(Preset(impulse_share=0.02), images)
    changed = (result != images).any(axis=-1)
    assert 0.015 < changed.mean() < 0.025
    assert set(np.unique(result[changed])) <= {0.0, 255.0}
    assert 0.3 < (result[changed] == 255.0).all(axis=-1).mean() < 0.7


@pytest.mark.parametrize("name", presets())
def test_presets_can_be_repeated_and_differ_between_seeds(name: str) -> None:
    preset = AUGMENTATIONS[name]
    assert preset is not None
    first = apply(preset, pictures(), seed=1)
    np.testing.assert_array_equal(apply(preset, pictures(), seed=1), first)
    assert not np.allclose(apply(preset, pictures(), seed=2), first)
    # Every frame of a batch gets its own change.
    same = np.repeat(pictures(1), 8, axis=0)
    assert len(np.unique(apply(preset, same).reshape(8, -1), axis=0)) >= 4


@pytest.mark.parametrize("name", presets())
def test_neutral_samples_change_nothing(name: str) -> None:
    preset = AUGMENTATIONS[name]
    assert preset is not None
    neutral, sampled = preset.neutral(6), preset.sample(np.random.default_rng(0), 6)
    assert {k: (v.shape, v.dtype) for k, v in neutral.items()} == {
        k: (v.shape, v.dtype) for k, v in sampled.items()
    }
    np.testing.assert_array_equal(np.array(augment(pictures(), neutral)), pictures())


@pytest.mark.parametrize("name", presets())
def test_compiled_form_agrees(name: str) -> None:
    preset = AUGMENTATIONS[name]
    assert preset is not None
    samples = preset.sample(np.random.default_rng(0), 6)
    got = np.array(compiled_augment(preset.fill_mode)(pictures(), samples))
    np.testing.assert_allclose(got, augment(pictures(), samples, preset.fill_mode), atol=1e-2)
