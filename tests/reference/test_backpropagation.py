"""A network's way back on numbers one can check by eye; test_three_witnesses proves the formulas at large."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from minirlhf.reference.cross_entropy import cross_entropy, cross_entropy_grad
from minirlhf.reference.linear import linear, linear_grad
from minirlhf.reference.network import network_loss_grad, relu_grad
from minirlhf.reference.softmax import log_softmax, log_softmax_grad, softmax, softmax_grad

LN3 = np.log(3)


def test_a_linear_layer_sums_over_its_rows():
    x, weight, dout = (
        np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]),
        np.arange(6.0).reshape(2, 3),
        np.array([[1.0, -1], [2, 0]]),
    )
    assert linear(x, weight, np.array([10.0, 20.0])).tolist() == [[12, 31], [17, 39]]
    dx, dweight, dbias = linear_grad(x, weight, dout)
    assert dx.tolist() == [[-3, -3, -3], [0, 2, 4]]
    assert dweight.tolist() == [[1, 4, 6], [-1, -2, 0]]
    assert dbias.tolist() == [3, -1]


def test_axes_in_front_are_more_rows():
    rng = np.random.default_rng(0)
    x, weight, dout = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4)), rng.normal(size=(2, 3, 5))
    flat = linear_grad(x.reshape(6, 4), weight, dout.reshape(6, 5))
    for found, wanted in zip(linear_grad(x, weight, dout), flat, strict=True):
        assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-12)


def test_softmax_and_its_logarithm_at_one_and_three_quarters():
    z, d = np.array([[0.0, LN3]]), np.array([[1.0, 0.0]])
    assert_allclose(softmax(z), [[1 / 4, 3 / 4]], rtol=1e-14)
    assert_allclose(softmax_grad(softmax(z), d), [[3 / 16, -3 / 16]], rtol=1e-13)
    assert_allclose(log_softmax(2 * z, 2.0), np.log([[1 / 4, 3 / 4]]), rtol=1e-13)
    assert_allclose(log_softmax_grad(2 * z, d, 2.0), [[3 / 8, -3 / 8]], rtol=1e-13)
    assert_allclose(log_softmax_grad(z, 2 * d), [[3 / 2, -3 / 2]], rtol=1e-13)


def test_cross_entropy_is_a_mean_over_what_counts():
    logits, targets = np.array([[0.0, LN3], [LN3, 0.0], [5.0, 1.0]]), np.array([0, 0, 1])
    counted = np.array([True, True, False])
    assert_allclose(cross_entropy(logits, targets, counted), (np.log(4) + np.log(4 / 3)) / 2, rtol=1e-13)
    wanted = [[-3 / 8, 3 / 8], [-1 / 8, 1 / 8], [0, 0]]
    assert_allclose(cross_entropy_grad(logits, targets, counted), wanted, rtol=1e-13)


def test_a_closed_neuron_passes_nothing_and_neither_does_the_kink():
    z, dout = np.array([2.0, 0.0, -1.0, 3.0]), np.array([5.0, 7.0, 11.0, -13.0])
    assert relu_grad(z, dout).tolist() == [5, 0, 0, -13]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("truth", "surprise"), [(0, 3 / 4), (1, -1 / 4)])
def test_the_network_of_chapter_2(rows, truth, surprise):
    """Crumbs and feathers, whoever it was; the same morning three times has the same mean."""
    x, targets = np.array([[1.0, 2.0]] * rows), np.full(rows, truth)
    weights = [[[1.0, 1], [1, -1]], [-2.0, 0], [[0.0, 2], [LN3, 1]], [0.0, 0]]
    found = network_loss_grad(x, *map(np.array, weights), targets)
    d = surprise * LN3
    out = [[-surprise, 0], [surprise, 0]], [-surprise, surprise]
    wanted = ([[d / rows, d / rows]] * rows, [[d, 2 * d], [0, 0]], [d, 0], *out)
    for mine, right in zip(found, wanted, strict=True):
        assert_allclose(mine, right, rtol=1e-12, atol=1e-14)
