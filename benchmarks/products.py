"""The bound: a transformer's work with everything left out but the matrix products, at the same shapes.

A product is (count, m, k, n): count times [m k] times [k n]. Every product has operands and a result of its own, as in
a real step, where activations wait for the backward pass; results are written to memory that is already there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Product = tuple[int, int, int, int]


@dataclass(frozen=True)
class Shape:
    """A GPT-2: MLPs four times as wide as the model, one matrix of query, key and value."""

    layers: int
    heads: int
    width: int
    vocabulary: int


def pass_products(shape: Shape, batch: int, tokens: int, outputs: int, seen: int = 0) -> list[Product]:
    """One pass over [batch tokens] new ids, `seen` more in the cache, with logits (or one value) at `outputs` ids."""
    rows, width, head_width = batch * tokens, shape.width, shape.width // shape.heads
    each_head = batch * shape.heads
    block = [
        (1, rows, width, 3 * width),  # query, key, value
        (each_head, tokens, head_width, seen + tokens),  # who looks at whom
        (each_head, tokens, seen + tokens, head_width),  # what they see
        (1, rows, width, width),
        (1, rows, width, 4 * width),
        (1, rows, 4 * width, width),
    ]
    return block * shape.layers + [(1, batch * outputs, width, shape.vocabulary)]


def generation_products(shape: Shape, batch: int, prompt: int, response: int) -> list[Product]:
    """Reading the prompt, then one token after another with a cache; the last token drawn is not read."""
    products = pass_products(shape, batch, prompt, 1)
    for seen in range(prompt, prompt + response - 1):
        products += pass_products(shape, batch, 1, 1, seen)
    return products


def flops(forward: Sequence[Product], backward: bool = False) -> float:
    """Floating point operations: two per multiply and add, three times as many with the backward pass."""
    return sum(2.0 * count * m * k * n for count, m, k, n in forward) * (3 if backward else 1)


def prepare(forward: Sequence[Product], backward: bool = False) -> Callable[[], None]:
    """A function that does these products, and with backward those of both gradients too."""
    import torch

    jobs = []
    for count, m, k, n in forward:
        # as torch.nn.Linear keeps them: the weight [n k] is read transposed in the forward pass
        x, weight, gradient = torch.randn(count, m, k), torch.randn(count, n, k), torch.randn(count, m, n)
        pairs = [(x, weight.mT, torch.empty(count, m, n))]
        if backward:
            pairs += [(gradient, weight, torch.empty(count, m, k)), (gradient.mT, x, torch.empty(count, n, k))]
        if count == 1:
            jobs += [(torch.mm, left[0], right[0], out[0]) for left, right, out in pairs]
        else:
            jobs += [(torch.bmm, left, right, out) for left, right, out in pairs]

    def work() -> None:
        for multiply, left, right, out in jobs:
            multiply(left, right, out=out)

    return work
