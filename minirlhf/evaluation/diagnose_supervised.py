"""Checks for the stages that descend a likelihood: pretraining, fine-tuning, and the reward model."""

import math

import numpy as np

from minirlhf.evaluation.findings import ENOUGH_ROWS, Finding, smooth, stretch, surely_changed
from minirlhf.evaluation.metrics_file import Row, Series, series

COIN_TOSS = math.log(2)  # nats per pair of a reward model that knows nothing


def diagnose_likelihood(rows: list[Row]) -> list[Finding | None]:
    """Pretraining and supervised fine-tuning."""
    loss, val_loss = series(rows, "loss_nats_per_token"), series(rows, "val_loss_nats_per_token")
    return [_diverged(loss), _never_moved(rows, loss), _spikes(loss), _still_falling(loss), _over_fits(loss, val_loss)]


def diagnose_reward_model(rows: list[Row]) -> list[Finding | None]:
    """Reward-model training."""
    loss, val_loss = series(rows, "loss_nats_per_pair"), series(rows, "val_loss_nats_per_pair")
    return [
        _diverged(loss),
        _at_chance(rows),
        _learnt_by_heart(rows),
        _over_fits(loss, val_loss),
        _over_confident(rows),
    ]


def _diverged(loss: Series) -> Finding | None:
    if len(loss) < ENOUGH_ROWS:
        return None
    means = smooth(loss).values
    best, end = float(means.min()), float(means[-1])
    gained = max(float(loss.values[0]) - best, 0.0)
    if end - best <= max(0.2 * gained, 0.1, 3 * loss.noise):
        return None
    return Finding(
        "critical",
        "the loss diverges",
        f"it had come down to {best:.3g} and ends at {end:.3g}",
        "the learning rate is too high, or the data changes in the course of the run",
        "lower the learning rate by three to ten times; a longer warm-up helps too",
    )


def _never_moved(rows: list[Row], loss: Series) -> Finding | None:
    if len(loss) < ENOUGH_ROWS or loss.start - loss.end > 0.02 * abs(loss.start):
        return None
    if (loss.values == 0).all():
        cause = "not a single token counts: the loss mask is False everywhere"
        fix = "check that the answers are not cut off behind an over-long prompt, and that the data has answers"
    elif np.all(series(rows, "grad_norm").values < 1e-6):
        cause, fix = "no gradient reaches the weights", "check that no parameter is frozen and the mask is not empty"
    elif _rises_later(loss):
        return None  # it moved, and came back: that is divergence
    else:
        highest = series(rows, "learning_rate").values.max(initial=0.0)
        cause = f"the learning rate is too low (its peak is {highest:.2g}), or the text is unpredictable noise"
        fix = "raise the learning rate by ten times, and read a few lines of the training text"
    return Finding(
        "critical", "the loss never moved", f"{loss.start:.4g} at the start, {loss.end:.4g} at the end", cause, fix
    )


def _rises_later(loss: Series) -> bool:
    means = smooth(loss).values
    return bool(means[-1] - means.min() > max(0.1, 3 * loss.noise))


def _spikes(loss: Series) -> Finding | None:
    if len(loss) < 2 * ENOUGH_ROWS:
        return None
    later = loss.values[len(loss) // 5 :]  # the first fifth falls too fast for a running median
    width = 9
    medians = np.array([np.median(later[max(0, i - width) : i + width + 1]) for i in range(len(later))])
    heights = later - medians
    spikes = int((heights > max(10 * loss.noise, 0.3)).sum())
    if spikes < 3:
        return None
    return Finding(
        "warning",
        "the loss has spikes",
        f"{spikes} rows stand far above their neighbours, the highest by {heights.max():.3g} nats",
        "the learning rate is near the limit of what this model bears, or some batches hold odd data",
        "halve the learning rate; if the spikes stay, look at the data of those steps",
    )


def _still_falling(loss: Series) -> Finding | None:
    if len(loss) < 2 * ENOUGH_ROWS:
        return None
    means = smooth(loss, 9).values
    total, last_third = means[0] - means[-1], means[5] - means[-1]
    # a straight line takes 3/8 of its fall from stretch 5 to the end at 8, a curve that settles next to nothing
    if total <= max(0.02 * abs(means[0]), 4 * loss.noise) or last_third < 0.3 * total:
        return None
    return Finding(
        "hint",
        "the loss is still falling in a straight line",
        f"{last_third / total:.0%} of the whole fall came in the last third",
        "the learning rate is too low, or the run too short",
        "raise the learning rate by about three times, or train for more steps",
    )


def _over_fits(loss: Series, val_loss: Series) -> Finding | None:
    if len(val_loss) < 3 or len(loss) < ENOUGH_ROWS:
        return None
    best = int(val_loss.values.argmin())
    risen = float(val_loss.values[-1] - val_loss.values[best])
    half = max(1, loss.window)
    at_best = min(max(int(np.searchsorted(loss.steps, val_loss.steps[best])), half), len(loss) - half)
    fallen = -surely_changed(
        loss, stretch(loss, at_best - half, at_best + half), stretch(loss, -2 * half, len(loss)), 3.0
    )
    if risen < max(0.02 * val_loss.values[best], 0.02) or fallen <= 0:
        return None
    return Finding(
        "warning",
        "over-fitting",
        f"the held-out loss was best at step {val_loss.steps[best]:.0f} and has risen by {risen:.3g} since, "
        f"while the training loss fell by {fallen:.3g}",
        "the model has begun to learn its training data by heart",
        "stop near that step, use more data, a smaller model, or some dropout",
    )


def _at_chance(rows: list[Row]) -> Finding | None:
    accuracy, val_accuracy = series(rows, "accuracy"), series(rows, "val_accuracy")
    if len(val_accuracy):
        seen, name = float(val_accuracy.values[-1]), "held-out accuracy"
    elif len(accuracy) >= ENOUGH_ROWS:
        seen, name = float(accuracy.values[-len(accuracy) // 4 :].mean()), "accuracy in the last quarter"
    else:
        return None
    if seen >= 0.55:
        return None
    return Finding(
        "critical",
        "the scores are at chance",
        f"the {name} is {seen:.1%}; tossing a coin gives 50 %",
        "too few pairs for a model of this size, a start from random weights, or chosen and rejected do not differ "
        "in anything the model can see (cut off at the context?)",
        "start from a fine-tuned model, use more pairs, read ten of them; do not optimise a policy against this model",
    )


def _learnt_by_heart(rows: list[Row]) -> Finding | None:
    accuracy, val_accuracy = series(rows, "accuracy"), series(rows, "val_accuracy")
    if len(accuracy) < ENOUGH_ROWS or len(val_accuracy) == 0:
        return None
    seen, held_out = float(accuracy.values[-len(accuracy) // 4 :].mean()), float(val_accuracy.values[-1])
    if seen < 0.9 or seen - held_out < 0.15:
        return None
    return Finding(
        "warning",
        "the pairs are learnt by heart",
        f"accuracy {seen:.1%} in training, {held_out:.1%} on held-out pairs",
        "more passes over the pairs than the pairs can bear",
        "train for one epoch, lower the learning rate, or collect more pairs",
    )


def _over_confident(rows: list[Row]) -> Finding | None:
    accuracy, val_loss = series(rows, "val_accuracy"), series(rows, "val_loss_nats_per_pair")
    if len(accuracy) == 0 or len(val_loss) == 0 or accuracy.values[-1] < 0.55 or val_loss.values[-1] <= COIN_TOSS:
        return None
    return Finding(
        "warning",
        "the scores are over-confident",
        f"held-out accuracy {accuracy.values[-1]:.1%}, held-out loss {val_loss.values[-1]:.3g}; a coin's loss is 0.693",
        "its margins grew far beyond what its knowledge bears",
        "train shorter or with a lower learning rate; look at the calibration table",
    )
