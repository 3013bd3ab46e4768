"""The twist of a03: two of three changes to attention, and their numbers.

With match M = q kᵀ / √K and softmax weights W, in NumPy and differentiated by hand:

    cap      M becomes c tanh(M / c)           slope 1 - tanh²(M / c)
    slope    M[t, s] of head h loses m / 2^h for every token between t and s       a constant, so no gradient
    sink     W[t, s] = exp M[t, s] / (exp z + Σ exp M[t, ·]): some attention goes nowhere.   dM = W (dW - Σ dW W)
             still, because the weight that goes nowhere meets a value of 0

in this order.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("cap", "slope", "sink")
PAIRS = (("cap", "slope"), ("cap", "sink"), ("slope", "sink"))


def draw(drawn: bytes) -> Twist:
    """3 pairs of changes, 900 pairs of numbers each or more."""
    numbers = {
        "cap": round(1.1 + 0.1 * (drawn[1] % 40), 1),
        "slope": round(0.05 + 0.02 * (drawn[2] % 30), 2),
        "sink": round(-1.5 + 0.1 * (drawn[3] % 31), 1),
    }
    return {name: numbers[name] for name in PAIRS[drawn[0] % 3]}


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change, in the order of the changes."""
    steps = ["Start from the match of eager_attend, q kᵀ / √K, [B H T S]."]
    if "cap" in twist:
        steps.append(f"Soft cap: a match m becomes {twist['cap']:g} · tanh(m / {twist['cap']:g}).")
    if "slope" in twist:
        steps.append(
            f"Distance slope: head h (0, 1, …) takes {twist['slope']:g} / 2^h off a match for every step between the "
            "token that asks and the token looked at. The T tokens that ask are the last T of the S."
        )
    if "sink" in twist:
        steps.append(
            f"Sink: the softmax has one more place with the match {twist['sink']:g}, which is always visible and whose "
            "value is 0. So the weights of the S tokens sum to less than 1."
        )
    steps.append("What is not visible gets weight 0; a row that sees nothing gives zeros, and its gradients are zeros.")
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What twisted_attend has to return, and its gradients."""
    return attend(twist, case.arrays)


def attend(twist: Twist, arrays: Arrays, order: str = "cap first") -> Arrays:
    """`out` and the gradients of q, k and v, for q [B H T K], k and v [B G S K], visible [B 1 T S], dout like out.

    order: "cap last" is a mistake to recognise, the cap put on after the slope.
    """
    q, k, v, dout = (arrays[name] for name in ("q", "k", "v", "dout"))
    group, root = q.shape[1] // k.shape[1], np.sqrt(q.shape[-1])
    wide_k, wide_v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)  # [B H S K]
    match = q @ wide_k.swapaxes(-1, -2) / root  # [B H T S]
    bias = distance_bias(twist.get("slope", 0.0), match.shape)
    bent, through = soft_cap(match + (bias if order == "cap last" else 0.0), twist.get("cap"))
    weights = sink_softmax(
        np.where(arrays["visible"], bent + (0.0 if order == "cap last" else bias), -np.inf), twist.get("sink")
    )
    dweights = dout @ wide_v.swapaxes(-1, -2)
    dmatch = weights * (dweights - (dweights * weights).sum(-1, keepdims=True)) * through / root
    shape = (k.shape[0], k.shape[1], group, *k.shape[2:])
    return {
        "out": weights @ wide_v,
        "gradient of q": dmatch @ wide_k,
        "gradient of k": (dmatch.swapaxes(-1, -2) @ q).reshape(shape).sum(2),
        "gradient of v": (weights.swapaxes(-1, -2) @ dout).reshape(shape).sum(2),
    }


def soft_cap(match: Any, cap: float | None) -> tuple[Any, Any]:
    """(capped, its slope), [B H T S] each."""
    if cap is None:
        return match, np.ones_like(match)
    bent = np.tanh(match / cap)
    return cap * bent, 1 - bent**2


def distance_bias(slope: float, shape: tuple[int, ...]) -> Any:
    """[H T S]: minus slope / 2^h for every token in between."""
    heads, tokens, seen = shape[1:]
    steps = np.abs(np.arange(seen - tokens, seen)[:, None] - np.arange(seen))  # [T S]
    return -slope * 0.5 ** np.arange(heads)[:, None, None] * steps


def sink_softmax(match: Any, sink: float | None) -> Any:
    """[B H T S]: rows sum to 1, to less with a sink, to 0 where everything is -inf."""
    place = np.full((*match.shape[:-1], 1), -np.inf if sink is None else sink)
    largest = np.maximum(match.max(-1, keepdims=True), place)
    with np.errstate(invalid="ignore"):
        size = np.exp(match - np.where(np.isfinite(largest), largest, 0.0))
        total = size.sum(-1, keepdims=True) + np.exp(place - np.where(np.isfinite(largest), largest, 0.0))
    return size / np.where(total > 0, total, 1.0)


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with a twist."""
    arrays = case.arrays
    forgotten: Mapping[str, str] = {
        "cap": "the matches were not capped", "slope": "the distance cost nothing", "sink": "the sink were missing"
    }  # fmt: skip
    for name in twist:
        yield forgotten[name], attend({other: value for other, value in twist.items() if other != name}, arrays)
    if "slope" in twist:
        yield "distance were rewarded, not charged", attend(twist | {"slope": -twist["slope"]}, arrays)
        if "cap" in twist:
            yield "the cap came after the slope", attend(twist, arrays, order="cap last")
    root = np.sqrt(arrays["q"].shape[-1])
    scaled = attend(twist, arrays | {"q": arrays["q"] * root})
    yield "the matches were not divided by the square root of the head width", {
        **scaled, "gradient of q": scaled["gradient of q"] * root
    }  # fmt: skip
    yield "the twist were forgotten: this is plain attention", attend({}, arrays)


CODE = '''
import torch
from torch import Tensor

from minirlhf.nn.attention import per_group


def twisted_attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Attention with the changes above. q [B H T K], k and v [B G S K], visible bool [B 1 T S] -> [B H T K]."""
    ...
'''
