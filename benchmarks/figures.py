"""The figures of a result file, in one style that can be read on a projector: bars with whiskers, lines of growth."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INK, OURS = "#1b1f24", "#c2570c"
THEIRS = ("#2563a8", "#4d7c0f", "#7e3a93", "#0f766e", "#9aa1ac")  # told apart in grey and by the colour-blind
BOUND = "#9aa1ac"
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 18,
    "axes.titlesize": 18,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "axes.axisbelow": True,
    "legend.frameon": True,
    "legend.edgecolor": "none",
    "lines.linewidth": 3,
    "lines.markersize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "minirlhf",
}


def colour(name: str, place: int) -> str:
    """minirlhf is always the same colour, a bound always grey."""
    if name.startswith("minirlhf"):
        return OURS
    return BOUND if name.startswith("bound") else THEIRS[place % len(THEIRS)]


def draw(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws NAME.svg (a panel per table), NAME_growth.svg and NAME_curves.svg, those there is something for."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = []
    with rc_context(STYLE):
        for suffix, kind, paint in (("", "tables", bars), ("_growth", "growth", lines), ("_curves", "curves", curve)):
            panels = content.get(kind, ())
            if not panels:
                continue
            columns = min(2, len(panels))
            rows = -(-len(panels) // columns)
            tallest = max(len(panel["runs" if paint is bars else "series"]) for panel in panels)
            height = 1.6 + 0.62 * tallest if paint is bars else 5.2
            figure = Figure(figsize=(9 * columns, height * rows), layout="constrained")
            for number, panel in enumerate(panels):
                paint(figure.add_subplot(rows, columns, number + 1), panel)
            path = folder / f"{content['idea']}{suffix}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            drawn.append(path)
    return drawn


def bars(axes: Any, table: Mapping[str, Any]) -> None:
    """Medians as lying bars, whiskers from the lowest to the highest round."""
    names = list(table["runs"])
    others = [name for name in names if not name.startswith(("minirlhf", "bound"))]
    for place, name in enumerate(names):
        values = [run[table["unit"]] for run in table["runs"][name]]
        middle = statistics.median(values)
        if middle == math.inf:
            axes.annotate(" never", (0, place), va="center")
            continue
        hue = colour(name, others.index(name) if name in others else 0)
        axes.barh(place, middle, color=hue, height=0.72, alpha=0.55 if name.startswith("bound") else 1)
        axes.plot([min(values), max(values)], [place, place], color=INK, linewidth=2, marker="|", markersize=12)
        axes.annotate(f" {middle:,.3g}" if middle < 100 else f" {middle:,.0f}", (max(values), place), va="center")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel(table["unit"].replace("_", " "))
    axes.set_title(table["title"])


def lines(axes: Any, growth: Mapping[str, Any]) -> None:
    """Cost over size on logarithmic axes, with the fitted exponent of each series."""
    others = [name for name in growth["series"] if not name.startswith(("minirlhf", "bound"))]
    for name, points in growth["series"].items():
        hue = colour(name, others.index(name) if name in others else 0)
        sizes, costs = zip(*points, strict=True)
        label = f"{name}: exponent {growth['exponents'][name]:.2f}"
        style = "--" if name.startswith("bound") else "-"
        axes.plot(sizes, costs, style, marker="o", color=hue, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.margins(y=0.25)  # room for the legend
    ticks = sorted({size for points in growth["series"].values() for size, _ in points})
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.set_xlabel(growth["size"])
    axes.set_ylabel(growth["cost"])
    axes.set_title(growth["title"])
    axes.legend()


def curve(axes: Any, panel: Mapping[str, Any]) -> None:
    """What happened over time, or over something that doubles ("log"), on plain axes."""
    others = [name for name in panel["series"] if not name.startswith("minirlhf")]
    for name, points in panel["series"].items():
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o", color=colour(name, others.index(name) if name in others else 0), label=name)
    if panel.get("log"):
        axes.set_xscale("log", base=2)
        ticks = sorted({x for points in panel["series"].values() for x, _ in points})
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.set_xlabel(panel["x"])
    axes.set_ylabel(panel["y"])
    axes.set_title(panel["title"])
    axes.legend()
