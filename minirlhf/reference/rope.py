"""Rotary position embedding. Su et al. 2021, arXiv:2104.09864, eq. 34.

A head's K numbers are K/2 complex numbers z_i = x[i] + j x[i + K/2]. At position p each is turned:

    z_i -> z_i exp(j p base^(-2i/K))

The dot product of two heads is the real part of Σ z_i conj(w_i), so turning by p and by q leaves exp(j (p - q) …):
only the distance counts.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import Array


def rope(x: Array, positions: NDArray[np.int64], base: float = 10000.0) -> Array:
    """x [T K] turned by its positions [T] -> [T K]."""
    half = x.shape[-1] // 2
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * np.outer(positions, base ** (-np.arange(half) / half)))
    return np.concatenate((turned.real, turned.imag), axis=-1)
