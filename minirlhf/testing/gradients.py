"""Gradients by nudging: slow, simple, and owing nothing to anybody's calculus."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def central_difference(
    function: Callable[[NDArray[np.float64]], float], x: NDArray[np.float64], step: float = 1e-5
) -> NDArray[np.float64]:
    """(f(x + h e) - f(x - h e)) / 2h for every coordinate e of x, in float64.

    The error is about h^2 |f'''| / 6 from the curve and 1e-16 |f| / h from rounding: near 1e-10 for smooth functions
    of size 1 at the default h = 1e-5. Keep x several h away from kinks (clips, maxima).
    Raises: ValueError unless x is float64 and step is positive.
    """
    if x.dtype != np.float64:
        raise ValueError(f"x must be float64, got {x.dtype}: lower precision would drown the differences")
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        # What was really added differs from step by rounding; dividing by it keeps that out of the result.
        gradient[index] = (float(function(above)) - float(function(below))) / (above[index] - below[index])
    return gradient
