"""One Transformer block on one sequence, forward and backward.

    m   = x + causal_self_attention(norm₁(x))
    out = m + mlp(norm₂(m))                     Radford et al. 2019, section 2.3 (the norms come first)

The residual stream is only ever added to. For y = x + f(x) the gradient is dy + f'(x)ᵀ dy: it flows on unchanged and
collects what comes back through the side branch. So backward walks the two branches in the opposite order:

    dm = dout + back through mlp and norm₂ of dout
    dx = dm   + back through attention and norm₁ of dm

`weights` maps names to arrays, named as in a checkpoint ("attention.to_qkv.weight"); a bias that is not there is
none. Gradients come back under the same names. Dimension letters: T tokens, D width, H heads, G key-value heads, K.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.attention import Bools, eager_attend, eager_attend_grad
from minirlhf.reference.linear import linear, linear_grad
from minirlhf.reference.mlp import (
    gelu_mlp,
    gelu_mlp_grad,
    squared_relu_mlp,
    squared_relu_mlp_grad,
    swiglu,
    swiglu_grad,
)
from minirlhf.reference.norm import layer_norm, layer_norm_grad, rms_norm, rms_norm_grad
from minirlhf.reference.rope import rotate, rotate_grad
from minirlhf.reference.softmax import Array

Weights = Mapping[str, Array]
Gradients = dict[str, Array]


@dataclass(frozen=True)
class Shape:
    """What the weights alone do not tell. GPT-2's by default; Llama's is rope, rms, swiglu."""

    layers: int
    heads: int
    kv_heads: int
    positions: Literal["learned", "rope"] = "learned"
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["gelu", "relu2", "swiglu"] = "gelu"
    rope_base: float = 10000.0
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class Places:
    """Where the tokens stand: positions int [T] in their text, visible bool [T T]: who may look at whom."""

    positions: NDArray[np.int64]
    visible: Bools


def block(weights: Weights, shape: Shape, x: Array, places: Places) -> Array:
    """x [T D] -> [T D]."""
    middle = x + causal_self_attention(weights, shape, norm(weights, "attention_norm", shape, x), places)
    return middle + mlp(weights, shape, norm(weights, "mlp_norm", shape, middle))


def block_grad(weights: Weights, shape: Shape, x: Array, places: Places, dout: Array) -> tuple[Array, Gradients]:
    """dx [T D] and the gradient of every weight, from the gradient dout [T D] of the output."""
    normed = norm(weights, "attention_norm", shape, x)
    middle = x + causal_self_attention(weights, shape, normed, places)

    dbranch, of_mlp = mlp_grad(weights, shape, norm(weights, "mlp_norm", shape, middle), dout)
    dbranch, of_mlp_norm = norm_grad(weights, "mlp_norm", shape, middle, dbranch)
    dmiddle = dout + dbranch

    dbranch, of_attention = causal_self_attention_grad(weights, shape, normed, places, dmiddle)
    dbranch, of_attention_norm = norm_grad(weights, "attention_norm", shape, x, dbranch)
    return dmiddle + dbranch, of_mlp | of_mlp_norm | of_attention | of_attention_norm


def causal_self_attention(weights: Weights, shape: Shape, x: Array, places: Places) -> Array:
    """Project, split into heads, turn, attend, join, project. [T D] -> [T D]."""
    q, k, v = heads_of(weights, shape, x, places)
    return named_linear(weights, "attention.to_out", joined(eager_attend(q, k, v, places.visible)))


def causal_self_attention_grad(
    weights: Weights, shape: Shape, x: Array, places: Places, dout: Array
) -> tuple[Array, Gradients]:
    """dx [T D] and the weights' gradients, from the gradient dout [T D]: the same steps, backwards."""
    q, k, v = heads_of(weights, shape, x, places)
    together = joined(eager_attend(q, k, v, places.visible))  # [T D]
    dtogether, of_out = named_linear_grad(weights, "attention.to_out", together, dout)
    dq, dk, dv = eager_attend_grad(q, k, v, places.visible, split_heads(dtogether, shape.heads))
    if shape.positions == "rope":
        dq, dk = (rotate_grad(places.positions, d, shape.rope_base) for d in (dq, dk))
    of_norms: Gradients = {}
    if "attention.q_norm.weight" in weights:
        q, k, _ = projected_heads(weights, shape, x)  # what the norms took in
        dq, of_q = norm_grad(weights, "attention.q_norm", replace(shape, norm="rms"), q, dq)
        dk, of_k = norm_grad(weights, "attention.k_norm", replace(shape, norm="rms"), k, dk)
        of_norms = of_q | of_k
    dx, of_qkv = named_linear_grad(weights, "attention.to_qkv", x, joined(np.concatenate((dq, dk, dv))))
    return dx, of_out | of_qkv | of_norms


def heads_of(weights: Weights, shape: Shape, x: Array, places: Places) -> tuple[Array, Array, Array]:
    """q [H T K], k and v [G T K] of x [T D], q and k already normed if they are, and turned if positions are rotary."""
    q, k, v = projected_heads(weights, shape, x)
    if "attention.q_norm.weight" in weights:
        q = rms_norm(q, weights["attention.q_norm.weight"], shape.norm_eps)
        k = rms_norm(k, weights["attention.k_norm.weight"], shape.norm_eps)
    if shape.positions == "rope":
        q, k = (rotate(part, places.positions, shape.rope_base) for part in (q, k))
    return q, k, v


def projected_heads(weights: Weights, shape: Shape, x: Array) -> tuple[Array, Array, Array]:
    """q [H T K], k and v [G T K] of x [T D], as the projection gives them."""
    heads = split_heads(named_linear(weights, "attention.to_qkv", x), shape.heads + 2 * shape.kv_heads)
    q, k, v = np.split(heads, (shape.heads, shape.heads + shape.kv_heads))
    return q, k, v


def split_heads(x: Array, heads: int) -> Array:
    """[T (H K)] -> [H T K]."""
    return x.reshape(x.shape[0], heads, -1).transpose(1, 0, 2)


def joined(heads: Array) -> Array:
    """[H T K] -> [T (H K)]."""
    return heads.transpose(1, 0, 2).reshape(heads.shape[1], -1)


def mlp(weights: Weights, shape: Shape, x: Array) -> Array:
    """[T D] -> [T D]."""
    if shape.mlp == "swiglu":
        w_gate, w_up = np.split(weights["mlp.to_gate_and_up.weight"], 2)
        return swiglu(x, w_gate, w_up, weights["mlp.to_out.weight"])
    w_hidden, b_hidden, w_out, b_out = two_layers(weights)
    return (squared_relu_mlp if shape.mlp == "relu2" else gelu_mlp)(x, w_hidden, b_hidden, w_out, b_out)


def mlp_grad(weights: Weights, shape: Shape, x: Array, dout: Array) -> tuple[Array, Gradients]:
    """dx [T D] and the weights' gradients, from the gradient dout [T D]."""
    if shape.mlp == "swiglu":
        w_gate, w_up = np.split(weights["mlp.to_gate_and_up.weight"], 2)
        dx, dgate, dup, dw_out = swiglu_grad(x, w_gate, w_up, weights["mlp.to_out.weight"], dout)
        return dx, {"mlp.to_gate_and_up.weight": np.concatenate((dgate, dup)), "mlp.to_out.weight": dw_out}
    w_hidden, b_hidden, w_out, _ = two_layers(weights)
    backward = squared_relu_mlp_grad if shape.mlp == "relu2" else gelu_mlp_grad
    dx, *gradients = backward(x, w_hidden, b_hidden, w_out, dout)
    names = ("mlp.to_hidden.weight", "mlp.to_hidden.bias", "mlp.to_out.weight", "mlp.to_out.bias")
    return dx, present(weights, dict(zip(names, gradients, strict=True)))


def two_layers(weights: Weights) -> tuple[Array, Array, Array, Array]:
    """(w_hidden, b_hidden, w_out, b_out); biases that are not there are 0."""
    zero = np.zeros(())
    hidden, out = weights["mlp.to_hidden.weight"], weights["mlp.to_out.weight"]
    return hidden, weights.get("mlp.to_hidden.bias", zero), out, weights.get("mlp.to_out.bias", zero)


def norm(weights: Weights, name: str, shape: Shape, x: Array) -> Array:
    """[T D] -> [T D]."""
    if shape.norm == "rms":
        return rms_norm(x, weights[f"{name}.weight"], shape.norm_eps)
    return layer_norm(x, weights[f"{name}.weight"], weights.get(f"{name}.bias", np.zeros(())), shape.norm_eps)


def norm_grad(weights: Weights, name: str, shape: Shape, x: Array, dout: Array) -> tuple[Array, Gradients]:
    """dx [T D] and the weights' gradients, from the gradient dout [T D]."""
    weight = weights[f"{name}.weight"]
    if shape.norm == "rms":
        dx, dweight = rms_norm_grad(x, weight, dout, shape.norm_eps)
        return dx, {f"{name}.weight": dweight}
    dx, dweight, dbias = layer_norm_grad(x, weight, dout, shape.norm_eps)
    return dx, present(weights, {f"{name}.weight": dweight, f"{name}.bias": dbias})


def named_linear(weights: Weights, name: str, x: Array) -> Array:
    """x [T I] through the layer of this name, [T O]."""
    return linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def named_linear_grad(weights: Weights, name: str, x: Array, dout: Array) -> tuple[Array, Gradients]:
    """dx [T I] and the layer's gradients, from the gradient dout [T O]."""
    dx, dweight, dbias = linear_grad(x, weights[f"{name}.weight"], dout)
    return dx, present(weights, {f"{name}.weight": dweight, f"{name}.bias": dbias})


def present(weights: Weights, gradients: Gradients) -> Gradients:
    """Only the gradients of weights that are there: a layer without bias has no bias to teach."""
    return {name: gradient for name, gradient in gradients.items() if name in weights}
