"""The twist of a05: a schedule with a curved warm-up and a late fall, and an AdamW that is pulled towards its start.

With step k = 0, 1, … of n, and w = warmup:

    warmup, rise      k < w: the rate is peak ((k + 1) / w)^rise
    hold, fall, end   then p = (k - w) / (n - 1 - w): peak up to p = hold, and from there, with
                      q = (p - hold) / (1 - hold), peak (end + (1 - end) (1 - q)^fall)
    beta1, beta2      the decays of the two moments; both are corrected for having started at 0
    ahead             the numerator is (1 - ahead) m_hat + ahead g (Ma and Yarats 2019, arXiv:1810.06801)
    limit             numerator / (√v_hat + 1e-6) is clipped to [-limit, limit], number by number
    pull              then w <- w - lr (that + pull (w - start)), of every shape

Everybody gets all of these, but of ahead and limit only one.
"""

from collections.abc import Iterator

import numpy as np

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("warmup", "rise", "hold", "fall", "end", "beta1", "beta2", "ahead", "limit", "pull")
EPS = 1e-6


def draw(drawn: bytes) -> Twist:
    """More than a million combinations."""
    third, least = ("ahead", 0.2) if drawn[0] % 2 else ("limit", 0.3)
    return {
        "warmup": float(4 + drawn[2] % 5),
        "rise": round(1.5 + 0.1 * (drawn[3] % 11), 1),
        "hold": round(0.2 + 0.02 * (drawn[4] % 16), 2),
        "fall": round(1.5 + 0.1 * (drawn[5] % 16), 1),
        "end": round(0.05 + 0.01 * (drawn[6] % 26), 2),
        "beta1": round(0.7 + 0.01 * (drawn[7] % 21), 2),
        "beta2": round(0.92 + 0.005 * (drawn[8] % 14), 3),
        third: round(least + 0.02 * (drawn[1] % 21), 2),
        "pull": round(0.1 + 0.01 * (drawn[9] % 41), 2),
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    t = {name: f"{value:g}" for name, value in twist.items()}
    steps = [
        f"own_rate: the warm-up takes {t['warmup']} steps. In step k = 0, 1, … of it the rate is "
        f"peak · ((k + 1) / {t['warmup']})^{t['rise']}.",
        f"own_rate: after it let p = (k - {t['warmup']}) / (n - 1 - {t['warmup']}), n being total_steps, so that p is "
        f"1 in the last step. While p ≤ {t['hold']} the rate is the peak.",
        f"own_rate: from there it falls. Let q = (p - {t['hold']}) / (1 - {t['hold']}); the rate is "
        f"peak · ({t['end']} + (1 - {t['end']}) · (1 - q)^{t['fall']}).",
        f"own_step: the moments are AdamW's, m with β1 = {t['beta1']} and v with β2 = {t['beta2']}, and both are "
        "corrected for having started at 0: m̂ and v̂. The step counts from 1.",
    ]
    if "ahead" in twist:
        steps.append(
            f"own_step: the numerator is not m̂ but (1 - {t['ahead']}) · m̂ + {t['ahead']} · g, g being the gradient. "
            f"Divided by √v̂ + 0.000001 it is the move u."
        )
    else:
        steps.append(
            f"own_step: m̂ / (√v̂ + 0.000001), each number of it clipped to [-{t['limit']}, {t['limit']}], is the move u."
        )
    steps.append(
        f"own_step: weights do not decay to 0, but towards where they started: the new weight is "
        f"w - learning_rate · (u + {t['pull']} · (w - start)), for tensors of every shape."
    )
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right."""
    return rates(twist, case) if case.job.target == "own_rate" else step(twist, case)


def rates(twist: Twist, case: Case, from_zero: bool = False, restart: bool = True, last: int = 1) -> Arrays:
    """The rate of every step. The rest are mistakes to recognise: a warm-up that begins at 0, a fall reckoned from the
    end of the warm-up, and one that ends a step late."""
    total, peak = (argument["value"] for argument in case.job.arguments[1:])
    warmup, hold, end = int(twist["warmup"]), twist["hold"], twist["end"]
    k = np.arange(total, dtype=float)
    p = (k - warmup) / (total - last - warmup)
    q = (p - hold) / (1 - hold) if restart else p
    fallen = end + (1 - end) * np.clip(1 - q, 0, None) ** twist["fall"]
    risen = ((k + (not from_zero)).clip(0, warmup) / warmup) ** twist["rise"]
    return {"out": peak * np.where(k < warmup, risen, np.where(p <= hold, 1.0, fallen))}


def step(
    twist: Twist,
    case: Case,
    decayed: str = "apart",
    corrected: tuple[bool, bool] = (True, True),
    target: float = 1.0,
    limited: str = "the move",
) -> Arrays:
    """(weight, first, second). The rest are mistakes to recognise."""
    weight, gradient, start, first, second = case.arrays.values()
    count, rate = (argument["value"] for argument in case.job.arguments[5:])
    beta1, beta2, limit = twist["beta1"], twist["beta2"], twist.get("limit", np.inf)
    away = twist["pull"] * (weight - target * start)
    if decayed == "through the gradient":
        gradient, away = gradient + away, 0.0 * away
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * gradient**2
    m, v = (
        moment / (1 - beta**count) if whether else moment
        for moment, beta, whether in ((first, beta1, corrected[0]), (second, beta2, corrected[1]))
    )
    ahead = twist.get("ahead", 0.0)
    move = ((1 - ahead) * m + ahead * gradient) / (np.sqrt(v) + EPS)
    move = (move + away).clip(-limit, limit) if limited == "with the pull" else move.clip(-limit, limit) + away
    return {"out 0": weight - rate * move, "out 1": first, "out 2": second}


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    if case.job.target == "own_rate":
        yield "the warm-up rose in a straight line", rates(twist | {"rise": 1.0}, case)
        yield "the first step did not move: k + 1 counts, not k", rates(twist, case, from_zero=True)
        yield "the rate never held its peak: it fell from the end of the warm-up", rates(twist | {"hold": 0.0}, case)
        yield "the fall went by p, not by q", rates(twist, case, restart=False)
        yield "the fall were a straight line", rates(twist | {"fall": 1.0}, case)
        yield "the rate fell to 0", rates(twist | {"end": 0.0}, case)
        yield "the last step were step n, not n - 1", rates(twist, case, last=0)
        return
    yield "the weights were pulled to 0, not to where they started", step(twist, case, target=0.0)
    yield "the weights were pushed away from the start's mirror image: it is w - start", step(twist, case, target=-1.0)
    yield "nothing pulled the weights", step(twist | {"pull": 0.0}, case)
    yield "the pull went through the moments; it stands apart", step(twist, case, "through the gradient")
    yield "the two decays changed places", step(twist | {"beta1": twist["beta2"], "beta2": twist["beta1"]}, case)
    yield "m were not corrected for its start", step(twist, case, corrected=(False, True))
    yield "v were not corrected for its start", step(twist, case, corrected=(True, False))
    yield "neither moment were corrected for its start", step(twist, case, corrected=(False, False))
    if "ahead" in twist:
        yield "the numerator were m̂ alone", step(twist | {"ahead": 0.0}, case)
        yield "m̂ and the gradient had changed weights", step(twist | {"ahead": 1 - twist["ahead"]}, case)
    else:
        yield "the move were not clipped", step(twist | {"limit": np.inf}, case)
        yield "the pull were clipped together with the move", step(twist, case, limited="with the pull")


CODE = '''
import math

import torch
from torch import Tensor


def own_rate(step: int, total_steps: int, peak: float) -> float:
    """The learning rate of step 0, 1, ... total_steps - 1. total_steps is larger than the warm-up by ten at least."""
    ...


@torch.no_grad()
def own_step(
    weight: Tensor, gradient: Tensor, start: Tensor, first: Tensor, second: Tensor, step: int, learning_rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The new (weight, first moment, second moment); step counts from 1, this one included.

    All tensors are of one shape; start is the weight before the first step. Nothing is changed in place.
    """
    ...
'''
