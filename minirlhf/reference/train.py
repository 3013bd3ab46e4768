"""Training without autograd: the decoder, its gradients and AdamW, all from this folder, in one loop.

    logits  = gpt(weights, ids)                                  forward
    dlogits = (softmax(logits) - onehot(targets)) / n            cross_entropy.py
    dweights = gpt_grad(weights, ids, dlogits)                   backward, by hand
    weights <- adamw(weights, dweights)                          step

That is all `loss.backward(); optimizer.step()` does. Autograd is a convenience.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.adamw import adamw_step, clip_grad_norm
from minirlhf.reference.block import Gradients, Shape, Weights
from minirlhf.reference.cross_entropy import cross_entropy, cross_entropy_grad
from minirlhf.reference.gpt import gpt, gpt_grad
from minirlhf.reference.softmax import Array


def initial_weights(shape: Shape, vocab_size: int, context: int, width: int, seed: int) -> dict[str, Array]:
    """GPT-2's start: matrices normal with std 0.02, biases 0, gains 1 (Radford et al. 2019, section 2.3)."""
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Array:
        return 0.02 * generator.standard_normal((rows, columns))

    weights = {"token_embedding.weight": matrix(vocab_size, width)}
    if shape.positions == "learned":
        weights["position_embedding.weight"] = matrix(context, width)
    head_width, hidden = width // shape.heads, 4 * width
    for layer in range(shape.layers):
        block = f"blocks.{layer}."
        weights[block + "attention.to_qkv.weight"] = matrix((shape.heads + 2 * shape.kv_heads) * head_width, width)
        weights[block + "attention.to_out.weight"] = matrix(width, width)
        if shape.mlp == "swiglu":
            weights[block + "mlp.to_gate_and_up.weight"] = matrix(2 * hidden, width)
        else:
            weights[block + "mlp.to_hidden.weight"] = matrix(hidden, width)
        weights[block + "mlp.to_out.weight"] = matrix(width, hidden)
        weights[block + "attention_norm.weight"] = np.ones(width)
        weights[block + "mlp_norm.weight"] = np.ones(width)
    weights["final_norm.weight"] = np.ones(width)
    return weights


def loss_and_gradients(weights: Weights, shape: Shape, ids: NDArray[np.int64]) -> tuple[float, Gradients]:
    """Nats per token of predicting each of ids [T+1] from those before it, and the gradient of every weight."""
    inputs, targets = ids[:-1], ids[1:]
    counted = np.ones(len(targets), dtype=bool)
    logits = gpt(weights, shape, inputs)  # [T V]
    dlogits = cross_entropy_grad(logits, targets, counted)
    return cross_entropy(logits, targets, counted), gpt_grad(weights, shape, inputs, dlogits)


def train(
    weights: dict[str, Array],
    shape: Shape,
    ids: NDArray[np.int64],
    steps: int,
    learning_rate: float = 3e-3,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
) -> Iterator[float]:
    """Teaches the weights, in place, to say ids [T+1] by heart. Yields each step's loss, nats per token."""
    first = {name: np.zeros(weight.shape) for name, weight in weights.items()}
    second = {name: np.zeros(weight.shape) for name, weight in weights.items()}
    for step in range(1, steps + 1):
        loss, gradients = loss_and_gradients(weights, shape, ids)
        clipped, _ = clip_grad_norm([gradients[name] for name in weights], max_grad_norm)
        for name, gradient in zip(list(weights), clipped, strict=True):
            weights[name], first[name], second[name] = adamw_step(
                weights[name], gradient, first[name], second[name], step, learning_rate, betas, eps, weight_decay
            )
        yield loss
