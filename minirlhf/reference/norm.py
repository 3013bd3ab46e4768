"""LayerNorm and RMSNorm, forward and backward.

LayerNorm (Ba et al. 2016, arXiv:1607.06450, eq. 4), over the D numbers of one token, with r = 1 / √(var + eps):

    y = (x - mean) r,      out = weight · y + bias

Backward through y. Let c = x - mean, so var = mean(c²) and y = c r. A change dx moves c by dc = dx - mean(dx), moves
var by 2 mean(c dc) = 2 mean(c dx) (as mean(c) = 0), and r by -r³ mean(c dx). So y moves by
r dc - c r³ mean(c dx) = r (dx - mean(dx) - y mean(y dx)). This map is symmetric, so the gradient takes the same way:

    dx = r (dy - mean(dy) - y mean(y dy)).

RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4) leaves the mean alone, r = 1 / √(mean(x²) + eps):

    y = x r,      out = weight · y,      dx = r (dy - y mean(y dy)).

In both, dweight = Σ dout · y and dbias = Σ dout over all tokens, and dy = dout · weight.
"""

import numpy as np

from minirlhf.reference.softmax import Array


def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    """x [... D], weight and bias [D] -> [... D]."""
    y, _ = standardise(x, eps)
    return y * weight + bias


def layer_norm_grad(x: Array, weight: Array, dout: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """(dx [... D], dweight [D], dbias [D]) from the gradient dout [... D] of the output."""
    y, r = standardise(x, eps)
    return standardise_grad(y, r, dout * weight), _over_tokens(dout * y), _over_tokens(dout)


def rms_norm(x: Array, weight: Array, eps: float = 1e-5) -> Array:
    """x [... D], weight [D] -> [... D]."""
    y, _ = rescale(x, eps)
    return y * weight


def rms_norm_grad(x: Array, weight: Array, dout: Array, eps: float = 1e-5) -> tuple[Array, Array]:
    """(dx [... D], dweight [D]) from the gradient dout [... D] of the output."""
    y, r = rescale(x, eps)
    return rescale_grad(y, r, dout * weight), _over_tokens(dout * y)


def standardise(x: Array, eps: float) -> tuple[Array, Array]:
    """(y, r): y = (x - mean) r, r = 1 / √(var + eps). [... D] -> [... D], [... 1]."""
    return rescale(x - x.mean(axis=-1, keepdims=True), eps)


def standardise_grad(y: Array, r: Array, dy: Array) -> Array:
    """dx = r (dy - mean(dy) - y mean(y dy)), all [... D] but r."""
    return r * (dy - dy.mean(-1, keepdims=True) - y * (y * dy).mean(-1, keepdims=True))


def rescale(x: Array, eps: float) -> tuple[Array, Array]:
    """(y, r): y = x r, r = 1 / √(mean(x²) + eps). [... D] -> [... D], [... 1]."""
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return x * r, r


def rescale_grad(y: Array, r: Array, dy: Array) -> Array:
    """dx = r (dy - y mean(y dy)), all [... D] but r."""
    return r * (dy - y * (y * dy).mean(-1, keepdims=True))


def _over_tokens(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1]).sum(axis=0)
