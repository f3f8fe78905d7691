"""The package's share folder: ``config/``, ``launch/`` and ``models/``, however it is installed.

Nothing here needs ROS; where ``ament_index_python`` is installed it is asked last.
"""

from __future__ import annotations

from pathlib import Path

from anomaly_detector.errors import AnomalyDetectorError, ModelError, as_one_line
from anomaly_detector.files import check_output_file

PACKAGE_NAME = "anomaly_detector"
MODEL_SUFFIX = ".onnx"

_MARKER = Path("config", "detector.yaml")


def share_path(*parts: str) -> Path:
    """Return a path inside the share folder.

    The files that belong to the code that runs win: a checkout's own, then those of the install
    prefix the code lies in (a virtual environment, ``~/.local``, a colcon install space), then
    those that the ament index names (needed after ``colcon build --symlink-install``).

    Args:
        *parts: path below the share folder, for example ``"config", "detector.yaml"``. It need
            not exist.

    Raises:
        AnomalyDetectorError: there is no share folder anywhere.
    """
    return _share_folder(Path(__file__)).joinpath(*parts)


def _share_folder(module_file: Path) -> Path:
    root = module_file.parents[2]
    if (root / "pyproject.toml").is_file() and (root / _MARKER).is_file():
        return root
    for prefix in root.parents:
        share = prefix / "share" / PACKAGE_NAME
        if (share / _MARKER).is_file():
            return share
    indexed = _ament_share()
    if indexed is not None and (indexed / _MARKER).is_file():
        return indexed
    raise AnomalyDetectorError(
        f"no folder share/{PACKAGE_NAME} with {_MARKER} belongs to {module_file.parent}: "
        "install the package again with pip or colcon, or run from the checkout"
    )


def _ament_share() -> Path | None:
    try:
        from ament_index_python.packages import get_package_share_directory
    except ImportError:
        return None
    try:
        return Path(get_package_share_directory(PACKAGE_NAME))
    except (LookupError, OSError):  # not registered; no AMENT_PREFIX_PATH at all
        return None


def resolve_model(name_or_path: str | Path) -> Path:
    """Find a model by name or path.

    Args:
        name_or_path: a path (it names a file that exists, has a separator or ends in ``.onnx``),
            which is used as it is, or the bare name of a model in the share folder's ``models/``.

    Returns:
        The path. One that was given as a path need not exist: loading it says so.

    Raises:
        ModelError: empty, no path that the system takes, or a bare name that ``models/`` does not
            have.
    """
    name_or_path = str(name_or_path)
    if not name_or_path:
        raise ModelError(
            f"model is empty: give the path of an {MODEL_SUFFIX} file or the name of a model"
        )
    try:
        path = Path(name_or_path).expanduser()
        if path.suffix == MODEL_SUFFIX or "/" in name_or_path or path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # too long; ~somebody who has no home
        reason = getattr(error, "strerror", None) or as_one_line(error)
        raise ModelError(
            f"model {name_or_path!r} is no name and no path ({reason}): give the path of an "
            f"{MODEL_SUFFIX} file"
        ) from error
    folder = share_path("models")
    model = folder / f"{name_or_path}{MODEL_SUFFIX}"
    if not model.is_file():
        names = ", ".join(sorted(f.stem for f in folder.glob(f"*{MODEL_SUFFIX}")))
        raise ModelError(
            f"model {name_or_path!r} is neither a file nor a model in {folder} "
            f"(there: {names or 'none'}): give one of these or the path of an {MODEL_SUFFIX} file"
        )
    return model


def check_model_output(path: Path, option: str = "--out") -> None:
    """Find out before the work whether a model file can be written.

    Raises:
        AnomalyDetectorError: it is not named as an ONNX file, or cannot be written.
    """
    if path.suffix != MODEL_SUFFIX:
        raise AnomalyDetectorError(
            f"{option} {path} does not end with {MODEL_SUFFIX}: name an ONNX file"
        )
    check_output_file(path)
