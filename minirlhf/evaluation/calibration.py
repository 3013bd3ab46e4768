"""What a reward model's scores are worth: accuracy, calibration, margins, and whether it just counts words.

All functions take the scores of the chosen and the rejected answer of each pair, [N] each.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from minirlhf.evaluation.statistics import Estimate, mean_interval, share

LENGTH_EXCESS_ALARM = 0.05  # an excess below five points is not worth a person's attention even when it is real


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs whose confidence lies in [low, high): mean confidence, share that was right, how many."""

    low: float
    high: float
    predicted: float
    observed: float
    count: int


@dataclass(frozen=True)
class LengthReport:
    """Does "longer wins" explain the model's choices beyond what it explains of the labels?

    pairs                  pairs whose answers differ in length; all shares are over these
    labels_prefer_longer   share of pairs whose chosen answer is the longer one
    model_prefers_longer   mean probability the model gives to the longer answer
    excess                 model minus labels, paired, with interval; a calibrated model has 0
    spearman               rank correlation of score difference and length difference, first answer minus second
    label_correlation      point-biserial correlation of label and length difference, the same orientation
    length_bias            the alarm: the excess is surely positive and at least LENGTH_EXCESS_ALARM
    """

    pairs: int
    labels_prefer_longer: Estimate | None
    model_prefers_longer: float | None
    excess: Estimate | None
    spearman: float
    label_correlation: float
    length_bias: bool


@dataclass(frozen=True)
class PreferenceReport:
    """Everything the report shows of a reward model on held-out pairs. Margins are chosen minus rejected score."""

    accuracy: Estimate
    loss_nats_per_pair: float
    margin_mean: float
    calibration_error: float
    calibration: tuple[CalibrationBin, ...]
    margin_edges: tuple[float, ...]
    margin_counts: tuple[int, ...]
    length: LengthReport | None

    def as_dict(self) -> dict[str, object]:
        """Plain JSON; accuracy becomes "accuracy", "interval_95" and "n" side by side."""
        plain = asdict(self)
        plain |= {"accuracy": self.accuracy.mean, "interval_95": list(self.accuracy.interval_95), "n": self.accuracy.n}
        return plain


def evaluate_preferences(
    chosen_scores: Sequence[float] | np.ndarray,
    rejected_scores: Sequence[float] | np.ndarray,
    chosen_lengths: Sequence[int] | np.ndarray | None = None,
    rejected_lengths: Sequence[int] | np.ndarray | None = None,
    bins: int = 5,
) -> PreferenceReport:
    """The report of N pairs. Equal scores count as half right. Lengths in any unit, the same for both.

    Raises ValueError when there is no pair, arrays differ in length, or a score is not finite.
    """
    margins = np.asarray(chosen_scores, dtype=np.float64) - np.asarray(rejected_scores, dtype=np.float64)  # [N]
    if margins.ndim != 1 or len(margins) == 0 or not np.isfinite(margins).all():
        raise ValueError(f"need finite scores [N] with N >= 1, got shape {margins.shape}")
    right = float((margins > 0).sum() + 0.5 * (margins == 0).sum())
    table = calibration_table(margins, bins)
    counts, edges = np.histogram(margins, bins=min(30, max(5, len(margins) // 10)))
    length = None
    if chosen_lengths is not None and rejected_lengths is not None:
        length = length_report(margins, np.asarray(chosen_lengths) - np.asarray(rejected_lengths))
    return PreferenceReport(
        accuracy=share(right, len(margins)),
        loss_nats_per_pair=float(np.logaddexp(0.0, -margins).mean()),  # -log sigmoid(margin)
        margin_mean=float(margins.mean()),
        calibration_error=calibration_error(table),
        calibration=table,
        margin_edges=tuple(float(edge) for edge in edges),
        margin_counts=tuple(int(count) for count in counts),
        length=length,
    )


def calibration_table(margins: np.ndarray, bins: int = 5) -> tuple[CalibrationBin, ...]:
    """Equal-width bins of confidence in [0.5, 1], empty ones left out. margins [N] = chosen - rejected.

    The confidence of a pair is sigmoid(|margin|), the probability Bradley-Terry gives to the answer the model
    likes better; it was right when the margin is positive, half right when it is zero.
    """
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = (margins > 0) + 0.5 * (margins == 0)
    index = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)  # a confidence of 1 goes into the last
    return tuple(
        CalibrationBin(
            low=0.5 + 0.5 * b / bins,
            high=0.5 + 0.5 * (b + 1) / bins,
            predicted=float(confidence[index == b].mean()),
            observed=float(right[index == b].mean()),
            count=int((index == b).sum()),
        )
        for b in range(bins)
        if (index == b).any()
    )


def calibration_error(table: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: mean over pairs of |observed - predicted| of their bin. Guo et al. 2017, eq. 3."""
    total = sum(row.count for row in table)
    return sum(row.count * abs(row.observed - row.predicted) for row in table) / total


def length_report(margins: np.ndarray, length_differences: np.ndarray) -> LengthReport:
    """margins and length_differences [N], chosen minus rejected.

    The model's probability that the longer answer wins is compared with how often it did win, pair by pair.
    Probabilities, not choices: labels are noisy, and a perfect model that chooses the better answer every time
    would otherwise look more decided about length than the labels are. Raises ValueError if shapes differ.
    """
    if margins.shape != length_differences.shape:
        raise ValueError(f"margins {margins.shape} and length differences {length_differences.shape} must match")
    # Every pair is seen in both orders; with "chosen" always first the label would be constant.
    both_margins = np.concatenate([margins, -margins])
    both_lengths = np.concatenate([length_differences, -length_differences]).astype(np.float64)
    labels = np.concatenate([np.ones_like(margins), np.zeros_like(margins)])
    spearman = _correlation(_ranks(both_margins), _ranks(both_lengths))
    label_correlation = _correlation(labels, both_lengths)

    differ = length_differences != 0
    if differ.sum() < 2:
        return LengthReport(int(differ.sum()), None, None, None, spearman, label_correlation, False)
    chosen_is_longer = length_differences[differ] > 0
    towards_longer = np.where(chosen_is_longer, margins[differ], -margins[differ])
    probability_longer = np.exp(-np.logaddexp(0.0, -towards_longer))
    excess = mean_interval(probability_longer - chosen_is_longer)
    return LengthReport(
        pairs=int(differ.sum()),
        labels_prefer_longer=share(int(chosen_is_longer.sum()), int(differ.sum())),
        model_prefers_longer=float(probability_longer.mean()),
        excess=excess,
        spearman=spearman,
        label_correlation=label_correlation,
        length_bias=excess.interval_95[0] > 0 and excess.mean >= LENGTH_EXCESS_ALARM,
    )


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return (last - (counts - 1) / 2)[inverse]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation; 0.0 when one side is constant and the question has no answer."""
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0
