"""The twist of a11: Rényi's divergence the other way round, and an estimator of KL(reference || policy).

With p the policy and q the reference, read at temperature `heat`, in NumPy:

    order    D = log(Σ q^order p^(1 - order)) / (order - 1), which for order 1 would be KL(q || p) (Rényi 1961)
    heat     q = softmax(ref_logits / heat), while p stays at temperature 1
    skew     q becomes (1 - skew) q + skew p (Lee 2001, "On the effectiveness of the skew divergence")
    control  with r = q / p at a token drawn from p, r log r - control (r - 1) estimates KL(q || p) without bias
    cap      r is at most this

Everybody gets order, heat and control, and one of skew and cap. With S the sum, the slope of D in p(v) is
(1 - order) q^order p^-order / ((order - 1) S), and skew times order q^(order - 1) p^(1 - order) / ((order - 1) S) more
through the mixture; in logits z, dz = p (dp - Σ p dp). Of the estimator it is r (control - 1 - log r) in log p.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("order", "heat", "skew", "control", "cap")


def draw(drawn: bytes) -> Twist:
    """More than 100,000 combinations. Neither order nor control is near 1, nor order 1/2, where they would not show."""
    third = (
        ("skew", round(0.1 + 0.02 * (drawn[4] % 16), 2))
        if drawn[0] % 2
        else ("cap", round(1.6 + 0.05 * (drawn[4] % 29), 2))
    )
    return {
        "order": round((0.56 + 0.01 * (drawn[1] % 26)) if drawn[1] % 2 else (1.3 + 0.05 * (drawn[1] % 25)), 2),
        "heat": round(1.3 + 0.05 * (drawn[2] % 25), 2),
        "control": round((0.3 + 0.02 * (drawn[3] % 26)) if drawn[3] % 2 else (1.2 + 0.02 * (drawn[3] % 31)), 2),
        third[0]: third[1],
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    order, heat, control = (twist[name] for name in ("order", "heat", "control"))
    steps = [
        "twisted_divergence: the policy's probabilities are p = softmax(logits), over the vocabulary; the reference is "
        f"read at a temperature of its own: q = softmax(ref_logits / {heat:g})."
    ]
    if "skew" in twist:
        steps.append(
            f"twisted_divergence: some of the policy is mixed into the reference: q becomes "
            f"(1 - {twist['skew']:g}) · q + {twist['skew']:g} · p. The gradient goes through this p as well."
        )
    steps += [
        f"twisted_divergence: the result is Rényi's divergence of order {order:g}, the other way round, from the "
        f"reference to the policy: log(Σ_v q_v^{order:g} · p_v^(1 - {order:g})) / ({order:g} - 1), a number for each "
        "position.",
        "twisted_divergence: a token whose logit is -inf in both is forbidden: it adds 0 to the sum, and its logit's "
        "gradient is 0, not NaN.",
        "twisted_estimate: now only the tokens that the policy drew are known. With the ratio r = e^(ref_log_probs - "
        "log_probs), reference over policy, r · log r has the mean KL(reference || policy), and r - 1 has the mean 0.",
    ]
    if "cap" in twist:
        steps.append(
            f"twisted_estimate: where r is larger than {twist['cap']:g}, {twist['cap']:g} takes its place everywhere "
            "below, and the token has no gradient. (That costs the unbiasedness.)"
        )
    steps += [
        f"twisted_estimate: a token's estimate is r · log r - {control:g} · (r - 1). They are summed over each "
        "answer's tokens, and the result is the mean over the answers.",
        "What stands off response_mask is junk, and reaches neither a value nor a gradient.",
    ]
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right, and the gradient of the policy's logits or log-probs."""
    return (divergence if case.job.target == "twisted_divergence" else estimate)(twist, case)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    found: NDArray[np.float64] = weights / weights.sum(-1, keepdims=True)
    return found


def divergence(
    twist: Twist,
    case: Case,
    heat: float = 1.0,
    policy_first: bool = False,
    scale: float = 0.0,
    through: bool = True,
    shares_change: bool = False,
) -> Arrays:
    """[B T] and the gradient of logits.

    Mistakes to know: the policy hot too, p and q exchanged, another factor than 1 / (order - 1), a mixture that does
    not learn, its shares exchanged.
    """
    arrays: dict[str, Any] = case.arrays
    order, skew = twist["order"], twist.get("skew", 0.0)
    kept, mixed = (skew, 1 - skew) if shares_change else (1 - skew, skew)
    p, q = softmax(arrays["logits"] / heat), softmax(arrays["ref_logits"] / twist["heat"])
    allowed = p > 0
    q = np.where(allowed, kept * q + mixed * p, 1.0)
    p = np.where(allowed, p, 1.0)  # a power of 0 could be infinite
    first, second = (p, q) if policy_first else (q, p)
    terms = np.where(allowed, first**order * second ** (1 - order), 0.0)
    total = terms.sum(-1, keepdims=True)
    factor = scale or 1 / (order - 1)
    by_first, by_second = (
        factor * power * terms / each / total for power, each in ((order, first), (1 - order, second))
    )
    by_p, by_q = (by_first, by_second) if policy_first else (by_second, by_first)
    slopes = by_p + (mixed * by_q if through else 0.0)
    p = np.where(allowed, p, 0.0)
    moved = p * (slopes - (p * slopes).sum(-1, keepdims=True)) / heat
    return {"out": factor * np.log(total[..., 0]), "gradient of logits": moved * arrays["dout"][..., None]}


def estimate(
    twist: Twist, case: Case, upside_down: bool = False, by_answer: bool = True, all_tokens: bool = False
) -> Arrays:
    """A number and the gradient of log_probs. Mistakes to know: r upside down, a mean for the sum, one over all."""
    arrays: dict[str, Any] = case.arrays
    mask, control = arrays["response_mask"], twist.get("control", 0.0)
    logs = np.where(mask, arrays["ref_log_probs"], 0.0) - np.where(mask, arrays["log_probs"], 0.0)
    side = -1.0 if upside_down else 1.0
    ratio = np.exp(side * logs)
    capped = ratio > twist.get("cap", np.inf)
    ratio = np.where(capped, twist.get("cap", 1.0), ratio)
    each = ratio * np.log(ratio) - control * (ratio - 1)
    slope = np.where(capped, 0.0, side * ratio * (control - 1 - np.log(ratio)))
    count: Any = mask.sum() if all_tokens else len(mask) * (1 if by_answer else mask.sum(1, keepdims=True))
    weights = mask / count
    return {
        "out": np.array((each * weights).sum()),
        "gradient of log_probs": slope * weights * arrays["dout"],
    }


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    order, control = twist["order"], twist["control"]
    if case.job.target == "twisted_divergence":
        yield "p and q changed places: the order is the exponent of the reference", divergence(
            twist, case, policy_first=True
        )  # fmt: skip
        yield "the reference were read at temperature 1", divergence(twist | {"heat": 1.0}, case)
        yield "the reference's logits were multiplied by the temperature", divergence(
            twist | {"heat": 1 / twist["heat"]}, case
        )  # fmt: skip
        yield "the policy were read at the reference's temperature too", divergence(twist, case, heat=twist["heat"])
        yield "the logarithm were not divided by the order less 1", divergence(twist, case, scale=1.0)
        yield "the sign were turned round: it is order - 1 below the line", divergence(
            twist, case, scale=1 / (1 - order)
        )  # fmt: skip
        if "skew" in twist:
            yield "nothing of the policy were mixed into the reference", divergence(without["skew"], case)
            yield "the two shares of the mixture changed places", divergence(twist, case, shares_change=True)
            yield "the policy's part of the mixture did not learn", divergence(twist, case, through=False)
    else:
        yield "the ratio were upside down: it is reference over policy", estimate(twist, case, upside_down=True)
        yield "r - 1 were missing", estimate(without["control"], case)
        yield "r - 1 were added, not taken off", estimate(twist | {"control": -control}, case)
        yield "r - 1 counted in full", estimate(twist | {"control": 1.0}, case)
        yield "an answer's tokens were averaged, not summed", estimate(twist, case, by_answer=False)
        yield "one mean were taken over all tokens", estimate(twist, case, all_tokens=True)
        if "cap" in twist:
            yield "nothing held the ratio", estimate(without["cap"], case)


CODE = '''
import torch
from torch import Tensor

from minirlhf.objectives.likelihood import log_probs_of
from minirlhf.objectives.masked import masked_sum


def twisted_divergence(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """The divergence above, nats for each position: two of float [... V] -> [...]. Its gradient reaches logits."""
    ...


def twisted_estimate(log_probs: Tensor, ref_log_probs: Tensor, response_mask: Tensor) -> Tensor:
    """The estimate above, mean nats per answer, a scalar, of float [B R] twice and bool [B R], True then False."""
    ...
'''
