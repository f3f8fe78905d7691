"""Draws textured, lit things into a rendered corridor and keeps the truth mask of what it drew."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.data.corridor.camera import View
from training.data.corridor.textures import ByteImage, Colour, FloatImage

NEAR_M = 0.12
_SHIFT = 4
_LIGHT = np.array([0.18, 0.86, -0.48])


@dataclass(frozen=True)
class Capsule:
    """A tapered round rod from `start` to `end` (metres) with radii in metres.

    `grain` darkens the rod in folds along its length (cloth), 0 for none.
    """

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    start_radius: float
    end_radius: float
    colour: Colour
    grain: float = 0.0
    shine: float = 0.0


class Canvas:
    """An image with a view, the light of the place and a mask.

    Colours are RGB, 0 to 255, as they would look in full light. Everything is drawn over what is
    already there: draw from far to near.

    Attributes:
        image: uint8 (H, W, 3) RGB, changed in place.
        mask: float32 (H, W), coverage of what was drawn as part of the hazard, 0 to 1.
    """

    def __init__(
        self,
        image: ByteImage,
        view: View,
        light: float,
        tint: Colour,
        haze: tuple[float, Colour],
        on_floor: NDArray[np.bool_],
        mirror: Callable[[], ByteImage],
    ) -> None:
        """Wrap `image`.

        Args:
            image: the empty corridor, uint8 (H, W, 3).
            view: the camera and its pose.
            light: brightness factor at the hazard.
            tint: colour of the light.
            haze: share and colour of the haze at the hazard.
            on_floor: the pixels of the floor, bool (H, W).
            mirror: gives what a mirror on the floor shows, uint8 (H/2, W/2, 3).
        """
        self.image = image
        self.view = view
        self.mask: FloatImage = np.zeros(image.shape[:2], np.float32)
        self.on_floor = on_floor
        self._mirror = mirror
        share, colour = haze
        self._gain = (light * np.asarray(tint) * (1.0 - share)).astype(np.float32)
        self._offset = (share * np.asarray(colour)).astype(np.float32)

    def lit(self, colour: ArrayLike, shade: float = 1.0) -> NDArray[np.float32]:
        """What `colour` looks like here: lit, and seen through the haze."""
        out = np.asarray(colour, np.float32) * (self._gain * np.float32(shade)) + self._offset
        return np.asarray(out, dtype=np.float32)

    def _clipped(self, points: ArrayLike) -> NDArray[np.float64]:
        """The polygon (N, 3) in camera axes, cut off in front of the camera; maybe empty."""
        corners = self.view.to_camera(points)
        if (corners[:, 2] >= NEAR_M).all():
            return corners
        kept: list[NDArray[np.float64]] = []
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if a[2] >= NEAR_M:
                kept.append(a)
            if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
                kept.append(a + (b - a) * (NEAR_M - a[2]) / (b[2] - a[2]))
        return np.array(kept).reshape(-1, 3)

    def outline(self, points: ArrayLike) -> NDArray[np.float64]:
        """Pixel coordinates (N, 2) of a polygon in the world, clipped; maybe empty."""
        corners = self._clipped(points)
        if len(corners) < 3:
            return np.zeros((0, 2))
        return np.clip(self.view.to_pixels(corners), -8000.0, 8000.0)

    def _box(self, pixels: NDArray[np.float64], margin: float) -> tuple[int, int, int, int] | None:
        """The part of the image (left, top, right, bottom) that holds `pixels`, if any."""
        if len(pixels) == 0:
            return None
        height, width = self.image.shape[:2]
        left, top = np.floor(pixels.min(axis=0) - margin)
        right, bottom = np.ceil(pixels.max(axis=0) + margin) + 1
        x0, y0 = int(max(left, 0)), int(max(top, 0))
        x1, y1 = int(min(right, width)), int(min(bottom, height))
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def _blend(
        self,
        box: tuple[int, int, int, int],
        premultiplied: FloatImage,
        alpha: FloatImage,
        mask_gain: float,
    ) -> None:
        x0, y0, x1, y1 = box
        region = self.image[y0:y1, x0:x1]
        mixed = region * (1.0 - alpha[..., None])
        mixed += premultiplied
        np.clip(mixed, 0.0, 255.0, out=mixed)
        region[:] = mixed.astype(np.uint8)
        if mask_gain > 0.0:
            part = self.mask[y0:y1, x0:x1]
            np.maximum(part, np.minimum(alpha * np.float32(mask_gain), 1.0), out=part)

    def polygon(self, points: ArrayLike, colour: ArrayLike, shade: float = 1.0) -> None:
        """Fill a flat polygon (N, 3) in the world with one opaque colour."""
        self.fill(self.outline(points), self.lit(colour, shade))

    def fill(self, pixels: NDArray[np.float64], colour: NDArray[np.float32]) -> None:
        """Fill a polygon (N, 2) in pixels with a colour that is already lit."""
        if self._box(pixels, 1.0) is None:
            return
        fixed = np.asarray(np.rint(pixels * (1 << _SHIFT)), dtype=np.int32)
        red, green, blue = (float(c) for c in np.clip(colour, 0.0, 255.0))
        cv2.fillPoly(self.image, [fixed], (red, green, blue), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.mask, [fixed], 1.0, cv2.LINE_8, _SHIFT)

    def quad(
        self,
        origin: ArrayLike,
        u: ArrayLike,
        v: ArrayLike,
        texture: ByteImage,
        shade: float = 1.0,
        mask_gain: float = 1.5,
        lit: bool = True,
    ) -> None:
        """Draw a texture on the parallelogram from `origin` along `u` (columns), `v` (rows).

        Args:
            origin: where the texture's first corner is, metres.
            u: along its columns, metres.
            v: along its rows, metres.
            texture: premultiplied RGBA, uint8 (h, w, 4).
            shade: brightness factor of the face.
            mask_gain: factor from opacity to mask coverage; 0 leaves the mask alone, more than 1
                is for things one sees through.
            lit: False for textures that are not lit by the lamps (shadows).
        """
        o, du, dv = np.asarray(origin), np.asarray(u), np.asarray(v)
        corners = np.stack([o, o + du, o + du + dv, o + dv])
        pixels = self.outline(corners)
        box = self._box(pixels, 1.0)
        if box is None:
            return
        x0, y0, x1, y1 = box
        texture = self._shrunk(texture, corners)
        rows, columns = texture.shape[:2]
        to_pixels = self.view.plane_to_pixels(origin, u, v)
        texel = np.array(
            [[1.0 / columns, 0.0, 0.5 / columns], [0.0, 1.0 / rows, 0.5 / rows], [0.0, 0.0, 1.0]]
        )
        shift = np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0], [0.0, 0.0, 1.0]])
        homography = shift @ to_pixels @ texel
        if abs(np.linalg.det(homography)) < 1e-12:
            return
        warped = np.asarray(
            cv2.warpPerspective(texture, homography, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
        ).astype(np.float32)
        if len(pixels) != 4 or (self.view.to_camera(corners)[:, 2] < NEAR_M).any():
            # What is behind the camera would show up mirrored.
            visible = np.zeros((y1 - y0, x1 - x0), np.uint8)
            fixed = np.rint((pixels - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
            cv2.fillPoly(visible, [fixed], 1.0, cv2.LINE_8, _SHIFT)
            warped *= visible[..., None]
        alpha = warped[..., 3] * np.float32(1.0 / 255.0)
        colour = warped[..., :3]
        if lit:
            colour = colour * (self._gain * np.float32(shade)) + self._offset * alpha[..., None]
        self._blend(box, colour, alpha, mask_gain)

    def _shrunk(self, texture: ByteImage, corners: NDArray[np.float64]) -> ByteImage:
        """`texture` made about as small as it appears, so that it does not alias."""
        in_camera = self.view.to_camera(corners)
        if (in_camera[:, 2] < NEAR_M).any():
            return texture
        p = self.view.to_pixels(in_camera)
        edge = np.linalg.norm(np.roll(p, -1, axis=0) - p, axis=1)
        rows, columns = texture.shape[:2]
        across = int(min(columns, max(2.0, np.ceil(1.15 * max(edge[0], edge[2])))))
        down = int(min(rows, max(2.0, np.ceil(1.15 * max(edge[1], edge[3])))))
        if across > 0.75 * columns and down > 0.75 * rows:
            return texture
        small = cv2.resize(texture, (across, down), interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.uint8)

    def decal(
        self,
        texture: ByteImage,
        place: tuple[float, float],
        size: tuple[float, float],
        turn: float = 0.0,
        mask_gain: float = 1.5,
        lit: bool = True,
    ) -> None:
        """Lay a texture on the floor.

        Args:
            texture: premultiplied RGBA; its columns run along x before turning, rows towards us.
            place: (x, z) of its centre, metres.
            size: metres along x and z.
            turn: rotation in radians.
            mask_gain: see `quad`.
            lit: see `quad`.
        """
        c, s = float(np.cos(turn)), float(np.sin(turn))
        u = np.array([c * size[0], 0.0, s * size[0]])
        v = np.array([s * size[1], 0.0, -c * size[1]])
        origin = np.array([place[0], 0.0, place[1]]) - 0.5 * u - 0.5 * v
        self.quad(origin, u, v, texture, 1.0, mask_gain, lit)

    def shadow(
        self, place: tuple[float, float], size: tuple[float, float], strength: float = 0.5
    ) -> None:
        """A soft contact shadow on the floor, not part of the mask."""
        self.decal(_soft_shadow(strength), place, size, mask_gain=0.0, lit=False)

    def box(
        self,
        centre: tuple[float, float],
        bottom: float,
        size: tuple[float, float, float],
        turn: float,
        faces: Sequence[ByteImage] | None,
        colour: Colour,
    ) -> None:
        """Draw an upright box.

        Args:
            centre: (x, z) in metres.
            bottom: height of its bottom face, metres.
            size: width, height and depth in metres.
            turn: rotation around the vertical, radians.
            faces: textures of the upright faces and of the top, or None for plain colour.
            colour: mean colour, drawn below the textures so that no edge shines through.
        """
        c, s = float(np.cos(turn)), float(np.sin(turn))
        right, ahead = np.array([c, 0.0, s]), np.array([-s, 0.0, c])
        up = np.array([0.0, 1.0, 0.0])
        w, h, d = size
        middle = np.array([centre[0], bottom + h / 2, centre[1]])
        sides = (
            (-ahead, right, w, d),
            (ahead, -right, w, d),
            (right, ahead, d, w),
            (-right, -ahead, d, w),
        )
        to_eye = self.view.centre - middle
        for normal, along, length, thick in sides:
            if float(to_eye @ normal) <= thick / 2:
                continue
            shade = 0.62 + 0.3 * max(0.0, float(normal @ np.array([0.35, 0.0, -0.94])))
            origin = middle + normal * thick / 2 - along * length / 2 + up * h / 2
            self._face(origin, along * length, -up * h, faces[0] if faces else None, colour, shade)
        if to_eye[1] > h / 2:
            origin = middle + up * h / 2 - right * w / 2 + ahead * d / 2
            texture = faces[-1] if faces else None
            self._face(origin, right * w, -ahead * d, texture, colour, 1.04)
        elif to_eye[1] < -h / 2:
            origin = middle - up * h / 2 - right * w / 2 + ahead * d / 2
            self._face(origin, right * w, -ahead * d, None, colour, 0.4)

    def _face(
        self,
        origin: NDArray[np.float64],
        u: NDArray[np.float64],
        v: NDArray[np.float64],
        texture: ByteImage | None,
        colour: Colour,
        shade: float,
    ) -> None:
        self.polygon(np.stack([origin, origin + u, origin + u + v, origin + v]), colour, shade)
        if texture is not None:
            self.quad(origin, u, v, texture, shade)

    def solids(
        self,
        corners: NDArray[np.float64],
        faces: Sequence[Sequence[int]],
        colours: Sequence[Colour],
    ) -> None:
        """Draw convex solids with flat faces, shaded by their normals, in the given order.

        Args:
            corners: (N, C, 3) in metres.
            faces: the corner numbers of each face, the same for all solids.
            colours: one for each solid.
        """
        in_camera = self.view.to_camera(corners.reshape(-1, 3))
        if (in_camera[:, 2] < NEAR_M).any():
            return
        pixels = self.view.to_pixels(in_camera).reshape(*corners.shape[:2], 2)
        index = np.array(faces)
        first = corners[:, index[:, 0]]
        normal = np.cross(corners[:, index[:, 1]] - first, corners[:, index[:, 2]] - first)
        normal /= np.maximum(np.linalg.norm(normal, axis=2, keepdims=True), 1e-12)
        outward = np.einsum("nfk,nfk->nf", normal, first - corners.mean(axis=1)[:, None])
        normal *= np.where(outward < 0.0, -1.0, 1.0)[..., None]
        visible = np.einsum("nfk,nfk->nf", normal, self.view.centre - first) > 0.0
        shade = 0.45 + 0.6 * np.maximum(normal @ _LIGHT, 0.0)
        for n, colour in enumerate(colours):
            for f in np.flatnonzero(visible[n]):
                self.fill(pixels[n][index[f]], self.lit(colour, float(shade[n, f])))

    def capsules(self, capsules: Sequence[Capsule], ordered: bool = False) -> None:
        """Draw round rods, far ones first (or in the given order)."""
        ends = np.array([(c.start, c.end) for c in capsules], np.float64).reshape(-1, 3)
        in_camera = self.view.to_camera(ends).reshape(-1, 2, 3)
        order: Sequence[int] = range(len(capsules))
        if not ordered:
            order = [int(i) for i in np.argsort(-in_camera[:, :, 2].mean(axis=1), kind="stable")]
        for index in order:
            self._capsule(capsules[index], in_camera[index])

    def _capsule(self, rod: Capsule, in_camera: NDArray[np.float64]) -> None:
        if (in_camera[:, 2] < NEAR_M).any():
            return
        focal = self.view.camera.focal
        (ax, ay), (bx, by) = self.view.to_pixels(in_camera)
        ra = focal * rod.start_radius / in_camera[0, 2]
        rb = focal * rod.end_radius / in_camera[1, 2]
        thin = min(1.0, max(ra, rb) / 0.5)
        ra, rb = max(ra, 0.5), max(rb, 0.5)
        reach = np.array(
            [[ax - ra, ay - ra], [ax + ra, ay + ra], [bx - rb, by - rb], [bx + rb, by + rb]]
        )
        box = self._box(reach, 1.5)
        if box is None:
            return
        x0, y0, x1, y1 = box
        px = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(ax)
        py = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(ay)
        dx, dy = np.float32(bx - ax), np.float32(by - ay)
        square = dx * dx + dy * dy
        if square > 1e-6:
            along = np.clip((px * dx + py * dy) / square, 0.0, 1.0)
        else:
            along = np.zeros((y1 - y0, x1 - x0), np.float32)
        off_x, off_y = px - along * dx, py - along * dy
        radius = np.float32(ra) + np.float32(rb - ra) * along
        distance = np.sqrt(off_x * off_x + off_y * off_y)
        alpha = np.clip(radius - distance + np.float32(0.5), 0.0, 1.0) * np.float32(thin)
        inverse = np.reciprocal(radius)
        nx, ny = off_x * inverse, off_y * inverse
        facing = np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.0))
        # Light from above and a little from behind the camera; the rim is darkened.
        shade = 0.50 + 0.34 * np.maximum(0.15 * nx - 0.75 * ny + 0.45 * facing, 0.0)
        shade += 0.22 * facing
        if rod.grain > 0.0:
            shade *= 1.0 + rod.grain * np.sin(along * 23.0 + nx * 3.1 + np.float32(ax % 1.0))
        lit = self.lit(rod.colour)
        colour = (alpha * shade)[..., None] * lit
        if rod.shine > 0.0:
            spot = np.maximum(-0.68 * ny + 0.2 * nx + 0.70 * facing, 0.0) ** 14
            colour += (alpha * spot * np.float32(rod.shine * 160.0))[..., None]
        self._blend(box, colour.astype(np.float32), alpha.astype(np.float32), 1.6)

    def wet(
        self,
        alpha: ByteImage,
        place: tuple[float, float],
        size: tuple[float, float],
        turn: float,
        darkness: float,
        mirror: float,
    ) -> None:
        """Wet a patch of floor: it gets darker and reflects the corridor.

        Args:
            alpha: premultiplied RGBA texture; only its opacity counts.
            place: (x, z) of the centre, metres.
            size: metres along x and z.
            turn: rotation, radians.
            darkness: how much darker the wet floor is, 0 to 1.
            mirror: strength of the reflection, 0 to 1.
        """
        height, width = self.image.shape[:2]
        shape = copy.copy(self)
        shape.image, shape.mask = np.zeros_like(self.image), np.zeros_like(self.mask)
        shape.decal(alpha, place, size, turn, mask_gain=1.0)
        box = cv2.boundingRect((shape.mask > 0.004).astype(np.uint8))
        x0, y0, w, h = (int(v) for v in box)
        if w == 0 or h == 0:
            return
        cut = (slice(y0, y0 + h), slice(x0, x0 + w))
        amount = shape.mask[cut] * self.on_floor[cut]
        reflected = np.asarray(
            cv2.resize(self._mirror(), (width, height), interpolation=cv2.INTER_LINEAR)
        )[cut].astype(np.float32)
        rows = (np.arange(y0, y0 + h) - (height - 1) / 2) / self.view.camera.focal
        sine = np.clip(rows - self.view.pose.pitch, 0.05, 1.0)[:, None]
        fresnel = np.clip(mirror * (0.28 + 0.72 * (1.0 - sine) ** 3), 0.0, 1.0)[..., None]
        base = self.image[cut].astype(np.float32)
        wetted = base * np.float32(1.0 - darkness) * (1.0 - fresnel) + reflected * fresnel
        mixed = base + (wetted - base) * amount[..., None]
        # The rim of a puddle catches the light.
        inner = cv2.GaussianBlur(amount, (0, 0), max(0.6, 2.0 * width / 640.0))
        rim = np.clip(amount - np.asarray(inner), 0.0, 1.0)[..., None]
        self.image[cut] = np.clip(mixed + 60.0 * rim, 0.0, 255.0).astype(np.uint8)
        part = self.mask[cut]
        np.maximum(part, np.minimum(amount * 1.5, 1.0), out=part)


def _soft_shadow(strength: float) -> ByteImage:
    axis = np.linspace(-1.0, 1.0, 48, dtype=np.float32)
    radius = np.sqrt(axis[None, :] ** 2 + axis[:, None] ** 2)
    alpha = np.clip(1.0 - radius, 0.0, 1.0) ** 1.2 * strength * 1.6
    out = np.zeros((48, 48, 4), np.uint8)
    out[..., 3] = np.clip(alpha * 255.0, 0.0, 255.0 * min(0.85, strength * 1.3)).astype(np.uint8)
    return out
