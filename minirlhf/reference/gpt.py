"""The whole decoder on one sequence, forward and backward: ids [T] to logits [T V], and back to every weight.

    x   = E[ids] (+ P[positions], unless positions are rotary)
    x   = block_l(x)    for each layer
    z   = norm(x) Uᵀ,   U = E where the two are tied

GPT-2: Radford et al. 2019. Llama: Touvron et al. 2023, arXiv:2302.13971.

Backward keeps what each block took in (the cache), and walks the list backwards. Where U and E are one matrix it is
used twice, once to read tokens and once to predict them, and its gradient is the sum of both.

The loss on top, softmax and cross-entropy, hands down dz = (softmax(z) - onehot) / n (cross_entropy.py).
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.attention import Bools, causal
from minirlhf.reference.block import Gradients, Places, Shape, Weights, block, block_grad, norm, norm_grad
from minirlhf.reference.embedding import embedding, embedding_grad
from minirlhf.reference.linear import linear, linear_grad
from minirlhf.reference.softmax import Array

Ids = NDArray[np.int64]


def gpt(weights: Weights, shape: Shape, ids: Ids, attention_mask: Bools | None = None) -> Array:
    """ids int [T], attention_mask bool [T] (every token real when None) -> logits [T V], without meaning at padding."""
    return linear(hidden(weights, shape, ids, attention_mask)[0], unembedding(weights))


def gpt_grad(
    weights: Weights, shape: Shape, ids: Ids, dlogits: Array, attention_mask: Bools | None = None
) -> Gradients:
    """The gradient of every weight, under its name, from the gradient dlogits [T V] of the logits."""
    normed, taken_in = hidden(weights, shape, ids, attention_mask)
    dnormed, dunembedding, _ = linear_grad(normed, unembedding(weights), dlogits)
    return hidden_grad(weights, shape, ids, taken_in, dnormed, attention_mask, dunembedding)


def hidden(weights: Weights, shape: Shape, ids: Ids, attention_mask: Bools | None = None) -> tuple[Array, list[Array]]:
    """The residual stream after the final norm, [T D], and the cache: what each block, and then the norm, took in."""
    places = places_of(ids, attention_mask)
    x = embedding(weights["token_embedding.weight"], ids)  # [T D]
    if shape.positions == "learned":
        x = x + embedding(weights["position_embedding.weight"], places.positions)
    taken_in = [x]
    for layer in range(shape.layers):
        taken_in.append(block(of_layer(weights, layer), shape, taken_in[-1], places))
    return norm(weights, "final_norm", shape, taken_in[-1]), taken_in


def hidden_grad(
    weights: Weights,
    shape: Shape,
    ids: Ids,
    taken_in: list[Array],
    dhidden: Array,
    attention_mask: Bools | None = None,
    dunembedding: Array | None = None,
) -> Gradients:
    """The gradient of every weight from the gradient dhidden [T D] and, if there are logits, of the unembedding."""
    places = places_of(ids, attention_mask)
    dx, gradients = norm_grad(weights, "final_norm", shape, taken_in[-1], dhidden)
    for layer in reversed(range(shape.layers)):
        dx, of_block = block_grad(of_layer(weights, layer), shape, taken_in[layer], places, dx)
        gradients |= {f"blocks.{layer}.{name}": gradient for name, gradient in of_block.items()}
    gradients["token_embedding.weight"] = embedding_grad(weights["token_embedding.weight"], ids, dx)
    if shape.positions == "learned":
        table = weights["position_embedding.weight"]
        gradients["position_embedding.weight"] = embedding_grad(table, places.positions, dx)
    if dunembedding is not None:
        if "unembedding.weight" in weights:
            gradients["unembedding.weight"] = dunembedding
        else:
            gradients["token_embedding.weight"] += dunembedding
    return gradients


def places_of(ids: Ids, attention_mask: Bools | None) -> Places:
    """Positions that do not count padding, and who may look at whom."""
    real = np.ones(len(ids), dtype=bool) if attention_mask is None else attention_mask
    return Places(np.maximum(np.cumsum(real) - 1, 0), causal(real))


def of_layer(weights: Weights, layer: int) -> Weights:
    """The weights of one block, without the block's name before them."""
    start = f"blocks.{layer}."
    return {name.removeprefix(start): weight for name, weight in weights.items() if name.startswith(start)}


def unembedding(weights: Weights) -> Array:
    """The matrix [V D] that predicts tokens: its own, or the one that reads them."""
    return weights.get("unembedding.weight", weights["token_embedding.weight"])
