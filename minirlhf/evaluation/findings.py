"""The record a diagnosis is made of, and what all checks share."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from minirlhf.evaluation.metrics_file import Series

Severity = Literal["critical", "warning", "hint"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "hint")  # worst first

ENOUGH_ROWS = 20  # below this, beginning and end of a curve cannot be told from its noise


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong: critical (the result is worthless), warning (look at it) or hint (could be better)."""

    severity: Severity
    what: str
    evidence: str
    likely_cause: str
    what_to_do: str

    def __str__(self) -> str:
        return (
            f"{self.severity}: {self.what}\n  seen in:      {self.evidence}\n"
            f"  likely cause: {self.likely_cause}\n  what to do:   {self.what_to_do}"
        )


def smooth(curve: Series, stretches: int = 10) -> Series:
    """Means of equal stretches of the curve, each at its last step."""
    edges = [round(len(curve) * i / stretches) for i in range(stretches + 1)]
    means = [curve.mean_of(first, last) for first, last in pairwise(edges)]
    return Series(curve.steps[[last - 1 for last in edges[1:]]], np.array(means))


def surely_changed(curve: Series, first: Series, second: Series, standard_errors: float = 4.0) -> float:
    """second's mean minus first's, or 0.0 when the curve's own noise could have made the difference."""
    difference = float(second.values.mean() - first.values.mean())
    error = curve.noise * float(np.sqrt(1 / len(first) + 1 / len(second)))
    return difference if abs(difference) > standard_errors * error else 0.0


def stretch(curve: Series, first: int, last: int) -> Series:
    """Rows first..last-1 of a curve."""
    return Series(curve.steps[first:last], curve.values[first:last])
