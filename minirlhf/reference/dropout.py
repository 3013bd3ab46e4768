"""Dropout as a mask, forward and backward. Srivastava et al. 2014, section 4 (scaled while training).

    y = x · m / (1 - rate),     m drawn once: 0 with probability rate, else 1.

The expectation of m / (1 - rate) is 1, so nothing has to change when dropout is off. Given the mask, dropout is a
product with a constant: dx = dy · m / (1 - rate). The same mask must serve both ways.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import Array


def dropout(x: Array, kept: NDArray[np.bool_], rate: float) -> Array:
    """x and kept [...] -> [...]."""
    return x * kept / (1 - rate)


def dropout_grad(kept: NDArray[np.bool_], rate: float, dout: Array) -> Array:
    """The gradient of x from the gradient dout of the output, all [...]."""
    return dout * kept / (1 - rate)
