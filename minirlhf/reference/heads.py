"""Three readings of the decoder's last layer, forward and backward: a score, values, class logits.

A score reads the answer as a whole at its last real token l, x_l [D]: raw = w x_l + b, score = gain · raw + shift
(Ziegler et al. 2019, arXiv:1909.08593, section 2.1). gain and shift are constants once they are set, so

    draw = gain · dscore,     dw = Σ draw x_l,     db = Σ draw,     dx_l = draw w,     0 at every other token.

They are set so that reference scores s get mean 0 and standard deviation 1: gain = 1 / std(s), shift = -mean(s) gain.

A value is a linear layer at every token; class logits are one at the last real token.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.attention import Bools
from minirlhf.reference.linear import linear, linear_grad
from minirlhf.reference.softmax import Array


def last_real_index(attention_mask: Bools) -> NDArray[np.int64]:
    """The last True of each row, [B T] -> [B]."""
    return np.array([np.flatnonzero(row)[-1] for row in attention_mask])


def last_real(x: Array, attention_mask: Bools) -> Array:
    """x [B T D] at each row's last real token, [B D]."""
    return x[np.arange(len(x)), last_real_index(attention_mask)]


def last_real_grad(x: Array, attention_mask: Bools, dout: Array) -> Array:
    """The gradient [B T D] of x from the gradient dout [B D]: it goes where the reading came from."""
    gradient = np.zeros(x.shape)
    gradient[np.arange(len(x)), last_real_index(attention_mask)] = dout
    return gradient


def reward_model(
    x: Array, attention_mask: Bools, weight: Array, bias: Array, gain: float = 1.0, bias_shift: float = 0.0
) -> Array:
    """x [B T D], attention_mask [B T], weight [1 D], bias [1] -> scores [B]."""
    return gain * linear(last_real(x, attention_mask), weight, bias)[:, 0] + bias_shift


def reward_model_grad(
    x: Array, attention_mask: Bools, weight: Array, dscores: Array, gain: float = 1.0
) -> tuple[Array, Array, Array]:
    """(dx [B T D], dweight [1 D], dbias [1]) from the gradient dscores [B]."""
    read = last_real(x, attention_mask)
    dread, dweight, dbias = linear_grad(read, weight, gain * dscores[:, None])
    return last_real_grad(x, attention_mask, dread), dweight, dbias


def normalise(gain: float, bias_shift: float, reference_scores: Array) -> tuple[float, float]:
    """The gain and shift that give these scores, made under the old ones, mean 0 and standard deviation 1.

    new score = (old score - mean) / std = (gain raw + shift - mean) / std.
    """
    mean, std = float(reference_scores.mean()), float(reference_scores.std())
    return gain / std, (bias_shift - mean) / std


def value_model(x: Array, weight: Array, bias: Array) -> Array:
    """x [B T D], weight [1 D], bias [1] -> values [B T]."""
    return linear(x, weight, bias)[..., 0]


def value_model_grad(x: Array, weight: Array, dvalues: Array) -> tuple[Array, Array, Array]:
    """(dx [B T D], dweight [1 D], dbias [1]) from the gradient dvalues [B T]."""
    return linear_grad(x, weight, dvalues[..., None])


def classifier(x: Array, attention_mask: Bools, weight: Array, bias: Array) -> Array:
    """x [B T D], weight [C D], bias [C] -> logits [B C]."""
    return linear(last_real(x, attention_mask), weight, bias)


def classifier_grad(x: Array, attention_mask: Bools, weight: Array, dlogits: Array) -> tuple[Array, Array, Array]:
    """(dx [B T D], dweight [C D], dbias [C]) from the gradient dlogits [B C]."""
    dread, dweight, dbias = linear_grad(last_real(x, attention_mask), weight, dlogits)
    return last_real_grad(x, attention_mask, dread), dweight, dbias
