"""The parts that every report is put together from: panels of curves, answers over time, a run's settings."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from minirlhf.evaluation import plots
from minirlhf.evaluation.glossary import GLOSSARY
from minirlhf.evaluation.metrics_file import Row, keys_of, series
from minirlhf.evaluation.page import answer, folded, panel, table

# One picture for what belongs together; every other key gets a picture of its own.
TOGETHER = {
    "loss_nats_per_token": "val_loss_nats_per_token",
    "loss_nats_per_pair": "val_loss_nats_per_pair",
    "accuracy": "val_accuracy",
    "kl_nats_per_response": "kl_k3_nats_per_response",
}
NOT_DRAWN = {"step", "seconds"}
SHOWN_STEPS = 12  # of the samples over time; the rest is left out evenly


def metric_panels(name: str, rows: list[Row], keys: Sequence[str] | None = None) -> list[str]:
    """A panel per metric (all, or these), training and held-out values in one picture. name is unique on its page."""
    wanted = [key for key in keys_of(rows) if key not in NOT_DRAWN] if keys is None else list(keys)
    partners = {TOGETHER[key] for key in wanted if key in TOGETHER}
    figures = []
    for key in wanted:
        if key in partners and keys is None:
            continue
        lines = {k: series(rows, k) for k in (key, TOGETHER.get(key, "")) if k}
        lines = {_label(k): line for k, line in lines.items() if len(line)}
        if lines:
            note = GLOSSARY[key].meaning if key in GLOSSARY else ""
            figures.append(panel(key, plots.curves(f"{name} {key}", lines), note))
    return figures


def _label(key: str) -> str:
    """A short name for a line that shares its picture with another."""
    special = {"kl_nats_per_response": "k1", "kl_k3_nats_per_response": "k3"}
    return special.get(key, "held-out" if key.startswith("val_") else "training")


def samples_over_time(samples: Sequence[Mapping[str, Any]]) -> str:
    """A table per prompt: step and what the model answered then. Later prompts are folded away."""
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_prompt.setdefault(str(sample.get("prompt", "")), []).append(sample)
    parts = []
    for prompt, answers in by_prompt.items():
        every = -(-len(answers) // SHOWN_STEPS)  # ceiling: first and last always stay
        kept = answers[::-1][::every][::-1]
        kept = kept if kept[0] is answers[0] else [answers[0], *kept]
        cells = [
            (f'<span class="number">{row.get("step", "")}</span>', answer(str(row.get("response", "")))) for row in kept
        ]
        parts.append((prompt, table(("step", "answer"), cells, "samples")))
    shown = [f'<h3 class="answer">{escape(prompt)}</h3>{cells}' for prompt, cells in parts[:2]]
    return "\n".join([*shown, *(folded(prompt, cells) for prompt, cells in parts[2:])])


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The whole rows of samples.jsonl; nothing when there is none. Half a row at the end is left out."""
    path = folder / "samples.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, or nothing: a report is drawn without it too."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of names and JSON values, for a table."""
    result: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False)
    return result
