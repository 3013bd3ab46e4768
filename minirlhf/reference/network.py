"""The smallest network worth the name: two linear layers with a ReLU between them, judged by cross-entropy.

    z = x W₁ᵀ + b₁,   h = max(0, z),   y = h W₂ᵀ + b₂,   L = mean of -log softmax(y)_target

Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors"; the ReLU: Nair and Hinton
2010. Backwards through the same four, each with what the next one hands back (linear.py, cross_entropy.py):

    dy  = (softmax(y) - onehot(target)) / N
    dh  = dy W₂         dW₂ = dyᵀ h         db₂ = column sums of dy
    dz  = dh where z > 0, else 0                            (the slope of max(0, z) is 1 or 0)
    dx  = dz W₁         dW₁ = dzᵀ x         db₁ = column sums of dz

At z = 0 the ReLU has a kink, where any slope from 0 to 1 would serve; 0 is torch's choice, and ours.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.cross_entropy import cross_entropy, cross_entropy_grad
from minirlhf.reference.linear import linear, linear_grad
from minirlhf.reference.softmax import Array


def relu(z: Array) -> Array:
    return np.maximum(z, 0)


def relu_grad(z: Array, dout: Array) -> Array:
    """The gradient at z from the gradient dout of relu(z). Any shape."""
    return np.where(z > 0, dout, 0.0)


def network_logits(x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, b_out: Array) -> Array:
    """x [N I], w_hidden [H I], b_hidden [H], w_out [C H], b_out [C] -> how much each class is believed in, [N C]."""
    return linear(relu(linear(x, w_hidden, b_hidden)), w_out, b_out)


def network_loss(
    x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, b_out: Array, targets: NDArray[np.int64]
) -> float:
    """Mean surprise at the targets [N], nats per row."""
    return cross_entropy(network_logits(x, w_hidden, b_hidden, w_out, b_out), targets, np.ones(len(x), dtype=bool))


def network_loss_grad(
    x: Array, w_hidden: Array, b_hidden: Array, w_out: Array, b_out: Array, targets: NDArray[np.int64]
) -> tuple[Array, Array, Array, Array, Array]:
    """Gradients of x, w_hidden, b_hidden, w_out, b_out, each of the shape of what it belongs to."""
    z = linear(x, w_hidden, b_hidden)  # [N H]
    h = relu(z)
    y = linear(h, w_out, b_out)  # [N C]
    dy = cross_entropy_grad(y, targets, np.ones(len(x), dtype=bool))
    dh, dw_out, db_out = linear_grad(h, w_out, dy)
    dz = relu_grad(z, dh)
    dx, dw_hidden, db_hidden = linear_grad(x, w_hidden, dz)
    return dx, dw_hidden, db_hidden, dw_out, db_out
