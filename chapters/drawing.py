"""How the chapters' pictures look: one style, three colours with a meaning, text that the last row can read.

    from drawing import new_figure, OURS, THEIRS, MUTED

    figure, axes = new_figure()
    axes.plot(steps, losses, color=OURS, label="with attention")
    axes.legend();

Importing the module sets matplotlib's defaults; cells then draw with plain matplotlib.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

INK, GRID = "#1b1f24", "#e3e6ea"
OURS = "#2563a8"  # blue: what the chapter is about
THEIRS = "#c2570c"  # orange: what it is compared with
MUTED = "#9aa1ac"  # grey: what is only there for orientation
MORE = ("#4d7c0f", "#7e3a93")  # green and purple, when two colours are not enough
# White is nothing, OURS is much, and it gets darker evenly, so that it also survives a black-and-white printer.
MUCH = LinearSegmentedColormap.from_list("much", ["#ffffff", "#a9c6e6", OURS, "#0f2f55"])
# THEIRS is negative, white is zero, OURS is positive.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#7a3406", THEIRS, "#ffffff", OURS, "#0f2f55"])

STYLE: dict[str, Any] = {
    "figure.dpi": 144,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 14,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 14,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "legend.fontsize": 13,
    "legend.frameon": False,
    "lines.linewidth": 2.5,
    "lines.markersize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[OURS, THEIRS, MUTED, *MORE]),
    "image.cmap": "much",
    "image.interpolation": "nearest",
}

for colours in (MUCH, SIGNED):
    matplotlib.colormaps.register(colours, force=True)
matplotlib.rcParams.update(STYLE)


def new_figure(width: float = 8, height: float = 4.5, **subplots_kwargs: Any) -> tuple[Figure, Any]:
    """A figure of width x height inches and its axes: one, or an array of them with nrows= or ncols=."""
    return plt.subplots(figsize=(width, height), **subplots_kwargs)


def show_matrix(
    axes: Axes,
    values: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    limits: tuple[float, float] | None = None,
    colours: str = "much",
    digits: int | None = None,
) -> AxesImage:
    """Paint a matrix [R C] as a grid of squares: an attention map, a table of values, an advantage per token.

    rows, columns  labels, one per row or column; none are written where they are not given.
    limits         the numbers painted in the first and the last colour; the least and the greatest value by default.
    colours        "much" for 0 and up, "signed" for both signs (give symmetric limits).
    digits         write each number into its square with so many digits after the point.
    Raises: ValueError if values is not a matrix, or the labels are not as many as its rows and columns.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"a matrix has two axes, this array has shape {values.shape}")
    for what, labels, count in (("rows", rows, len(values)), ("columns", columns, values.shape[1])):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} {what}")
    least, most = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    image = axes.imshow(values, cmap=colours, vmin=least, vmax=most, aspect="equal")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([] if columns is None else range(values.shape[1]), columns)
    axes.set_yticks([] if rows is None else range(len(values)), rows)
    axes.tick_params(length=0)
    if columns is not None and max(map(len, columns), default=0) > 2:
        plt.setp(axes.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    if digits is not None:
        for (row, column), value in np.ndenumerate(values):
            red, green, blue, _ = image.to_rgba(value)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55  # how bright an eye finds it
            axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color="white" if dark else INK)
    return image
