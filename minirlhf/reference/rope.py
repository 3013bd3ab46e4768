"""Rotary position embedding, forward and backward. Su et al. 2021, arXiv:2104.09864, eq. 34.

A head's K numbers are K/2 complex numbers z_i = x[i] + j x[i + K/2]. At position p each is turned:

    z_i -> z_i exp(j p base^(-2i/K))

The dot product of two heads is the real part of Σ z_i conj(w_i), so turning by p and by q leaves exp(j (p - q) …):
only the distance counts.

A turn is linear and keeps lengths, so its matrix R is orthogonal: y = R x gives dx = Rᵀ dy = R⁻¹ dy. The gradient
is turned back by the same angle.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import Array


def rotation_table(context: int, head_width: int, base: float) -> tuple[Array, Array]:
    """cos and sin of the angle of point i at position p, p base^(-2i/K), two of [context K/2]."""
    angles = [[p * base ** (-2 * i / head_width) for i in range(head_width // 2)] for p in range(context)]
    return np.cos(angles), np.sin(angles)


def rotate(x: Array, positions: NDArray[np.int64], base: float = 10000.0) -> Array:
    """x [... T K] turned by its positions [T] -> [... T K]."""
    half = x.shape[-1] // 2
    angles = np.outer(positions, base ** (-np.arange(half) / half))  # [T K/2]
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate((turned.real, turned.imag), axis=-1)


def rotate_grad(positions: NDArray[np.int64], dout: Array, base: float = 10000.0) -> Array:
    """The gradient [... T K] of x from the gradient dout of the turned x: dout turned back."""
    return rotate(dout, -positions, base)
