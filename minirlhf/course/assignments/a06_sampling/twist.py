"""The twist of a06: tokens that were said lately are charged for, and a cut that looks at the likeliest token.

With d = 1, 2, … the distance of a token of the text from its end, p the probabilities and p_max the largest:

    window, charge, fade   a token's logit falls by charge · fade^(d-1) for each of its places among the last `window`
    most                   but by no more than this in all
    share, power           a token stays if p >= share · p_max^power, so the likeliest does
                           (min-p, Nguyen et al. 2024, arXiv:2407.01082, has power 1)
    warmth                 the temperature, of what has stayed: it has no say in the cut

Everybody gets all but most and power, and one of these two.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("window", "charge", "fade", "share", "warmth", "most", "power")


def draw(drawn: bytes) -> Twist:
    """More than a million combinations. most lies between one charge and two."""
    charge = round(0.5 + 0.05 * (drawn[1] % 31), 2)
    third = (
        ("power", round(1.5 + 0.05 * (drawn[5] % 21), 2))
        if drawn[0] % 2
        else ("most", round(charge * (1.1 + 0.02 * (drawn[5] % 11)), 3))
    )
    return {
        "window": float(3 + drawn[6] % 4),
        "charge": charge,
        "fade": round(0.5 + 0.02 * (drawn[2] % 16), 2),
        "share": round(0.06 + 0.005 * (drawn[3] % 25), 3),
        "warmth": round(1.5 + 0.05 * (drawn[4] % 31), 2),
        third[0]: third[1],
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    bound = (
        f" However often a token stands there, its logit falls by no more than {twist['most']:g} in all."
        if "most" in twist
        else " A token that stands there several times is charged for every time."
    )
    line = f"{twist['share']:g} · " + (f"p_max^{twist['power']:g}" if "power" in twist else "p_max")
    return [
        "twisted_charge: ids [B T] is the text so far, the newest token last. The logit of a token falls by "
        f"{twist['charge']:g} · {twist['fade']:g}^(d-1) for each of its places among the newest {twist['window']:g} of "
        "its row, where d is 1 for the newest place of all, 2 for the one before, and so on. Of a shorter text all "
        "places count. Other logits stay as they are." + bound,
        "twisted_log_probs: the cut looks at p = softmax(logits), at temperature 1, and at the largest p of the row, "
        f"p_max. Tokens with p < {line} are cut off.",
        f"twisted_log_probs: what has stayed is drawn from at temperature {twist['warmth']:g}. The temperature has no "
        "say in the cut. Return the log-probabilities of what is drawn from, and -inf where a token was cut off.",
    ]


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right."""
    return (charged if case.job.target == "twisted_charge" else log_probs)(twist, case)


def charged(
    twist: Twist, case: Case, late: int = 0, from_the_oldest: bool = False, once: bool = False, sign: int = 1
) -> Arrays:
    """The logits [B V] after the charge. The other arguments: mistakes to recognise."""
    logits, ids = case.arrays["logits"].copy(), case.arrays["ids"]
    for row, text in zip(logits, ids, strict=True):
        counted = text[-int(twist["window"]) :]
        owed = np.zeros_like(row)
        for place, token in enumerate(counted):
            distance = place + 1 if from_the_oldest else len(counted) - place
            owed[token] = twist["charge"] * twist["fade"] ** (distance - 1 + late) + (0 if once else owed[token])
        row -= sign * np.minimum(owed, twist.get("most", np.inf))
    return {"out": logits}


def log_probs(twist: Twist, case: Case, absolute: bool = False, warm: bool = False) -> Arrays:
    """[B V]. absolute: the share is held against 1; warm: the cut is made at the temperature."""
    logits = case.arrays["logits"]
    p = softmax(logits / twist["warmth"] if warm else logits)
    line = twist["share"] * (1.0 if absolute else p.max(-1, keepdims=True) ** twist.get("power", 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):  # with a mistake in it, it may cut off a whole row
        return {"out": np.log(softmax(np.where(p >= line, logits, -np.inf) / twist["warmth"]))}


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    if case.job.target == "twisted_charge":
        yield "logits rose where they should fall", charged(twist, case, sign=-1)
        yield "the whole text were charged for, not its newest places", charged(twist | {"window": 1000.0}, case)
        yield "the charge did not fade", charged(twist | {"fade": 1.0}, case)
        yield "the newest place were faded once already; d is 1 there", charged(twist, case, late=1)
        yield "d counted from the oldest place that is charged for", charged(twist, case, from_the_oldest=True)
        yield "a token were charged for once, however often it stands there", charged(twist, case, once=True)
        if "most" in twist:
            yield "the charge had no bound", charged(without["most"], case)
    else:
        yield "the share were held against 1, not against the likeliest token", log_probs(twist, case, absolute=True)
        yield "the temperature had a say in the cut", log_probs(twist, case, warm=True)
        yield "what has stayed were drawn from at temperature 1", log_probs(twist | {"warmth": 1.0}, case)
        yield "nothing were cut off", log_probs(twist | {"share": 0.0}, case)
        if "power" in twist:
            yield "p_max stood there without its power", log_probs(without["power"], case)


CODE = '''
import torch
from torch import Tensor


def twisted_charge(logits: Tensor, ids: Tensor) -> Tensor:
    """logits float [B V] after the charge for ids int64 [B T], as above; a new tensor [B V]."""
    ...


def twisted_log_probs(logits: Tensor) -> Tensor:
    """The distribution that is drawn from, as above: logits [B V] -> log-probabilities in nats [B V]."""
    ...
'''
