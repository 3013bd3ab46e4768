"""The road to Adam, one step of each, one tensor at a time: plain descent, momentum, RMSprop, Adam.

    descent    w <- w - lr g                                             Robbins and Monro 1951
    momentum   u <- β u + g,            w <- w - lr u                    Polyak 1964, eq. 9
    RMSprop    v <- β v + (1 - β) g²,   w <- w - lr g / (√v + eps)       Tieleman and Hinton 2012, lecture 6.5
    Adam       both, each divided by what its weights sum to             Kingma and Ba 2015, arXiv:1412.6980, alg. 1

What each adds: momentum lets steps in one direction add up, to 1/(1 - β) times the gradient at most; RMSprop measures
each coordinate's steps in units of its own recent gradients; Adam corrects both averages for having started at 0.
With β1 = β2 = 0 and eps -> 0 Adam's step is lr · sign(g). AdamW (adamw.py) adds the decay.
"""

import numpy as np

from minirlhf.reference.adamw import adamw_step
from minirlhf.reference.softmax import Array


def sgd_step(weight: Array, gradient: Array, learning_rate: float) -> Array:
    """The new weight."""
    return weight - learning_rate * gradient


def momentum_step(
    weight: Array, gradient: Array, velocity: Array, learning_rate: float, momentum: float
) -> tuple[Array, Array]:
    """The new (weight, velocity). velocity starts at 0."""
    velocity = momentum * velocity + gradient
    return weight - learning_rate * velocity, velocity


def rmsprop_step(
    weight: Array, gradient: Array, second: Array, learning_rate: float, beta: float, eps: float
) -> tuple[Array, Array]:
    """The new (weight, mean square of the gradients). second starts at 0."""
    second = beta * second + (1 - beta) * gradient**2
    return weight - learning_rate * gradient / (np.sqrt(second) + eps), second


def adam_step(
    weight: Array,
    gradient: Array,
    first: Array,
    second: Array,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
) -> tuple[Array, Array, Array]:
    """The new (weight, first moment, second moment); step counts from 1. AdamW without decay."""
    return adamw_step(weight, gradient, first, second, step, learning_rate, betas, eps, weight_decay=0.0)
