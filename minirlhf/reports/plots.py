"""Figures as inline SVG, drawn by matplotlib without a display; their text stays text.

Every function returns an `<svg …>` string that stands on its own: no font, style sheet or image from elsewhere.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from minirlhf.evaluation.metrics_file import Series

COLOURS = {"base": "#9aa1ac", "sft": "#2563a8", "ppo": "#c2570c"}  # told apart in grey and by the colour-blind
INK, LINES = "#1b1f24", ("#2563a8", "#c2570c", "#4d7c0f", "#7e3a93")
# Left, bottom, width, height of the axes of a curve. Fixed, so that panels of one row line up, and because working it
# out takes matplotlib longer than the drawing itself.
PLACE = (0.15, 0.185, 0.83, 0.7)
Layout = Literal["constrained"] | None
STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "axes.formatter.limits": (-3, 4),
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "figure.constrained_layout.use": False,  # each figure says its layout, whatever the caller's defaults are
}
POINTS = 60  # a longer line is averaged in stretches, so that its trend is seen


def draw(
    name: str, paint: Callable[[Figure], None], width: float = 4.6, height: float = 2.9, layout: Layout = "constrained"
) -> str:
    """One figure of width x height inches. name must be unique on its page: it salts the ids inside the SVG."""
    settings: Any = STYLE | {"svg.hashsalt": name}
    with rc_context(settings):
        figure = Figure(figsize=(width, height), layout=layout)
        paint(figure)
        buffer = StringIO()
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # the XML head and the document type have no place inside HTML
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", svg, count=1)  # the page decides how wide it is
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"(<svg )", rf'\1role="img" aria-label="{escape(name)}" ', svg, count=1)
    # ids that nothing refers to would occur once per figure
    return re.sub(r'<g id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend)[^"]*">', "<g>", svg)


def curves(name: str, lines: Mapping[str, Series], x_label: str = "step") -> str:
    """Metrics over steps in one panel; long ones as the mean of stretches with a band from least to most."""

    def paint(figure: Figure) -> None:
        axes = figure.add_axes(PLACE)
        for (label, series), colour in zip(lines.items(), LINES, strict=False):
            _line(axes, series, label, colour)
        axes.set_xlabel(x_label)
        axes.margins(x=0.02)
        axes.ticklabel_format(axis="y", scilimits=(-2, 5))  # "-0.0025" would not fit beside the panel
        if len(lines) > 1:
            figure.legend(loc="upper right", ncols=len(lines), fontsize=11, borderpad=0.1)

    return draw(name, paint, layout=None)


def _line(axes: Axes, series: Series, label: str, colour: str) -> None:
    if len(series) <= POINTS:
        marker = "o" if len(series) <= 30 else None
        axes.plot(series.steps, series.values, color=colour, label=label, marker=marker, markersize=4, linewidth=1.8)
        return
    size = -(-len(series) // POINTS)  # rows per stretch, rounded up
    parts = [np.arange(first, min(first + size, len(series))) for first in range(0, len(series), size)]
    steps = [series.steps[part].mean() for part in parts]
    low, high = ([f(series.values[part]) for part in parts] for f in (np.min, np.max))
    axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(steps, [series.values[part].mean() for part in parts], color=colour, label=label, linewidth=1.8)


def grouped_bars(
    name: str, groups: Mapping[str, Mapping[str, tuple[float, tuple[float, float]]]], x_label: str, rows: int
) -> str:
    """Lying bars: {group: {model: (mean, (low, high))}}, whiskers are the intervals; as high as `rows` groups need."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        models = list(dict.fromkeys(model for bars in groups.values() for model in bars))
        thickness = 0.8 / max(len(models), 1)
        for row, model in enumerate(models):
            present = [(i, bars[model]) for i, bars in enumerate(groups.values()) if model in bars]
            places = [i - 0.4 + thickness * (row + 0.5) for i, _ in present]
            means = [mean for _, (mean, _) in present]
            whiskers = np.array([[mean - low, high - mean] for _, (mean, (low, high)) in present]).T.clip(min=0)
            colour = COLOURS.get(model, LINES[row % len(LINES)])
            axes.barh(
                places, means, height=thickness * 0.92, color=colour, label=model.upper() if model != "base" else model
            )
            axes.errorbar(means, places, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1.4, capsize=3)
        axes.axvline(0, color="#6b7280", linewidth=1)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set_xlabel(x_label)
        figure.legend(loc="outside upper right", ncols=len(models), fontsize=12)

    return draw(name, paint, width=5.0, height=0.9 + 0.55 * rows)


def labelled_bars(name: str, bars: Mapping[str, tuple[float, str]], x_label: str, colour: str) -> str:
    """Lying bars: {label: (length, what stands at its end)}, the first on top."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        drawn = axes.barh(list(bars), [length for length, _ in bars.values()], height=0.62, color=colour)
        axes.bar_label(drawn, [text for _, text in bars.values()], padding=4, color=INK)
        axes.margins(x=0.3)  # room for the text at the longest bar
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set_xlabel(x_label)

    return draw(name, paint, width=5.0, height=0.8 + 0.36 * len(bars))


def calibration(name: str, rows: Sequence[Mapping[str, float]]) -> str:
    """Reliability diagram: what the reward model claimed against what came true; dots grow with the number of pairs."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0.5, 1], [0.5, 1], color="#6b7280", linestyle="--", linewidth=1.2)
        most = max((row["count"] for row in rows), default=1)
        predicted, observed = [row["predicted"] for row in rows], [row["observed"] for row in rows]
        axes.plot(predicted, observed, color=LINES[0], linewidth=1.5)
        axes.scatter(predicted, observed, s=[30 + 220 * row["count"] / most for row in rows], color=LINES[0])
        axes.set_xlim(0.49, 1.02)
        axes.set_ylim(min(0.45, *observed) - 0.03 if observed else 0.45, 1.04)
        axes.set_xlabel("how sure it was")
        axes.set_ylabel("how often it was right")

    return draw(name, paint, height=3.3)


def histogram(name: str, edges: Sequence[float], counts: Sequence[int], x_label: str) -> str:
    """Bars between edges; what lies left of zero is drawn in the warning colour."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        left, right = np.asarray(edges[:-1]), np.asarray(edges[1:])
        colours = [LINES[0] if low + high > 0 else LINES[1] for low, high in zip(left, right, strict=True)]
        axes.bar(left, counts, width=right - left, align="edge", color=colours, edgecolor="white", linewidth=0.6)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel(x_label)
        axes.set_ylabel("pairs")

    return draw(name, paint, height=3.3)


def against(name: str, x: Series, y: Series, x_label: str, y_label: str, colour: str) -> str:
    """One metric against another over the run: a dot per step (pale early, full late) and the running mean."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        _, at_x, at_y = np.intersect1d(x.steps, y.steps, return_indices=True)
        xs, ys = x.values[at_x], y.values[at_y]
        axes.scatter(
            xs, ys, s=16, color=[to_rgba(colour, 0.15 + 0.65 * i / len(xs)) for i in range(len(xs))], linewidths=0
        )
        if len(xs) >= 10:
            parts = np.array_split(np.argsort(xs, kind="stable"), min(15, len(xs) // 5))
            axes.plot([xs[p].mean() for p in parts], [ys[p].mean() for p in parts], color=colour, linewidth=2.2)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return draw(name, paint, height=3.1)
