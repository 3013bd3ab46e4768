"""The tables of benchmarks/README.md, made from the JSON files in benchmarks/results: python -m benchmarks.table"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import draw
from benchmarks.suite import RESULTS

README = RESULTS.parent / "README.md"
BEGIN = "<!-- made by `python -m benchmarks.table` from results/*.json; do not edit below -->"
ORDER = ("train", "generate", "trainers", "time_to_reward", "bpe", "attention", "gpt2")  # the rest follows by name


def number(value: float) -> str:
    """Three digits that count, never fewer than the whole number's."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Median and, when there was more than one round, lowest and highest."""
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{number(min(values))}–{number(max(values))}]"


def runs_table(table: Mapping[str, Any]) -> list[str]:
    """A Markdown table of one set of jobs: the figure, how many times it the first job's is, memory."""
    unit, first = table["unit"], next(iter(table["runs"]))
    several = len(table["runs"]) > 1
    head = [table["title"], unit.replace("_", " "), *([f"{first} is"] if several else []), "peak RSS, MiB"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, runs in table["runs"].items():
        cells = [name, spread([run[unit] for run in runs])]
        if several:
            ratio = statistics.median(a[unit] / b[unit] for a, b in zip(table["runs"][first], runs, strict=False))
            cells.append("" if name == first else f"{ratio:.2f} ×")
        cells.append(spread([run["peak_rss_mib"] for run in runs]) if "peak_rss_mib" in runs[0] else "")
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def bars_table(bars: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was held to a bar."""
    signs = {">=": "≥", "<=": "≤"}
    lines = ["| held to | bar | measured | |", "|---|---|---|---|"]
    for bar in bars:
        held = bar["value"] <= bar["target"] if bar["sense"] == "<=" else bar["value"] >= bar["target"]
        word = "held" if held else "**missed**"
        lines.append(f"| {bar['name']} | {signs[bar['sense']]} {bar['target']:g} | {number(bar['value'])} | {word} |")
    return [*lines, ""]


def growth_table(growth: Mapping[str, Any]) -> list[str]:
    """A size a column, a series a row, and the exponent that fits."""
    sizes = sorted({size for points in growth["series"].values() for size, _ in points})
    head = [f"{size:,g}" for size in sizes]
    lines = [f"| {growth['title']}: {growth['cost']} | " + " | ".join(head) + f" | ∝ ({growth['size']})^ |"]
    lines.append("|---" * (len(sizes) + 2) + "|")
    for name, points in growth["series"].items():
        costs = dict(map(tuple, points))
        cells = [number(costs[size]) if size in costs else "" for size in sizes]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {growth['exponents'][name]:.2f} |")
    return [*lines, ""]


def described(content: Mapping[str, Any]) -> str:
    """When, where and with which versions."""
    machine = content["machine"]
    if not isinstance(machine, str):
        parts = [f"{machine['cores']} cores of {machine['cpu']}"]
        parts += [
            f"{machine[key]} {unit}" for key, unit in (("memory_gib", "GiB"), ("threads", "threads")) if key in machine
        ]
        parts += [machine[key] for key in ("gpu", "cpu_capability") if key in machine]
        machine = ", ".join([*parts, f"Python {machine['python']}"])
    versions = ", ".join(f"{name} {version}" for name, version in content.get("versions", {}).items())
    return f"{content['date'][:10]}; {machine}" + (f"; {versions}." if versions else ".")


def section(content: Mapping[str, Any], drawings: Sequence[str]) -> str:
    """One idea: its tables, what it was held to, its growth and its figures."""
    lines = [f"## {content['title']}", "", f"`python -m benchmarks.{content['idea']}` on {described(content)}", ""]
    for table in content.get("tables", ()):
        lines += runs_table(table)
    if content.get("bars"):
        lines += bars_table(content["bars"])
    for growth in content.get("growth", ()):
        lines += growth_table(growth)
    lines += [f"- {note}" for note in content.get("notes", ())] + ([""] if content.get("notes") else [])
    lines += [f"![{name}](results/{name})" for name in drawings]
    return "\n".join(lines).rstrip() + "\n"


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The result files that follow the suite's form, in the order of the README."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    found = [content for content in found if "idea" in content]
    place = {name: number for number, name in enumerate(ORDER)}
    return sorted(found, key=lambda content: (place.get(content["idea"], len(place)), content["idea"]))


def generated(folder: Path = RESULTS) -> str:
    """Everything below the marker in the README."""
    sections = []
    for content in results(folder):
        drawings = [
            name for name in (f"{content['idea']}.svg", f"{content['idea']}_growth.svg") if (folder / name).exists()
        ]
        sections.append(section(content, drawings))
    return "\n".join(sections)


def main() -> None:
    for content in results():
        draw({"tables": [], "growth": [], **content}, RESULTS)
    kept = README.read_text(encoding="utf-8").split(BEGIN)[0]
    README.write_text(f"{kept}{BEGIN}\n\n{generated()}", encoding="utf-8")
    print(f"written to {README}")


if __name__ == "__main__":
    main()
