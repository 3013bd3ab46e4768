"""AdamW and clipping by global norm, one tensor at a time: NumPy float64.

Kingma and Ba 2015, arXiv:1412.6980, algorithm 1, with the decay of Loshchilov and Hutter 2019, arXiv:1711.05101,
algorithm 2, line 12 (scaled by the learning rate, as is usual):

    m <- b1 m + (1 - b1) g            v <- b2 v + (1 - b2) g^2
    m_hat = m / (1 - b1^t)            v_hat = v / (1 - b2^t)
    w <- w - lr (m_hat / (sqrt(v_hat) + eps) + decay w)

Why the bias correction: from m_0 = 0, m_t = (1 - b1) sum_i b1^(t-i) g_i, and the weights sum to 1 - b1^t, not to 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def adamw_step(
    weight: Floats,
    gradient: Floats,
    first: Floats,
    second: Floats,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[Floats, Floats, Floats]:
    """The new (weight, first moment, second moment); step counts from 1."""
    beta1, beta2 = betas
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * gradient**2
    first_hat, second_hat = first / (1 - beta1**step), second / (1 - beta2**step)
    decay = weight_decay * weight if weight.ndim >= 2 else 0.0
    return weight - learning_rate * (first_hat / (np.sqrt(second_hat) + eps) + decay), first, second


def clip_grad_norm(gradients: Sequence[Floats], max_norm: float) -> tuple[list[Floats], float]:
    """Gradients scaled so that their common norm is at most max_norm, and the norm before.

    Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """
    norm = float(np.sqrt(sum(float((gradient**2).sum()) for gradient in gradients)))
    return [gradient * min(1.0, max_norm / norm) if norm else gradient for gradient in gradients], norm
