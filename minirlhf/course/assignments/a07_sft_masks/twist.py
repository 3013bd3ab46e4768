"""The twist of a07: how much each token of a conversation counts, and a loss that is never quite sure.

A turn is a run of Trues in a row of the loss mask. Its tokens weigh

    share           1 / n^share, n the number of its tokens: 0 is the mean over tokens, 1 the mean over turns
    opening         its first token `opening` times as much
    fade            turn k = 0, 1, … of the row fade^k as much
    recent          or the last turn 1, the one before it `recent`, the one before that its square

and with p = softmax(z), V tokens in the vocabulary and y the right one, a token's loss is

    smooth          -(1 - smooth) log p_y - smooth / V Σ log p       (label smoothing: Szegedy et al. 2016)
    warm            p = softmax(z / warm)
    settle          or the loss has settle · (log Σ e^z)² added      (de Brebisson and Vincent 2016)

averaged with the weights w. The gradient of z is w / Σ w · ((p - (1 - smooth) 1[y] - smooth / V) / warm + 2 settle l p)
with l = log Σ e^z.

Everybody gets share, opening, smooth, one of fade and recent, and one of warm and settle.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("share", "opening", "fade", "recent", "smooth", "warm", "settle")


def draw(drawn: bytes) -> Twist:
    """More than a million combinations."""
    turns = ("fade", "recent")[drawn[0] % 2]
    third = (
        {"warm": round(1.3 + 0.1 * (drawn[5] % 18), 1)}
        if drawn[0] // 2 % 2
        else {"settle": round(0.05 + 0.01 * (drawn[5] % 26), 2)}
    )
    return {
        "share": round(0.2 + 0.02 * (drawn[1] % 31), 2),
        "opening": round(1.5 + 0.1 * (drawn[2] % 26), 1),
        turns: round(0.4 + 0.02 * (drawn[3] % 23), 2),
        "smooth": round(0.08 + 0.01 * (drawn[4] % 25), 2),
        **third,
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    steps = [
        "twisted_weights: a turn is a run of neighbouring Trues in a row of loss_mask, as long as it goes; between two "
        "turns there is at least one False. Where loss_mask is False the weight is 0. Where it is True, begin with 1.",
        f"twisted_weights: every weight of a turn with n tokens is divided by n^{twist['share']:g}.",
        f"twisted_weights: that of the first token of every turn is multiplied by {twist['opening']:g}.",
        f"twisted_weights: the turns of a row are numbered from the first, k = 0, 1, …; all weights of turn k are "
        f"multiplied by {twist['fade']:g}^k."
        if "fade" in twist
        else "twisted_weights: the turns of a row are numbered from the last, which is 0, backwards; all weights of "
        f"turn k are multiplied by {twist['recent']:g}^k.",
        f"twisted_loss: with p = softmax(logits{' / ' + format(twist['warm'], 'g') if 'warm' in twist else ''}) of one "
        f"place and V tokens in the vocabulary, its loss is (1 - {twist['smooth']:g}) times -log p of the target, plus "
        f"{twist['smooth']:g} times the mean of -log p over all V tokens, the target among them.",
    ]
    if "settle" in twist:
        steps.append(
            f"twisted_loss: to the loss of a place {twist['settle']:g} · (log Σ exp(logits))² is added, the sum over V."
        )
    steps.append(
        "twisted_loss: all together it is Σ weight · loss / Σ weight. Where the weight is 0 the logits are junk, the "
        "target is -100, and both reach neither a value nor a gradient."
    )
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right, and the gradient of the logits."""
    return (weights if case.job.target == "twisted_weights" else loss)(twist, case)


def weights(twist: Twist, case: Case, first: bool = True, batch: bool = False) -> Arrays:
    """[B T]. Mistakes to recognise: the last token of a turn for the first, turns numbered through the batch."""
    mask = case.arrays["loss_mask"]
    found = np.zeros(mask.shape)
    before = 0
    for row, out in zip(mask, found, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(int), [0]))))
        turns = list(zip(edges[::2], edges[1::2], strict=True))
        for k, (begin, end) in enumerate(turns):
            power = k + before if "fade" in twist else len(turns) - 1 - k
            size = twist.get("fade", twist.get("recent", 1.0)) ** power / (end - begin) ** twist.get("share", 0.0)
            out[begin:end] = size
            out[begin if first else end - 1] = size * twist.get("opening", 1.0)
        before += len(turns) if batch else 0
    return {"out": found}


def loss(twist: Twist, case: Case, count: bool = False, power: int = 2) -> Arrays:
    """The loss and its gradient. Mistakes to recognise: the sum over the number of places, another power than 2."""
    arrays: dict[str, Any] = case.arrays
    smooth, warm, settle = (
        twist.get(name, otherwise) for name, otherwise in (("smooth", 0), ("warm", 1), ("settle", 0))
    )
    there = arrays["weights"] > 0
    w, z, y = (arrays[name][there] for name in ("weights", "logits", "targets"))  # [N], [N V], [N]
    whole = there.sum() if count else w.sum()
    log_p, total = log_softmax(z / warm)
    right = np.eye(z.shape[1])[y] * (1 - smooth) + smooth / z.shape[1]
    each = -(right * log_p).sum(1) + settle * total**power
    slope = (np.exp(log_p) - right) / warm + (settle * power * total ** (power - 1))[:, None] * np.exp(log_p)
    gradient = np.zeros_like(arrays["logits"])
    gradient[there] = arrays["dout"] * (w / whole)[:, None] * slope
    return {"out": np.array((w * each).sum() / whole), "gradient of logits": gradient}


def log_softmax(z: Any) -> tuple[Any, Any]:
    """(log softmax(z) [N V], log Σ e^z [N])."""
    top = z.max(axis=1, keepdims=True)
    total = top + np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    return z - total, total[:, 0]


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    if case.job.target == "twisted_weights":
        yield "the length of a turn did not matter", weights(without["share"], case)
        yield "the weights were divided by n, not by a power of it", weights(twist | {"share": 1.0}, case)
        yield "the first token of a turn weighed as much as the others", weights(without["opening"], case)
        yield "the last token of a turn was meant, not the first", weights(twist, case, first=False)
        name, other = ("fade", "recent") if "fade" in twist else ("recent", "fade")
        yield "all turns weighed alike", weights(without[name], case)
        yield "the turns were numbered from the other end", weights(without[name] | {other: twist[name]}, case)
        if name == "fade":
            yield "the turns were numbered through the whole batch; every row begins with 0", weights(
                twist, case, batch=True
            )  # fmt: skip
    else:
        width = case.arrays["logits"].shape[2]
        yield "nothing was smoothed", loss(without["smooth"], case)
        yield "the other tokens shared what is smoothed; the target gets its part too", loss(
            twist | {"smooth": twist["smooth"] * width / (width - 1)}, case
        )  # fmt: skip
        yield (
            "the sum was divided by the number of places, not by the sum of the weights",
            loss(twist, case, count=True),
        )
        if "warm" in twist:
            yield "the logits were not divided", loss(without["warm"], case)
            yield "the logits were multiplied, not divided", loss(twist | {"warm": 1 / twist["warm"]}, case)
        else:
            yield "the square of log Σ exp(logits) is missing", loss(without["settle"], case)
            yield "log Σ exp(logits) was not squared", loss(twist, case, power=1)


CODE = '''
import torch
from torch import Tensor


def twisted_weights(loss_mask: Tensor) -> Tensor:
    """How much each place counts: bool [B T] -> float64 [B T]."""
    ...


def twisted_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """A scalar. logits [B T V]; targets int64 [B T]; weights [B T], 0 where nothing counts; gradients reach logits."""
    ...
'''
