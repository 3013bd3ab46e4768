"""Drawn inputs for a02: the way back through linear layers, softmax, cross-entropy and ReLU, and the twist.

Every function draws one case from a generator. But for test "at 0", no number lies near a kink. What stands in rows
that do not count is large, or NaN. All jobs are NumPy's: the modules under test know nothing of torch.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
Floats = NDArray[np.float64]


def sizes(rng: Rng, count: int) -> list[int]:
    """Sizes from 2 to 6 that all differ, so that a transpose shows."""
    return [int(size) for size in rng.permutation(np.arange(2, 7))[:count]]


def linear(rng: Rng, stacked: bool = False) -> Case:
    """x [N I] or [B T I], weight [O I], dout as long as x is."""
    rows, inputs, outputs, more = sizes(rng, 4)
    front = (more, rows) if stacked else (rows,)
    arrays = {
        "x": rng.normal(size=(*front, inputs)),
        "weight": rng.normal(size=(outputs, inputs)),
        "dout": rng.normal(size=(*front, outputs)),
    }
    return call("linear_grad", ["x", "weight", "dout"], arrays)


def softmax(rng: Rng, stacked: bool = False) -> Case:
    """p, rows of probabilities, and dp. stacked: another axis in front, and a 0 in most rows."""
    rows, width, more = sizes(rng, 3)
    shape: tuple[int, ...] = (more, rows, width) if stacked else (rows, width)
    p = rng.uniform(0.1, 1, size=shape)
    if stacked:
        p[..., 0] *= rng.random(p.shape[:-1]) < 0.3
    p /= p.sum(axis=-1, keepdims=True)
    return call("softmax_grad", ["p", "dp"], {"p": p, "dp": rng.normal(size=shape)})


def log_softmax(rng: Rng, tempered: bool = False, far: bool = False) -> Case:
    """z and dout [N V]. tempered: at a temperature; far: scores so large that their exponentials overflow."""
    rows, width = sizes(rng, 2)
    z = rng.normal(size=(rows, width)) + (rng.choice([-2000.0, 2000.0], size=(rows, 1)) if far else 0.0)
    arguments: list[object] = ["z", "dout"]
    if tempered:
        arguments.append({"value": float(rng.choice([0.4, 0.7, 1.6, 2.5]))})
    return call("log_softmax_grad", arguments, {"z": z, "dout": rng.normal(size=(rows, width))})


def cross_entropy(rng: Rng, masked: bool = False, junk: str = "large", stacked: bool = False) -> Case:
    """logits [N V] or [B T V], targets, loss_mask. masked: some rows do not count, and hold junk."""
    rows, classes, more = sizes(rng, 3)
    front = (more, rows) if stacked else (rows,)
    mask = np.ones(front, dtype=bool)
    if masked:
        mask.flat[rng.permutation(mask.size)[: 1 + mask.size // 3]] = False
    logits = rng.normal(size=(*front, classes)) * 2
    logits[~mask] = np.nan if junk == "nan" else 1e3 * logits[~mask]
    arrays = {"logits": logits, "targets": rng.integers(0, classes, front), "loss_mask": mask}
    return call("cross_entropy_grad", ["logits", "targets", "loss_mask"], arrays)


def relu(rng: Rng, axes: int = 2) -> Case:
    """z, which is 0 at some places, and dout, with numbers of both signs at each."""
    z = apart(rng, sizes(rng, axes))
    z.flat[rng.permutation(z.size)[:2]] = 0.0
    return call("relu_grad", ["z", "dout"], {"z": z, "dout": apart(rng, z.shape)})


def network(rng: Rng, rows: int = 0) -> Case:
    """A network of two layers and its examples; rows 0 draws how many. Some neurons are open, some closed."""
    arrays = layers(rng, rows)
    return call("network_loss_grad", list(arrays), arrays)


def own_activation(rng: Rng, axes: int = 2) -> Case:
    z = apart(rng, sizes(rng, axes)) * 1.5
    return call("own_activation", ["z", "dout"], {"z": z, "dout": rng.normal(size=z.shape)})


def own_network(rng: Rng, rows: int = 0) -> Case:
    arrays = layers(rng, rows)
    return call("own_network", list(arrays), arrays)


def layers(rng: Rng, rows: int) -> Arrays:
    """x [N I], w_hidden [H I], b_hidden [H], w_out [C H], b_out [C], targets [N]; every neuron's sum is far from 0."""
    drawn, inputs, hidden, classes = sizes(rng, 4)
    hidden += 2
    while True:
        x, w_hidden, b_hidden = (
            rng.normal(size=shape) for shape in ((rows or drawn, inputs), (hidden, inputs), hidden)
        )
        z = x @ w_hidden.T + b_hidden
        if np.abs(z).min() > 0.02 and (z > 0).any() and (z < 0).any():
            break
    return {
        "x": x,
        "w_hidden": w_hidden,
        "b_hidden": b_hidden,
        "w_out": rng.normal(size=(classes, hidden)),
        "b_out": rng.normal(size=classes),
        "targets": rng.integers(0, classes, len(x)),
    }


def apart(rng: Rng, shape: Sequence[int]) -> Floats:
    """Numbers of both signs, none nearer to 0 than 0.2."""
    signs = np.where(np.arange(np.prod(shape)) % 2, -1.0, 1.0)
    return (rng.permutation(signs) * rng.uniform(0.2, 2, size=len(signs))).reshape(shape)


def call(target: str, arguments: Sequence[object], arrays: Arrays) -> Case:
    return Case(Job(target, arguments, numpy=True), arrays)


CASES: dict[str, Callable[..., Case]] = {
    "linear": linear,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "cross_entropy": cross_entropy,
    "relu": relu,
    "network": network,
    "own_activation": own_activation,
    "own_network": own_network,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
