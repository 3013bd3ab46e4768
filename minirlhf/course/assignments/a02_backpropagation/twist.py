"""The twist of a02: an activation that is nobody else's, and a loss with soft targets and a z-loss on the outputs.

    leak, bend   f(z) = leak z + (1 - leak) log(1 + exp(bend z)) / bend          smooth
    leak, top    f(z) = top tanh(z / top) where z > 0, leak z elsewhere          with a kink at 0
    smooth       the target is (1 - smooth) onehot + smooth / C over the C classes (Szegedy et al. 2016,
                 arXiv:1512.00567, section 7)
    calm         to each row's loss comes calm (log Σ exp y)²

Everybody gets leak, smooth and calm, and one of bend and top. Gradients, with σ the logistic function:

    f'(z) = leak + (1 - leak) σ(bend z)          1 - tanh²(z / top), or leak
    dy    = (softmax(y) - target + 2 calm (log Σ exp y) softmax(y)) / N
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("leak", "bend", "top", "smooth", "calm")
Floats = NDArray[np.float64]


def draw(drawn: bytes) -> Twist:
    """Some 700,000 combinations."""
    third = (
        ("bend", round(1.5 + 0.1 * (drawn[2] % 26), 1))
        if drawn[0] % 2
        else ("top", round(0.5 + 0.1 * (drawn[2] % 16), 1))
    )
    return {
        "leak": round(0.05 + 0.01 * (drawn[1] % 31), 2),
        third[0]: third[1],
        "smooth": round(0.1 + 0.01 * (drawn[3] % 21), 2),
        "calm": round(0.05 + 0.01 * (drawn[4] % 31), 2),
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    leak = f"{twist['leak']:g}"
    if "bend" in twist:
        bend = f"{twist['bend']:g}"
        shape = (
            f"f(z) = {leak} · z + (1 - {leak}) · log(1 + exp({bend} · z)) / {bend}, where log is the natural logarithm."
        )
    else:
        top = f"{twist['top']:g}"
        shape = f"f(z) = {top} · tanh(z / {top}) where z > 0, and f(z) = {leak} · z elsewhere."
    return [
        f"own_activation: the activation is {shape} Return f(z), and the gradient at z from the gradient dout of f(z).",
        "own_network: the network is that of exercise 2.6, with your activation in the place of the ReLU: "
        "y = f(x W₁ᵀ + b₁) W₂ᵀ + b₂.",
        f"own_network: the loss of a row is -Σ_c t_c log p_c with p = softmax(y) and a soft target t: each of the C "
        f"classes gets {twist['smooth']:g} / C, and the true one 1 - {twist['smooth']:g} on top of that.",
        f"own_network: to the loss of a row comes {twist['calm']:g} · (log Σ_c exp y_c)², to keep the outputs calm.",
        "own_network: the loss is the mean over the N rows; return it and the gradients of all but the targets, in the "
        "order of the arguments.",
    ]


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right."""
    if case.job.target == "own_activation":
        return activation(twist, case)
    return network(twist, case.arrays)


def value_and_slope(twist: Twist, z: Floats) -> tuple[Floats, Floats]:
    """f(z) and f'(z)."""
    leak = twist["leak"]
    if "bend" in twist:
        bent = twist["bend"] * z
        value = leak * z + (1 - leak) * np.logaddexp(0, bent) / twist["bend"]
        return value, leak + (1 - leak) / (1 + np.exp(-bent))
    t = np.tanh(z / twist["top"])
    return np.where(z > 0, twist["top"] * t, leak * z), np.where(z > 0, 1 - t**2, leak)


def activation(twist: Twist, case: Case, slope_of: Twist | None = None, factor: float = 1.0) -> Arrays:
    """(h, dz). slope_of and factor: mistakes to recognise, another twist's slope and one that is multiplied."""
    z, dout = case.arrays["z"], case.arrays["dout"]
    return {
        "out 0": value_and_slope(twist, z)[0],
        "out 1": dout * value_and_slope(slope_of or twist, z)[1] * factor,
    }


def network(twist: Twist, arrays: Arrays, **slip: Any) -> Arrays:
    """(loss, gradients), example by example and neuron by neuron in sums that NumPy's einsum writes out.

    slip, mistakes to recognise: others=True shares `smooth` among the wrong classes alone, calm_gradient replaces the
    2 calm of the gradient, rows=1 sums the gradients instead of averaging them, gate=False leaves the slope out.
    """
    x, w_hidden, b_hidden, w_out, b_out, targets = arrays.values()
    z = np.einsum("ni,hi->nh", x, w_hidden) + b_hidden
    h, slope = value_and_slope(twist, z)
    y = np.einsum("nh,ch->nc", h, w_out) + b_out
    n, classes = y.shape
    truth = targets[:, None] == np.arange(classes)  # [N C]
    soft = np.where(truth, 1 - twist["smooth"], 0.0) + twist["smooth"] / classes
    if slip.get("others"):
        soft = np.where(truth, 1 - twist["smooth"], twist["smooth"] / max(classes - 1, 1))
    total = np.logaddexp.reduce(y, axis=1)  # [N] log Σ exp y
    p = np.exp(y - total[:, None])
    loss = ((total[:, None] - y) * soft).sum() + twist["calm"] * (total**2).sum()
    push = slip.get("calm_gradient", 2 * twist["calm"])
    dy = (p - soft + push * total[:, None] * p) / slip.get("rows", n)
    dz = np.einsum("nc,ch->nh", dy, w_out) * (slope if slip.get("gate", True) else 1.0)
    gradients = (
        np.einsum("nh,hi->ni", dz, w_hidden),
        np.einsum("nh,ni->hi", dz, x),
        dz.sum(0),
        np.einsum("nc,nh->ch", dy, h),
        dy.sum(0),
    )
    return {"out 0": np.array(loss / n)} | {f"out {i}": each for i, each in enumerate(gradients, start=1)}


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    flat = twist | {"leak": 0.0}
    if case.job.target == "own_activation":
        ones: Arrays = activation(twist, case)
        yield "dout did not meet the slope at all", ones | {"out 1": case.arrays["dout"]}
        yield "the slope of f stood alone: dout is missing", ones | {"out 1": ones["out 1"] / case.arrays["dout"]}
        yield "the leak were missing in f and in its slope", activation(flat, case)
        if "bend" in twist:
            bend, leak = twist["bend"], twist["leak"]
            yield "the leak were missing in the slope", activation(twist, case, flat)
            sharper = {"leak": 0.0, "bend": bend}
            wrong = value_and_slope(sharper, case.arrays["z"])[1]
            yield (
                "the chain rule's factor, the number before z, were taken twice or not divided out",
                ones | {"out 1": case.arrays["dout"] * (leak + (1 - leak) * bend * wrong)},
            )
            yield "the slope were that of the bend at z, not at the number times z", activation(
                twist, case, twist | {"bend": 1.0}
            )  # fmt: skip
        else:
            yield "the negative side had no slope", activation(twist, case, flat)
            yield "the negative side had slope 1", activation(twist, case, twist | {"leak": 1.0})
            z, steep = case.arrays["z"], ones["out 1"]
            wrong = np.where(z > 0, steep / twist["top"], steep)
            yield "the inner factor 1 / top were there and the outer factor top not", ones | {"out 1": wrong}
    else:
        a = case.arrays
        yield "the target were not softened", network(twist | {"smooth": 0.0}, a)
        yield "the true class had no share of what all classes get", network(twist, a, others=True)
        yield "the outputs were not kept calm", network(twist | {"calm": 0.0}, a)
        yield "the square kept the loss calm and did not reach the gradient", network(twist, a, calm_gradient=0.0)
        yield "the slope of the square lacked its 2", network(twist, a, calm_gradient=twist["calm"])
        yield "the gradients were those of the sum over the rows, not of the mean", network(twist, a, rows=1)
        yield "the gradient went past the activation", network(twist, a, gate=False)


CODE = '''
import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.linear import linear, linear_grad
from minirlhf.reference.softmax import Array, log_softmax, softmax


def own_activation(z: Array, dout: Array) -> tuple[Array, Array]:
    """(f(z), dz): the activation, and the gradient at z from the gradient dout of f(z). All of one shape."""
    ...


def own_network(
    x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, b_out: Array, targets: NDArray[np.int64]
) -> tuple[float, Array, Array, Array, Array, Array]:
    """(loss, dx, dw_hidden, db_hidden, dw_out, db_out).

    x [N I], w_hidden [H I], b_hidden [H], w_out [C H], b_out [C], targets int [N]; each gradient has the shape of what
    it belongs to. Nothing is changed in place.
    """
    ...
'''
