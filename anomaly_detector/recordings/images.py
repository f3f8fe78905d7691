"""A folder or a list of image files as a recording."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from anomaly_detector.errors import ImageError, SourceError
from anomaly_detector.files import printable
from anomaly_detector.images.compressed import decode_encoded_bytes
from anomaly_detector.images.encodings import ImageScaling
from anomaly_detector.recordings.base import (
    AnyFrame,
    Frame,
    FrameSource,
    MaybePending,
    UnreadableFrame,
    natural_key,
)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)


class ImageFilesSource(FrameSource):
    """A list of image files, in the order given.

    Args:
        path: the folder that they belong to, for messages and for :attr:`identity`.
        files: the image files.
    """

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        super().__init__(path)
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def identity(self) -> str:
        """See :attr:`FrameSource.identity`."""
        stats = [(f, f.stat()) for f in self.files]
        lines = [(os.path.relpath(f, self.path), s.st_size, s.st_mtime_ns) for f, s in stats]
        return f"{self.path.resolve()}|{lines}"

    def _frames(self) -> Iterator[MaybePending]:
        read = partial(_read_image_file, scaling=self.view.scaling, reduced=self._reduced)
        return (partial(read, file) for file in self.files)


class ImageFolderSource(ImageFilesSource):
    """The images directly in a folder, in natural order (``2.jpg`` before ``10.jpg``).

    Hidden files are none: macOS leaves a ``._2.jpg`` beside each on other file systems.
    """

    def __init__(self, path: Path) -> None:
        files = sorted(
            (
                f
                for f in path.iterdir()
                if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") and f.is_file()
            ),
            key=lambda f: natural_key(f.name),
        )
        if not files:
            raise SourceError(
                f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}), bag or video: "
                "give the folder that directly holds the frames"
            )
        super().__init__(path, files)


def _read_image_file(file: Path, *, scaling: ImageScaling | None, reduced: bool) -> AnyFrame:
    name = printable(file.name)
    try:
        pixels = decode_encoded_bytes(file.read_bytes(), name, scaling=scaling, reduced=reduced)
    except (ImageError, OSError) as error:
        return UnreadableFrame(name, printable(str(error)))
    return Frame(name, None, pixels)
