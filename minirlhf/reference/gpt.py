"""The whole decoder on one sequence without padding: ids [T] to logits [T V].

GPT-2 (Radford et al. 2019): embedding + position; per layer x += attention(norm(x)), x += mlp(norm(x)); norm; logits.
Llama (Touvron et al. 2023, arXiv:2302.13971): the same with RMSNorm, rotary positions and SwiGLU.
`weights` maps names to arrays, named as the decoder's own tensors; a bias that is not there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.attention import multi_head
from minirlhf.reference.mlp import gelu_mlp, swiglu
from minirlhf.reference.norm import layer_norm, rms_norm
from minirlhf.reference.rope import rope
from minirlhf.reference.softmax import Array


@dataclass(frozen=True)
class Shape:
    """What the weights alone do not tell. llama means rotary positions, RMSNorm and SwiGLU."""

    layers: int
    heads: int
    kv_heads: int
    llama: bool = False
    rope_base: float = 10000.0


def gpt(weights: Mapping[str, Array], shape: Shape, ids: NDArray[np.int64]) -> Array:
    """ids int64 [T] -> logits [T V]."""
    x = weights["token_embedding.weight"][ids]  # [T D]
    if not shape.llama:
        x = x + weights["position_embedding.weight"][: len(ids)]
    for layer in range(shape.layers):
        part = {name.removeprefix(f"blocks.{layer}."): w for name, w in weights.items() if f"blocks.{layer}." in name}
        x = x + attention(part, shape, norm(part, "attention_norm", shape, x))
        x = x + mlp(part, shape, norm(part, "mlp_norm", shape, x))
    return (
        norm(weights, "final_norm", shape, x) @ weights.get("unembedding.weight", weights["token_embedding.weight"]).T
    )


def attention(weights: Mapping[str, Array], shape: Shape, x: Array) -> Array:
    """Project, split into heads, turn, attend, join, project. [T D] -> [T D]."""
    tokens, width = x.shape
    head_width = width // shape.heads
    qkv = linear(weights, "attention.to_qkv", x).reshape(tokens, -1, head_width).transpose(1, 0, 2)  # [H+2G T K]
    q, k, v = np.split(qkv, (shape.heads, shape.heads + shape.kv_heads))
    if shape.llama:
        q, k = (np.stack([rope(head, np.arange(tokens), shape.rope_base) for head in heads]) for heads in (q, k))
    heads = multi_head(q, k, v, np.tri(tokens, dtype=bool))  # [H T K]
    return linear(weights, "attention.to_out", heads.transpose(1, 0, 2).reshape(tokens, width))


def mlp(weights: Mapping[str, Array], shape: Shape, x: Array) -> Array:
    """[T D] -> [T D]."""
    if shape.llama:
        w_gate, w_up = np.split(weights["mlp.to_gate_and_up.weight"], 2)
        return swiglu(x, w_gate, w_up, weights["mlp.to_out.weight"])
    zero = np.zeros(())
    return gelu_mlp(
        x,
        weights["mlp.to_hidden.weight"],
        weights.get("mlp.to_hidden.bias", zero),
        weights["mlp.to_out.weight"],
        weights.get("mlp.to_out.bias", zero),
    )


def norm(weights: Mapping[str, Array], name: str, shape: Shape, x: Array) -> Array:
    """[T D] -> [T D]."""
    if shape.llama:
        return rms_norm(x, weights[f"{name}.weight"])
    return layer_norm(x, weights[f"{name}.weight"], weights.get(f"{name}.bias", np.zeros(())))


def linear(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    """x [N I] times the matrix [O I] of this name, plus its bias if it has one. [N O]."""
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", np.zeros(()))
