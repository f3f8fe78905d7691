"""People: a jointed figure of round limbs, standing or walking to and fro."""

from __future__ import annotations

import math

import numpy as np

from training.data.corridor.canvas import Canvas, Capsule
from training.data.corridor.fixtures import scaled
from training.data.corridor.hazards_floor import Drawer, lateral
from training.data.corridor.layout import Layout
from training.data.corridor.textures import Colour, Rng, palette, pick

_SKIN = palette("deb296 c49474 8e6248 604232")
_HAIR = palette("2c221c 181616 785836 96928c")
_TOPS = palette("3a4c70 84302e 505458 d6d4ce 46624a b28c46 282a30")
_TROUSERS = palette("2c344a 323236 746450 464c58")


def human(rng: Rng, layout: Layout) -> Drawer:
    """A person of seeded height, clothing, pose and place."""
    tall = float(rng.uniform(1.58, 1.9)) / 1.75
    broad = float(rng.uniform(0.92, 1.12))
    skin, hair = pick(rng, _SKIN), pick(rng, _HAIR)
    top, trousers = pick(rng, _TOPS, 9.0), pick(rng, _TROUSERS, 9.0)
    shoes = pick(rng, ((34, 32, 32), (92, 62, 44), (190, 190, 188)))
    long_hair, short_sleeves = bool(rng.random() < 0.35), bool(rng.random() < 0.35)
    walking = bool(rng.random() < 0.55)
    facing = float(rng.uniform(-math.pi, math.pi))
    home = lateral(rng, layout, 0.35)
    reach = min(0.45, layout.width / 2 - 0.35)
    rate, start = float(rng.uniform(0.8, 1.2)), float(rng.uniform(0, 2 * math.pi))
    turn_away = 1.0 if rng.random() < 0.5 else -1.0
    elbow = float(rng.uniform(0.1, 0.9))

    def draw(canvas: Canvas, z: float, seconds: float) -> None:
        x, heading, stride, phase = home, facing, 0.05, start
        if walking:
            speed = math.cos(rate * seconds + start)
            x = reach * math.sin(rate * seconds + start)
            heading = math.atan2(speed, 0.35 * turn_away)
            stride, phase = abs(speed), 5.2 * seconds
        # Local axes: a to the person's right, f ahead; heading 0 looks towards the camera.
        ax, az = math.cos(heading), math.sin(heading)
        fx, fz = math.sin(heading), -math.cos(heading)

        def at(a: float, y: float, f: float) -> tuple[float, float, float]:
            return (
                x + tall * (a * broad * ax + f * fx),
                tall * y,
                z + tall * (a * broad * az + f * fz),
            )

        def limb(
            p: tuple[float, float, float],
            q: tuple[float, float, float],
            r0: float,
            r1: float,
            colour: Colour,
            grain: float = 0.0,
        ) -> Capsule:
            return Capsule(at(*p), at(*q), r0 * tall * broad, r1 * tall * broad, colour, grain)

        canvas.shadow((x, z), (1.0, 0.8), 0.6)
        rods: list[Capsule] = []
        for side in (-1.0, 1.0):
            swing = side * 0.42 * stride * math.sin(phase)
            lift = max(0.0, -side * math.cos(phase)) * stride
            hip = (0.085 * side, 0.90, 0.0)
            knee = (0.09 * side, 0.50 + 0.03 * lift, 0.40 * math.sin(swing) + 0.10 * lift)
            back = 0.22 * lift
            ankle = (0.09 * side, 0.09 + 0.10 * lift, 0.80 * math.sin(swing) - back)
            toe = (0.11 * side, 0.045 + 0.05 * lift, ankle[2] + 0.17)
            rods += [
                limb(hip, knee, 0.092, 0.062, trousers, 0.025),
                limb(knee, ankle, 0.062, 0.046, trousers, 0.03),
                limb((ankle[0], ankle[1] - 0.035, ankle[2]), toe, 0.050, 0.042, shoes),
            ]
            arm = -side * 0.40 * stride * math.sin(phase)
            shoulder = (0.185 * side, 1.40, 0.0)
            out = 0.05 + 0.02 * elbow
            joint = ((0.185 + out) * side, 1.40 - 0.28 * math.cos(arm), 0.28 * math.sin(arm))
            bend = arm + (0.45 if walking else elbow)
            hand = (
                (0.185 + 0.6 * out) * side,
                joint[1] - 0.25 * math.cos(bend),
                joint[2] + 0.25 * math.sin(bend),
            )
            sleeve = skin if short_sleeves else top
            rods += [
                limb(shoulder, joint, 0.062, 0.048, top, 0.03),
                limb(joint, hand, 0.044, 0.034, sleeve, 0.0 if short_sleeves else 0.03),
                limb(hand, (hand[0], hand[1] - 0.07, hand[2] + 0.03), 0.038, 0.030, skin),
            ]
        rods += [
            limb((0.0, 1.31, 0.0), (0.0, 1.10, 0.0), 0.168, 0.142, top, 0.02),
            limb((0.0, 1.10, 0.0), (0.0, 0.97, 0.0), 0.142, 0.150, top, 0.025),
            limb((-0.13, 1.405, 0.0), (0.13, 1.405, 0.0), 0.078, 0.078, top),
            limb((0.0, 1.44, 0.0), (0.0, 1.54, 0.01), 0.055, 0.050, skin),
        ]
        canvas.capsules(rods)
        towards_us = fz < 0.0
        head = [
            limb((0.0, 1.585, 0.025), (0.0, 1.655, 0.015), 0.078, 0.098, skin),
        ]
        cap = [limb((0.0, 1.67, -0.018), (0.0, 1.685, -0.01), 0.102, 0.098, hair)]
        if long_hair:
            cap.append(limb((0.0, 1.62, -0.05), (0.0, 1.46, -0.07), 0.092, 0.075, hair))
        canvas.capsules([*cap, *head] if towards_us else [*head, *cap], ordered=True)
        if towards_us:
            # A fringe above the face, and the eyes.
            canvas.capsules([limb((-0.045, 1.725, 0.04), (0.045, 1.725, 0.04), 0.042, 0.042, hair)])
            for side in (-1.0, 1.0):
                eye = (0.035 * side, 1.645, 0.108)
                canvas.capsules([limb(eye, eye, 0.010, 0.010, scaled(skin, 0.25))])

    return draw


def lean_pick(rng: Rng, low: float, high: float) -> float:
    """A value between `low` and `high` with a random sign."""
    return float(rng.uniform(low, high)) * float(np.sign(rng.random() - 0.5) or 1.0)
