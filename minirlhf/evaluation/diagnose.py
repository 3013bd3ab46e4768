"""`diagnose(run_folder)`: what is wrong with a run, how one sees it, the likely cause, and what to do.

Each check reads the rows of metrics.jsonl and returns a Finding or nothing. A check stays silent when its
metric is absent or the run is too short to tell, and it compares against the noise of the curve itself, so a
healthy but bumpy run has no findings.
"""

import json
import math
from pathlib import Path

from minirlhf.evaluation.diagnose_policy import diagnose_policy
from minirlhf.evaluation.diagnose_supervised import diagnose_likelihood, diagnose_reward_model
from minirlhf.evaluation.findings import ENOUGH_ROWS, SEVERITIES, Finding
from minirlhf.evaluation.metrics_file import Row, keys_of, read_metrics, series

# no value while all returns are equal, or when the targets spell no byte; that is no fault
MAY_BE_UNDEFINED = {"explained_variance", "val_bits_per_byte"}


def diagnose(run_folder: Path | str) -> list[Finding]:
    """The findings of a run of any stage, worst first; an empty list means nothing looked wrong.

    Raises UserError when metrics.jsonl is missing or corrupt.
    """
    folder = Path(run_folder)
    findings = [
        *diagnose_rows(read_metrics(folder), _rounds_coarsely(folder)),
        *_length_bias(folder / "evaluation.json"),
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def diagnose_rows(rows: list[Row], bfloat16: bool = False) -> list[Finding]:
    """The same for rows already read. The stage is recognised by what was logged. bfloat16: the run's --precision."""
    keys = keys_of(rows)
    if "score_mean" in keys:
        findings = diagnose_policy(rows, bfloat16)
    elif "loss_nats_per_pair" in keys:
        findings = diagnose_reward_model(rows)
    else:
        findings = diagnose_likelihood(rows)
    found = [finding for finding in (_not_a_number(rows), _gradient_blow_up(rows), *findings) if finding is not None]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _rounds_coarsely(folder: Path) -> bool:
    """Did the run compute in bfloat16? No, where its config.json does not say so."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return bool(config["settings"]["stage"]["run"]["precision"] == "bfloat16")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _length_bias(path: Path) -> list[Finding]:
    """Reads the alarm that a reward model's evaluation raised; silent when there is no evaluation."""
    try:
        length = json.loads(path.read_text(encoding="utf-8")).get("length") or {}
    except (OSError, ValueError, AttributeError):
        return []
    if not length.get("length_bias"):
        return []
    return [
        Finding(
            "warning",
            "length bias",
            f"the longer answer was chosen in {length['labels_prefer_longer']['mean']:.1%} of held-out pairs, "
            f"the scores expect it in {length['model_prefers_longer']:.1%}",
            "in the training pairs the longer answer won more often than quality explains",
            "balance the training pairs by length, and watch response_tokens_mean when a policy climbs this score",
        )
    ]


def _not_a_number(rows: list[Row]) -> Finding | None:
    for row in rows:
        for key, value in row.items():
            if not math.isfinite(value) and key not in MAY_BE_UNDEFINED:
                return Finding(
                    "critical",
                    "a metric is not a number",
                    f"{key} is {value} at step {row['step']:.0f}",
                    "the run diverged: a learning rate too high, or numbers outside the range of the data type",
                    "go back to a checkpoint before this step and lower the learning rate by three to ten times",
                )
    return None


def _gradient_blow_up(rows: list[Row]) -> Finding | None:
    norms = series(rows, "grad_norm")
    if len(norms) < ENOUGH_ROWS or norms.start <= 0 or norms.end < 20 * norms.start:
        return None
    return Finding(
        "critical",
        "the gradients blow up",
        f"grad_norm went from {norms.start:.3g} to {norms.end:.3g}",
        "the learning rate is too high for this model",
        "lower the learning rate by three to ten times, and keep max_grad_norm at 1",
    )
