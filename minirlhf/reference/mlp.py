"""The three MLPs and their activations, forward and backward.

gelu (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2) weighs x by the chance Φ(x) that a normal number is
smaller. With the normal density φ = Φ', the product rule gives

    gelu(x) = x Φ(x) = x/2 (1 + erf(x/√2)),      gelu'(x) = Φ(x) + x φ(x),      φ(x) = exp(-x²/2) / √(2π).

GPT-2 uses the paper's approximation of Φ by a tanh:

    gelu(x) = x/2 (1 + tanh u),   u = √(2/π) (x + 0.044715 x³)
    gelu'(x) = (1 + tanh u)/2 + x/2 (1 - tanh² u) √(2/π) (1 + 3 · 0.044715 x²)

swish(x) = x σ(x), with σ(x) = 1 / (1 + exp(-x)) (Ramachandran et al. 2017, arXiv:1710.05941):

    swish'(x) = σ(x) + x σ(x) (1 - σ(x))

The squared ReLU (So et al. 2021, arXiv:2109.08668, section 3) needs no exponential. Its slope is 0 at x = 0 from
both sides, where that of max(0, x) jumps:

    relu2(x) = max(0, x)²,       relu2'(x) = 2 max(0, x)

The gelu MLP is gelu(x Wᵀ + b) W₂ᵀ + b₂, the squared ReLU's the same with relu2. SwiGLU (Shazeer 2020,
arXiv:2002.05202, eq. 6) lets one half open the other: (swish(x Gᵀ) · x Uᵀ) Dᵀ. For a product with a matrix, y = x Wᵀ,
the gradients are dx = dy W and dW = dyᵀ x.
"""

from math import erf

import numpy as np

from minirlhf.reference.softmax import Array

ROOT, CUBE = np.sqrt(2 / np.pi), 0.044715


def gelu(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(ROOT * (x + CUBE * x**3)))


def gelu_grad(x: Array, dout: Array) -> Array:
    """The gradient at x from the gradient dout of gelu(x). Any shape."""
    tanh = np.tanh(ROOT * (x + CUBE * x**3))
    return dout * ((1 + tanh) / 2 + x / 2 * (1 - tanh**2) * ROOT * (1 + 3 * CUBE * x**2))


def gelu_exact(x: Array) -> Array:
    return x * _normal_below(x)


def gelu_exact_grad(x: Array, dout: Array) -> Array:
    """The gradient at x from the gradient dout of gelu_exact(x). Any shape."""
    return dout * (_normal_below(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


def relu2(x: Array) -> Array:
    return np.maximum(x, 0) ** 2


def relu2_grad(x: Array, dout: Array) -> Array:
    """The gradient at x from the gradient dout of relu2(x). Any shape."""
    return dout * 2 * np.maximum(x, 0)


def swish(x: Array) -> Array:
    return x * _sigmoid(x)


def swish_grad(x: Array, dout: Array) -> Array:
    """The gradient at x from the gradient dout of swish(x). Any shape."""
    s = _sigmoid(x)
    return dout * (s + x * s * (1 - s))


def gelu_mlp(x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, b_out: Array) -> Array:
    """x [N D], w_hidden [F D], b_hidden [F], w_out [D F], b_out [D] -> [N D]."""
    return gelu(x @ w_hidden.T + b_hidden) @ w_out.T + b_out


def gelu_mlp_grad(x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, dout: Array) -> tuple[Array, ...]:
    """Gradients of x, w_hidden, b_hidden, w_out, b_out from the gradient dout [N D] of the output."""
    hidden = x @ w_hidden.T + b_hidden  # [N F]
    dhidden = gelu_grad(hidden, dout @ w_out)
    return dhidden @ w_hidden, dhidden.T @ x, dhidden.sum(0), dout.T @ gelu(hidden), dout.sum(0)


def squared_relu_mlp(x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, b_out: Array) -> Array:
    """x [N D], w_hidden [F D], b_hidden [F], w_out [D F], b_out [D] -> [N D]."""
    return relu2(x @ w_hidden.T + b_hidden) @ w_out.T + b_out


def squared_relu_mlp_grad(x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, dout: Array) -> tuple[Array, ...]:
    """Gradients of x, w_hidden, b_hidden, w_out, b_out from the gradient dout [N D] of the output."""
    hidden = x @ w_hidden.T + b_hidden  # [N F]
    dhidden = relu2_grad(hidden, dout @ w_out)
    return dhidden @ w_hidden, dhidden.T @ x, dhidden.sum(0), dout.T @ relu2(hidden), dout.sum(0)


def swiglu(x: Array, w_gate: Array, w_up: Array, w_out: Array) -> Array:
    """x [N D], w_gate and w_up [F D], w_out [D F] -> [N D]."""
    return (swish(x @ w_gate.T) * (x @ w_up.T)) @ w_out.T


def swiglu_grad(x: Array, w_gate: Array, w_up: Array, w_out: Array, dout: Array) -> tuple[Array, ...]:
    """Gradients of x, w_gate, w_up, w_out from the gradient dout [N D] of the output."""
    gate, up = x @ w_gate.T, x @ w_up.T  # [N F]
    dproduct = dout @ w_out
    dgate, dup = swish_grad(gate, dproduct * up), dproduct * swish(gate)
    return dgate @ w_gate + dup @ w_up, dgate.T @ x, dup.T @ x, dout.T @ (swish(gate) * up)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _normal_below(x: Array) -> Array:
    """Φ(x): how likely a normal number is below x."""
    return (1 + np.vectorize(erf, otypes=[np.float64])(x / np.sqrt(2))) / 2
