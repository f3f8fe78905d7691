"""Faults on the way from the camera to the detector: torn, shifted, squeezed, lost and frozen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.evaluation.faults.base import UNITS, Fault, Image, Mask


@dataclass(frozen=True)
class TornFrame(Fault, group="transport"):
    """A buffer read while it was written: below a line the frame shows another place.

    Attributes:
        line: highest and lowest place of the tear, units from the top.
        across: least and most sideways jump, units, to either side.
        down: most vertical jump, units, to either side.
    """

    line: tuple[float, float] = (14.0, 46.0)
    across: tuple[float, float] = (8.0, 28.0)
    down: float = 8.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        line = round(rng.uniform(*self.line) * height / UNITS)
        sign = 1 if rng.random() < 0.5 else -1
        x = sign * round(rng.uniform(*self.across) * width / UNITS)
        y = round(rng.uniform(-self.down, self.down) * height / UNITS)
        result = image.copy()
        result[line:] = np.roll(image, (y, x), axis=(0, 1))[line:]
        return result, None


@dataclass(frozen=True)
class ShiftedRows(Fault, group="transport"):
    """Lost line synchronisation: bands of rows stand sideways of their place.

    Attributes:
        bands: least and most bands that the frame falls into.
        shift: most sideways jump, units, to either side.
    """

    bands: tuple[int, int] = (5, 10)
    shift: float = 18.0

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        count = int(rng.integers(self.bands[0], self.bands[1] + 1))
        cuts = np.sort(rng.uniform(0, height, count - 1)).astype(int).tolist()
        result = image.copy()
        for top, bottom in zip([0, *cuts], [*cuts, height], strict=True):
            shift = round(rng.uniform(-self.shift, self.shift) * width / UNITS)
            result[top:bottom] = np.roll(image[top:bottom], shift, axis=1)
        return result, None


@dataclass(frozen=True)
class JpegRuin(Fault, group="transport"):
    """A starved video link: the frame squeezed into a thumbnail of the lowest JPEG quality.

    Attributes:
        width: of the thumbnail, pixels; two of them make a unit.
        quality: worst and best, JPEG's 1..100.
    """

    width: int = 128
    quality: tuple[int, int] = (2, 8)

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        size = (self.width, max(1, round(self.width * height / width)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        _, code = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)
        ruined = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
        # Blocks stay blocks when they are enlarged.
        result = cv2.resize(ruined, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(result, np.uint8), None


@dataclass(frozen=True)
class LostBlocks(Fault, group="transport"):
    """Lost packets of a video stream: runs of blocks grey, or repeating the last good one.

    Attributes:
        block: side of a block, units.
        runs: least and most runs.
        length: shortest and longest run, blocks, in reading order.
    """

    block: int = 4
    runs: tuple[int, int] = (3, 6)
    length: tuple[int, int] = (4, 16)

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        height, width = image.shape[:2]
        cells = UNITS // self.block
        rows = np.linspace(0, height, cells + 1).astype(int)
        columns = np.linspace(0, width, cells + 1).astype(int)
        result, mask = image.copy(), np.zeros((height, width), bool)
        for _ in range(int(rng.integers(self.runs[0], self.runs[1] + 1))):
            length = int(rng.integers(self.length[0], self.length[1] + 1))
            first = int(rng.integers(1, cells * cells - length))
            is_grey = rng.random() < 0.5
            row, column = divmod(first - 1, cells)
            last = image[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
            for number in range(first, first + length):
                row, column = divmod(number, cells)
                place = (
                    slice(rows[row], rows[row + 1]),
                    slice(columns[column], columns[column + 1]),
                )
                shape = result[place].shape
                fill = cv2.resize(last, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
                result[place] = 128 if is_grey else fill
                mask[place] = True
        return result, mask


@dataclass(frozen=True)
class FrozenFrame(Fault, group="sequence", per_frame=False):
    """A hung camera: the same frame is sent again and again.

    Each frame is in itself a normal one, so a detector that sees one frame at a time cannot tell.
    :meth:`shown` says which frame stands in for which; :meth:`apply` changes nothing.

    Attributes:
        hold: frames for which one stands still.
    """

    hold: int = 40

    def apply(self, image: Image, rng: np.random.Generator) -> tuple[Image, Mask | None]:
        """Return the frame as it is: it is the sequence that is at fault."""
        return image.copy(), None

    def shown(self, number: int) -> int:
        """Return the number of the frame that is sent in place of frame ``number``."""
        return number - number % self.hold
