"""A picture of the latent space: where the latents of normal frames lie, and those of hazards.

Two directions of 128 are drawn, those in which the latents vary most (principal components).
Hazards that lie apart here are apart; those that lie among the normal frames here may still be
apart in a direction that is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from anomaly_detector.drawing.page import Section
from training.data.labels import NORMAL
from training.reports.figures import scatter_figure
from training.reports.page import figure_picture

_MAX_POINTS = 1500


def latent_space_figure(
    latents: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]
) -> Figure | None:
    """Draw latents on their two principal components, coloured by class.

    The components are those of all latents, and each class is drawn with at most 1500 of its
    frames, evenly chosen.

    Args:
        latents: float32 [N, size].
        labels: int64 [N], 0 for normal, negative for unknown.
        classes: class name of each frame.

    Returns:
        The figure; None when the latents do not vary in two directions.
    """
    if min(latents.shape) < 2 or not np.ptp(latents, axis=0).any():
        return None
    components = PCA(2, svd_solver="full")
    points = components.fit_transform(latents.astype(np.float64))
    shares = components.explained_variance_ratio_
    if not shares[1] > 1e-9:
        return None
    groups = []
    # Normal frames first, so that hazards are drawn over them.
    for label in sorted(set(labels.tolist()), key=lambda value: (value != 0, value)):
        rows = np.flatnonzero(labels == label)
        name = NORMAL if label == 0 else classes[rows[0]] or "not labelled"
        shown = rows[np.linspace(0, rows.size - 1, min(rows.size, _MAX_POINTS)).astype(int)]
        groups.append((f"{name} ({rows.size})", points[shown]))
    return scatter_figure(
        groups,
        title="Latents of the frames",
        x_label=f"First principal component ({shares[0]:.0%} of the variance)",
        y_label=f"Second principal component ({shares[1]:.0%})",
        first_is_normal=bool((labels == 0).any()),
    )


def latent_space_section(
    latents: NDArray[np.float32] | None, labels: NDArray[np.int64], classes: Sequence[str]
) -> Section | None:
    """Make the section that shows :func:`latent_space_figure`; None without a figure."""
    figure = None if latents is None else latent_space_figure(latents, labels, classes)
    if latents is None or figure is None:
        return None
    text = (
        f"The {latents.shape[1]} numbers that the encoder makes of each frame, seen from the side "
        "from which they differ most; one dot a frame. On a patrol that is mostly the way through "
        "the building, seen as lines. Detectors on latents work with what is "
        "shown here and in the directions behind it: hazards that lie apart can be told, those "
        "among the normal frames may still be apart in another direction."
    )
    alt = "Scatter plot of the latents of normal frames and of hazards on two principal components"
    # Thousands of dots are smaller as pixels.
    picture = figure_picture(figure, alt, wide=True, vector=False)
    return Section("Latent space", [text], pictures=[picture])
