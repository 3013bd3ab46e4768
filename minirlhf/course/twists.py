"""Twists: a part of an assignment whose answer stands nowhere in the package, drawn per student from a secret.

HMAC-SHA256(secret, student, assignment) picks which two of three changes to attention a student gets, and their
numbers. The change, in NumPy and differentiated by hand, with match M = q kᵀ / √K and softmax weights W:

    cap      M becomes c tanh(M / c)           slope 1 - tanh²(M / c)
    slope    M[t, s] of head h loses m / 2^h for every token between t and s       a constant, so no gradient
    sink     W[t, s] = exp M[t, s] / (exp z + Σ exp M[t, ·]): some attention goes nowhere.   dM = W (dW - Σ dW W)
             still, because the weight that goes nowhere meets a value of 0

in this order. Deferred: the text a student reads says so in words, `words`.
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from minirlhf.course.jobs import Arrays

PAIRS = (("cap", "slope"), ("cap", "sink"), ("slope", "sink"))


@dataclass(frozen=True)
class Twist:
    """The drawn numbers; None is a change this student does not get."""

    cap: float | None = None
    slope: float | None = None
    sink: float | None = None


def key(secret: bytes, student: str, assignment: str, purpose: str) -> bytes:
    """32 bytes that only the holder of the secret can reckon."""
    return hmac.new(secret, "\0".join((student, assignment, purpose)).encode("utf-8"), hashlib.sha256).digest()


def seed_of(secret: bytes, student: str, assignment: str, purpose: str) -> int:
    return int.from_bytes(key(secret, student, assignment, purpose)[:8], "little")


def draw_twist(secret: bytes, student: str, assignment: str) -> Twist:
    """This student's twist: 3 pairs of changes, 900 pairs of numbers each or more."""
    drawn = key(secret, student, assignment, "twist")
    numbers = {
        "cap": round(1.1 + 0.1 * (drawn[1] % 40), 1),
        "slope": round(0.05 + 0.02 * (drawn[2] % 30), 2),
        "sink": round(-1.5 + 0.1 * (drawn[3] % 31), 1),
    }
    return Twist(**{name: numbers[name] for name in PAIRS[drawn[0] % 3]})


def as_dict(twist: Twist) -> dict[str, float]:
    return {name: value for name, value in asdict(twist).items() if value is not None}


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change, in the order of the changes."""
    steps = ["Start from the match of eager_attend, q kᵀ / √K, [B H T S]."]
    if twist.cap is not None:
        steps.append(f"Soft cap: a match m becomes {twist.cap:g} · tanh(m / {twist.cap:g}).")
    if twist.slope is not None:
        steps.append(
            f"Distance slope: head h (0, 1, …) takes {twist.slope:g} / 2^h off a match for every step between the "
            "token that asks and the token looked at. The T tokens that ask are the last T of the S."
        )
    if twist.sink is not None:
        steps.append(
            f"Sink: the softmax has one more place with the match {twist.sink:g}, which is always visible and whose "
            "value is 0. So the weights of the S tokens sum to less than 1."
        )
    steps.append("What is not visible gets weight 0; a row that sees nothing gives zeros, and its gradients are zeros.")
    return steps


def attend(twist: Twist, arrays: Arrays, order: str = "cap first") -> Arrays:
    """`out` and the gradients of q, k and v, for q [B H T K], k and v [B G S K], visible [B 1 T S], dout like out.

    order: "cap last" is a mistake to recognise, the cap put on after the slope.
    """
    q, k, v, dout = (arrays[name] for name in ("q", "k", "v", "dout"))
    group, root = q.shape[1] // k.shape[1], np.sqrt(q.shape[-1])
    wide_k, wide_v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)  # [B H S K]
    match = q @ wide_k.swapaxes(-1, -2) / root  # [B H T S]
    bias = distance_bias(twist.slope or 0.0, match.shape)
    bent, through = soft_cap(match + (bias if order == "cap last" else 0.0), twist.cap)
    weights = sink_softmax(
        np.where(arrays["visible"], bent + (0.0 if order == "cap last" else bias), -np.inf), twist.sink
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


def mistaken(twist: Twist, arrays: Arrays) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with a twist."""
    changes: Mapping[str, tuple[str, dict[str, Any]]] = {
        "cap": ("the matches were not capped", {"cap": None}),
        "slope": ("the distance cost nothing", {"slope": None}),
        "sink": ("the sink were missing", {"sink": None}),
    }
    for name in as_dict(twist):
        what, change = changes[name]
        yield what, attend(replace(twist, **change), arrays)
    if twist.slope is not None:
        yield "distance were rewarded, not charged", attend(replace(twist, slope=-twist.slope), arrays)
        if twist.cap is not None:
            yield "the cap came after the slope", attend(twist, arrays, order="cap last")
    root = np.sqrt(arrays["q"].shape[-1])
    scaled = attend(twist, arrays | {"q": arrays["q"] * root})
    yield "the matches were not divided by the square root of the head width", {
        **scaled, "gradient of q": scaled["gradient of q"] * root
    }  # fmt: skip
    yield "the twist were forgotten: this is plain attention", attend(Twist(), arrays)


SKELETON = '''"""Exercise {number}: {title}. This variant is yours alone.

{words}
"""

import torch
from torch import Tensor

from minirlhf.nn.attention import per_group


def twisted_attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Attention with the changes above. q [B H T K], k and v [B G S K], visible bool [B 1 T S] -> [B H T K]."""
    raise NotImplementedError("{message}")
'''


def skeleton(twist: Twist, number: str, title: str, message: str) -> str:
    """The student's twist.py."""
    import textwrap

    steps = "\n".join(
        textwrap.fill(f"{i}. {step}", 112, subsequent_indent="   ") for i, step in enumerate(words(twist), start=1)
    )
    return SKELETON.format(number=number, title=title, words=steps, message=message)
