"""Where the road's time went: the seconds of every stage, and inside PPO those of writing, scoring and learning."""

from collections.abc import Mapping, Sequence

from minirlhf.evaluation.metrics_file import Row
from minirlhf.reports import plots
from minirlhf.reports.page import panel, panels
from minirlhf.reports.story import Summary, seconds

STRETCHES = {
    "generation": "writing answers",
    "scoring": "scoring them",
    "update": "learning from them",
    "rest": "everything else",
}


def seconds_within(rows: Sequence[Row], stage_seconds: float) -> dict[str, float]:
    """A policy stage's seconds by stretch, from its metrics; "rest" is what they leave of the stage: loading, metrics,
    probe samples, checkpoints, its report. Empty for rows that do not tell."""
    if not rows or any(f"{name}_seconds" not in row for name in STRETCHES if name != "rest" for row in rows):
        return {}
    spent = {name: sum(row[f"{name}_seconds"] for row in rows) for name in STRETCHES if name != "rest"}
    return spent | {"rest": max(0.0, stage_seconds - sum(spent.values()))}


def where_time_went(summary: Summary) -> list[str]:
    """Lying bars of the summary's "seconds", and beside them those of "ppo_seconds" where they are known."""
    stages = {name: spent for name, spent in summary["seconds"].items() if name != "total"}
    figures = [_figure("The stages", "seconds by stage", stages, plots.LINES[0])]
    text = f"The whole road took {seconds(summary['seconds']['total'])}."
    within = summary.get("ppo_seconds")
    if within:
        named = {STRETCHES.get(name, name): spent for name, spent in within.items()}
        figures.append(_figure("Inside PPO", "seconds of ppo", named, plots.LINES[1]))
        longest = max(named, key=named.__getitem__)
        text += f" Inside PPO, {longest} took longest, {_share(named)[longest]:.0%} of its time."
    return ["<h2>Where the time went</h2>", f"<p>{text}</p>", panels(figures, "pair")]


def _figure(caption: str, name: str, spent: Mapping[str, float], colour: str) -> str:
    shares = _share(spent)
    bars = {label: (value, f"{seconds(value)}, {shares[label]:.0%}") for label, value in spent.items()}
    return panel(caption, plots.labelled_bars(name, bars, "seconds", colour))


def _share(spent: Mapping[str, float]) -> dict[str, float]:
    total = sum(spent.values()) or 1.0
    return {name: value / total for name, value in spent.items()}
