"""The quickstart over several seeds, held to its bars.

    python benchmarks/quickstart.py --seeds 0 1 2 3 4 --out runs/seeds     run and print the table
    python benchmarks/quickstart.py --check runs/quickstart                check a finished run

Each seed runs in a process of its own, one after the other. The table goes to --out/table.md, the numbers with the
bars they were held to into benchmarks/results/quickstart.json when --record is given.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Summary = dict[str, Any]

# name, how it is read from a summary, the direction, the bar
BARS: tuple[tuple[str, Callable[[Summary], float], str, float], ...] = (
    ("total seconds", lambda s: s["seconds"]["total"], "<=", 300.0),
    ("peak memory, MiB", lambda s: s["peak_rss_mib"], "<=", 2048.0),
    (
        "true reward: low end of PPO's 95 % interval minus high end of SFT's",
        lambda s: s["true_reward"]["ppo"]["interval_95"][0] - s["true_reward"]["sft"]["interval_95"][1],
        ">=",
        0.0,
    ),
    ("win rate against SFT", lambda s: s["win_rate_ppo_vs_sft"]["mean"], ">=", 0.75),
    ("held-out prompts", lambda s: s["win_rate_ppo_vs_sft"]["n"], ">=", 200),
    (
        "reward model: best possible accuracy minus its accuracy",
        lambda s: s["reward_model"]["best_possible_accuracy"] - s["reward_model"]["accuracy"],
        "<=",
        0.05,
    ),
    ("EOS rate of PPO", lambda s: s["eos_rate"]["ppo"], ">=", 0.95),
    ("EOS rate of SFT", lambda s: s["eos_rate"]["sft"], ">=", 0.95),
    ("distinct-2 of PPO over that of SFT", lambda s: s["distinct_2"]["ppo"] / s["distinct_2"]["sft"], ">=", 0.8),
)


def held(value: float, sense: str, target: float) -> bool:
    """Is the value on the right side of its bar?"""
    return value <= target if sense == "<=" else value >= target


def check(summary: Summary, with_time: bool) -> bool:
    """Prints every bar with its figure; False if one is missed. The seconds of a shared machine may be left out."""
    good = True
    for name, read, sense, target in BARS:
        value = read(summary)
        passed = held(value, sense, target)
        counts = with_time or name != "total seconds"
        good = good and (passed or not counts)
        note = "" if counts else ", noted only"
        print(f"{'ok  ' if passed else 'MISS'} {name}: {value:.3f} (bar {sense} {target:g}{note})")
    return good


def table(summaries: list[Summary]) -> str:
    """The seeds side by side as a Markdown table."""
    head = "| | bar | " + " | ".join(f"seed {summary['seed']}" for summary in summaries) + " |"
    lines = [head, "|---|---|" + "---|" * len(summaries)]
    for name, read, sense, target in BARS:
        cells = [
            f"{read(summary):.3g}" + ("" if held(read(summary), sense, target) else " **missed**")
            for summary in summaries
        ]
        lines.append(f"| {name} | {sense} {target:g} | " + " | ".join(cells) + " |")
    for name in ("base", "sft", "ppo"):
        cells = [f"{summary['true_reward'][name]['mean']:.2f}" for summary in summaries]
        lines.append(f"| true reward, {name} | | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def record(summaries: list[Summary]) -> None:
    """Writes benchmarks/results/quickstart.json: the figures of every seed, and each bar with its worst seed."""
    from benchmarks.suite import Bar, Table, options, write

    keys = ("seed", "seconds", "parameters", "true_reward", "win_rate_ppo_vs_sft", "eos_rate", "distinct_2")
    runs = [
        {key: summary[key] for key in keys}
        | {"total_seconds": summary["seconds"]["total"], "peak_rss_mib": summary["peak_rss_mib"]}
        for summary in summaries
    ]
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    bars = []
    for name, read, sense, target in BARS:
        worst = (max if sense == "<=" else min)(read(summary) for summary in summaries)
        bars.append(Bar(f"{name}, worst seed", worst, sense, target))
    table = Table(f"minirlhf quickstart, seeds {seeds}", "total_seconds", {"minirlhf": runs})
    write("quickstart", "The whole road", options("").parse_args([]), [table], bars)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--check", type=Path, help="a finished quickstart folder; nothing is run")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/quickstart.json")
    arguments = parser.parse_args()
    if arguments.check:
        summary = json.loads((arguments.check / "summary.json").read_text(encoding="utf-8"))
        return 0 if check(summary, with_time=False) else 1
    summaries = []
    for seed in arguments.seeds:
        folder = arguments.out / f"seed-{seed}"
        command = [sys.executable, "-m", "minirlhf", "quickstart", "--seed", str(seed), "--out", str(folder), "--quiet"]
        subprocess.run([*command, "--overwrite"], check=True)
        summaries.append(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    (arguments.out / "table.md").write_text(table(summaries), encoding="utf-8")
    print(table(summaries))
    if arguments.record:
        record(summaries)
    results = [check(summary, with_time=True) for summary in summaries]  # print them all, then judge
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
