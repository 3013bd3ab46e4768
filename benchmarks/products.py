"""The bound: a transformer's work with everything left out but the matrix products, at the same shapes.

A product is (count, m, k, n): count times [m k] times [k n]. Every product has operands and a result of its own, as in
a real step, where activations wait for the backward pass; results are written to memory that is already there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

Product = tuple[int, int, int, int]


@dataclass(frozen=True)
class Shape:
    """A GPT-2: MLPs four times as wide as the model, one matrix of query, key and value."""

    layers: int
    heads: int
    width: int
    vocabulary: int


def pass_products(shape: Shape, batch: int, tokens: int, outputs: int, seen: int = 0) -> list[Product]:
    """One pass over [batch tokens] new ids, `seen` more in the cache, with logits (or one value) at `outputs` ids.

    Nothing reads what the last block makes of the other ids, so there it does no more than read them.
    """
    width, head_width = shape.width, shape.width // shape.heads
    each_head = batch * shape.heads

    def block(asked: int) -> list[Product]:
        return [
            (1, batch * tokens, width, 3 * width),  # query, key, value
            (each_head, asked, head_width, seen + tokens),  # who looks at whom
            (each_head, asked, seen + tokens, head_width),  # what they see
            (1, batch * asked, width, width),
            (1, batch * asked, width, 4 * width),
            (1, batch * asked, 4 * width, width),
        ]

    last = [*block(outputs), (1, batch * outputs, width, shape.vocabulary)]
    return block(tokens) * (shape.layers - 1) + last


def generation_passes(shape: Shape, batch: int, prompt: int, response: int) -> list[list[Product]]:
    """Reading the prompt, then one token after another with a cache; the last token drawn is not read."""
    later = [pass_products(shape, batch, 1, 1, seen) for seen in range(prompt, prompt + response - 1)]
    return [pass_products(shape, batch, prompt, 1), *later]


def flops(passes: Sequence[Sequence[Product]], backward: bool = False) -> float:
    """Floating point operations: two per multiply and add, three times as many with the backward pass."""
    return sum(2.0 * count * m * k * n for each in passes for count, m, k, n in each) * (3 if backward else 1)


def prepare(
    passes: Sequence[Sequence[Product]], backward: bool = False, weight_first: bool = False
) -> Callable[[], None]:
    """A function that does these products, and with backward those of both gradients too.

    Passes go through one network: products at the same place use the same memory, as its weights and its cache do.
    weight_first: what one matrix multiplies is turned on its side, and a single row taken twice, as in nn/linear.py.
    """
    import torch

    memory: dict[tuple[int, str], torch.Tensor] = {}

    def take(place: int, role: str, *shape: int) -> torch.Tensor:
        return memory[place, role][: prod(shape)].view(shape)

    numbered = [(place, product) for each in passes for place, product in enumerate(each)]
    for place, (count, m, k, n) in numbered:
        for role, size in (("x", m * k), ("weight", n * k), ("out", m * n)):
            if (place, role) not in memory or len(memory[place, role]) < count * size:
                for kind in (role, f"{role} gradient") if backward else (role,):
                    memory[place, kind] = torch.randn(count * size)

    jobs = []
    for place, (count, m, k, n) in numbered:
        # as torch.nn.Linear keeps them: the weight [n k] is read transposed in the forward pass
        x, weight, out = (
            take(place, "x", count, m, k),
            take(place, "weight", count, n, k),
            take(place, "out", count, m, n),
        )
        products = [(x, weight.mT, out)]
        if backward:
            gradient = take(place, "out gradient", count, m, n)
            products.append((gradient, weight, take(place, "x gradient", count, m, k)))
            products.append((gradient.mT, x, take(place, "weight gradient", count, n, k)))
        if count == 1 and weight_first:
            columns = max(m, 2)
            twice = torch.randn(columns, k)
            jobs.append((torch.mm, weight[0], twice.T, torch.empty(n, columns)))
        elif count == 1:
            jobs += [(torch.mm, left[0], right[0], result[0]) for left, right, result in products]
        else:
            jobs += [(torch.bmm, left, right, result) for left, right, result in products]

    def work() -> None:
        for multiply, left, right, out in jobs:
            multiply(left, right, out=out)

    return work
