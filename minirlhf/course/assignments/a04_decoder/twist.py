"""The twist of a04: a decoder's parts as nobody has built them, drawn for each student. Its independent reference.

NumPy, with the gradients derived by hand.

    power    the mean of |x|^p for the mean square · m = mean(|x|^p) + eps, s = m^(1/p), out = (x / s) (gain + weight)
             ∂s/∂x_i = s / (m D) · |x_i|^(p-1) sign(x_i)
    gain     what a weight of 0 stands for
    keep     the share of the stream that stays · keep x + …
    mix      attention and MLP side by side · out = keep x + mix A(N(x)) + (1 - mix) F(M(x))
             where none is drawn, one after the other · h = keep x + A(N(x)), out = keep h + F(M(h))
    window   how far a token looks back, in tokens    sinks    how many of the first it sees from everywhere
             (Xiao et al. 2023, arXiv:2309.17453, see the first tokens as sinks of attention)

The layers of the block are those of the play: N(x) = x first, A(n) = look n mixing, M(x) = sin(x) second,
F(n) = tanh(n inner). Everybody gets all numbers but mix, and mix with a chance of one half.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("power", "gain", "keep", "mix", "window", "sinks")
Floats = NDArray[np.float64]


def draw(drawn: bytes) -> Twist:
    """More than a million combinations. mix is never near one half, where both shares are the same."""
    power = round(1.3 + 0.05 * (drawn[1] % 9) + (drawn[1] // 9 % 2) * 1.3, 2)  # 1.3 to 1.7, or 2.6 to 3
    mixed = {"mix": round(0.2 + 0.02 * (drawn[4] % 11) + (drawn[5] % 2) * 0.4, 2)} if drawn[0] % 2 else {}
    return {
        "power": power,
        "gain": round(0.5 + 0.05 * (drawn[2] % 9) + (drawn[2] // 9 % 2) * 0.6, 2),  # never 1
        "keep": round(0.5 + 0.02 * (drawn[3] % 21), 2),
        **mixed,
        "window": float(2 + drawn[6] % 3),
        "sinks": float(1 + drawn[7] % 2),
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    power, gain, keep, window, sinks = (f"{twist[name]:g}" for name in ("power", "gain", "keep", "window", "sinks"))
    steps = [
        f"twisted_norm: as RMSNorm, x / √(mean(x²) + eps), but with {power} for both twos: x is divided by "
        f"(mean(|x|^{power}) + eps)^(1/{power}), the mean over the last axis.",
        f"twisted_norm: the result is multiplied by {gain} + weight, not by weight.",
    ]
    if "mix" in twist:
        mix, rest = f"{twist['mix']:g}", f"(1 - {twist['mix']:g})"
        steps.append(
            "twisted_block: attention and MLP stand side by side, and both read x: the block returns "
            f"{keep} · x + {mix} · attention(attention_norm(x)) + {rest} · mlp(mlp_norm(x))."
        )
    else:
        steps.append(
            f"twisted_block: as exercise 4.9, without dropout, but before either addition the stream is multiplied by "
            f"{keep}: h = {keep} · x + attention(attention_norm(x)), and the block returns "
            f"{keep} · h + mlp(mlp_norm(h))."
        )
    steps += [
        "twisted_visible: the place of a column is the number of real tokens before it, in its row. The last T columns "
        "are the tokens that ask. Who asks in column i sees column j if all of this holds: j is real; j ≤ i; and the "
        f"place of i minus the place of j is less than {window}, or the place of j is less than {sinks}.",
    ]
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right, and the gradients."""
    if case.job.target == "twisted_visible":
        return visible(twist, case)
    return (norm if case.job.target == "twisted_norm" else block)(twist, case)


def norm(twist: Twist, case: Case, root: float = 0.0) -> Arrays:
    """`out` [B T D], the gradients of x and weight. root: 1 over the root taken, if it is not power: a mistake."""
    arrays: dict[str, Any] = case.arrays
    x, dout, eps, power = arrays["x"], arrays["dout"], case.job.arguments[2]["value"], twist["power"]
    root = root or 1 / power
    m = (np.abs(x) ** power).mean(-1, keepdims=True) + eps  # [B T 1]
    s, gain = m**root, twist.get("gain", 0.0) + arrays["weight"]
    dy = dout * gain
    ds = -(dy * x).sum(-1, keepdims=True) / s**2  # [B T 1]
    slope = root * s / m * power * np.abs(x) ** (power - 1) * np.sign(x) / x.shape[-1]
    return {
        "out": x / s * gain,
        "gradient of x": dy / s + ds * slope,
        "gradient of weight": (dout * x / s).sum((0, 1)),
    }


def block(twist: Twist, case: Case, second_keep: bool = True, aside: bool | None = None) -> Arrays:
    """`out` and the gradients of x, first and second, backwards through the play's four layers.

    Mistakes to recognise: the stream kept whole at the second addition; aside, whether the MLP reads x.
    """
    arrays: dict[str, Any] = case.arrays
    x, first, second, dout = (arrays[name] for name in ("x", "first", "second", "dout"))
    keep, beside = twist.get("keep", 1.0), "mix" in twist
    to_attention, to_mlp = (twist["mix"], 1 - twist["mix"]) if beside else (1.0, 1.0)
    reads_x = beside if aside is None else aside
    keep_again = 1.0 if beside or not second_keep else keep
    h = keep * x + to_attention * (arrays["look"] @ (x * first) @ arrays["mixing"])
    read = x if reads_x else h
    bent = np.tanh(np.sin(read) * second @ arrays["inner"])
    out = keep_again * h + to_mlp * bent
    dn = to_mlp * dout * (1 - bent**2) @ arrays["inner"].T  # at the MLP's input
    dread = dn * second * np.cos(read)
    dh = keep_again * dout + (0.0 if reads_x else dread)
    da = to_attention * (arrays["look"].T @ dh @ arrays["mixing"].T)  # at attention's input
    return {
        "out": out,
        "gradient of x": keep * dh + da * first + (dread if reads_x else 0.0),
        "gradient of first": (da * x).sum((0, 1)),
        "gradient of second": (dn * np.sin(read)).sum((0, 1)),
    }


def visible(twist: Twist, case: Case, by_column: bool = False, further: int = 0) -> Arrays:
    """`out` bool [B 1 T S], column by column. by_column and further: mistakes to recognise."""
    tokens, seen = (each["value"] for each in case.job.arguments[:2])
    mask: NDArray[np.bool_] = case.arrays["attention_mask"]
    out = np.zeros((len(mask), 1, tokens, seen + tokens), dtype=bool)
    for b, row in enumerate(mask):
        place = [j if by_column else int(row[:j].sum()) for j in range(len(row))]
        for i in range(seen, seen + tokens):
            for j in range(i + 1):
                near = place[i] - place[j] < twist.get("window", np.inf) + further
                out[b, 0, i - seen, j] = row[j] and (near or place[j] < twist.get("sinks", 0))
    return {"out": out}


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    if case.job.target == "twisted_norm":
        yield "this were the RMS norm: the power is 2", norm(twist | {"power": 2.0}, case)
        yield "a square root were taken of the mean, whatever the power", norm(twist, case, root=0.5)
        yield "the mean's root were not taken", norm(twist, case, root=1.0)
        yield "the result were multiplied by the weight alone", norm(without["gain"], case)
    elif case.job.target == "twisted_block":
        yield "the stream were kept whole", block(without["keep"], case)
        if "mix" in twist:
            yield "the shares of attention and MLP changed places", block(twist | {"mix": 1 - twist["mix"]}, case)
            yield "the MLP read what attention had added", block(twist, case, aside=False)
        else:
            yield "the stream were kept whole at the second addition", block(twist, case, second_keep=False)
            yield "the MLP read x, without what attention adds", block(twist, case, aside=True)
    else:
        yield "there were no window: everything before is seen", visible(without["window"], case)
        yield "the first tokens were not seen from everywhere", visible(without["sinks"], case)
        yield "the window were one token longer", visible(twist, case, further=1)
        yield "padding took up places", visible(twist, case, by_column=True)


CODE = '''
from collections.abc import Callable

import torch
from torch import Tensor

Layer = Callable[[Tensor], Tensor]
"""[B T D] -> [B T D]."""


def twisted_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [... D], weight [D] -> [... D], with the changes above."""
    ...


def twisted_block(x: Tensor, attention_norm: Layer, attention: Layer, mlp_norm: Layer, mlp: Layer) -> Tensor:
    """The block with the changes above, [B T D] -> [B T D], of layers that are handed in."""
    ...


def twisted_visible(tokens: int, seen: int, attention_mask: Tensor) -> Tensor:
    """Who may look at whom. attention_mask bool [B S], True on real tokens, S = seen + tokens -> bool [B 1 T S]."""
    ...
'''
