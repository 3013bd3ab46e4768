"""Reading a run's metrics.jsonl, and the few robust statistics that diagnosis and plots share."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minirlhf.errors import UserError

Row = dict[str, float]


@dataclass(frozen=True)
class Series:
    """One metric over time: the steps at which it was logged and its values, both [N]."""

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def window(self) -> int:
        """How many rows "the beginning" and "the end" are: a tenth of the run, at least three."""
        return max(1, min(len(self) // 2, max(3, len(self) // 10)))

    @property
    def start(self) -> float:
        """Median of the first rows."""
        return float(np.median(self.values[: self.window]))

    @property
    def end(self) -> float:
        """Median of the last rows."""
        return float(np.median(self.values[-self.window :]))

    @property
    def noise(self) -> float:
        """Standard deviation of one row around the trend, from differences of neighbours (a slow trend cancels)."""
        if len(self) < 3:
            return 0.0
        # the median absolute difference of neighbours is 0.6745·sqrt(2) standard deviations of normal noise
        return float(np.median(np.abs(np.diff(self.values)))) / (0.6745 * math.sqrt(2))

    def mean_of(self, first: int, last: int) -> float:
        """Mean of the rows first..last-1."""
        return float(self.values[first:last].mean())


def read_metrics(run_folder: Path | str) -> list[Row]:
    """The rows of `run_folder`/metrics.jsonl (or of the file itself), in order.

    A last line without its line end is what a killed run leaves behind and is dropped if it is not whole.
    null becomes NaN. Raises UserError with file:line for anything else that is not a row of numbers.
    """
    path = Path(run_folder)
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            "there are no metrics to read",
            where=str(path),
            found="no such file",
            expected="the folder a training command wrote with --out",
            fix="give the run's folder, the one that holds metrics.jsonl",
        )
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        half_written_is_possible = number == len(lines)
        if line.strip():
            try:
                rows.append(_row(line, f"{path}:{number}"))
            except UserError:
                if not half_written_is_possible:
                    raise
    if not rows:
        raise UserError(
            "the run has not logged a single step",
            where=str(path),
            found="no whole row",
            expected="one JSON object per line",
            fix="let the run go on for at least one step, then try again",
        )
    return rows


def _row(line: bytes, where: str) -> Row:
    fix = "repair or delete the line"
    try:
        row = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        shown = line[:60].decode("utf-8", errors="replace")
        raise UserError("a line is not JSON", where=where, found=f"{shown!r} ({error})", fix=fix) from None
    if not isinstance(row, dict) or "step" not in row:
        shown = line[:60].decode("utf-8")
        raise UserError("a line is not a metrics row", where=where, found=shown, expected='{"step": …, …}', fix=fix)
    for key, value in row.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(
                "a metric is not a number",
                where=f'{where}, field "{key}"',
                found=repr(value),
                expected="a number",
                fix=fix,
            )
    return {key: math.nan if value is None else float(value) for key, value in row.items()}


def series(rows: list[Row], key: str) -> Series:
    """The finite values of one key; rows without it are skipped, so evaluations may come rarely."""
    pairs = [(row["step"], row[key]) for row in rows if key in row and math.isfinite(row[key])]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return Series(table[:, 0], table[:, 1])


def keys_of(rows: list[Row]) -> list[str]:
    """Every key that occurs, in the order of first appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))
