"""Penalties on the size of weights, forward and backward.

    L2 (ridge):  λ/2 Σ w²        gradient λ w: a pull towards 0 in proportion to the distance
    L1 (lasso):  λ Σ |w|         gradient λ sign(w): the same pull at any distance, so that small weights end at 0

Goodfellow et al. 2016, eq. 7.1 and 7.18 ff. |w| has a kink at 0, where any slope from -λ to λ serves; sign(0) = 0 is
the one that leaves a weight of 0 alone. Under plain gradient descent an L2 penalty and weight decay are one; under
Adam, which rescales gradients, they are not (adamw.py).
"""

import numpy as np

from minirlhf.reference.softmax import Array


def l2_penalty(weight: Array, strength: float) -> float:
    """λ/2 Σ w², for a weight of any shape."""
    return strength / 2 * float((weight**2).sum())


def l2_penalty_grad(weight: Array, strength: float) -> Array:
    return strength * weight


def l1_penalty(weight: Array, strength: float) -> float:
    """λ Σ |w|, for a weight of any shape."""
    return strength * float(np.abs(weight).sum())


def l1_penalty_grad(weight: Array, strength: float) -> Array:
    return strength * np.sign(weight)
