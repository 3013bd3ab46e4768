"""check_gradient passes what is right, whatever its scale, and catches what is planted, and says what is wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.objectives.ppo import ppo_policy_loss
from minirlhf.reference import bradley_terry as bt_reference
from minirlhf.reference import norm as norm_reference
from minirlhf.reference import ppo as ppo_reference
from minirlhf.testing import check_gradient, floats, norm_inputs, preference_pairs, proved, rollouts


class WrongSign(torch.autograd.Function):
    """x squared, halved, with the gradient -x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square() / 2

    @staticmethod
    def backward(ctx, upstream):
        return -ctx.saved_tensors[0] * upstream


def failure_of(*arguments, **options):
    with pytest.raises(AssertionError) as caught:
        check_gradient(*arguments, **options)
    return str(caught.value)


# What is right passes.


@proved(preference_pairs())
def test_a_loss_passes_by_autograd_and_by_hand(pairs):
    scores = pairs.chosen_scores, pairs.rejected_scores
    assert check_gradient(bradley_terry, *scores) == 2 * len(scores[0])
    by_hand = bt_reference.bradley_terry_grad
    assert check_gradient(bt_reference.bradley_terry, *scores, gradient=by_hand) == 2 * len(scores[0])


@proved(rollouts(), st.sampled_from([0.1, 0.2, 0.5]))
def test_a_clip_passes_when_its_kinks_are_declared(rollout, clip_range):
    def kinks(log_probs, old_log_probs, *_):
        return [log_probs - old_log_probs - math.log(1 + sign * clip_range) for sign in (-1, 1)]

    data = rollout.old_log_probs, rollout.advantages, rollout.response_mask, clip_range
    checked = check_gradient(ppo_policy_loss, rollout.log_probs, *data, kinks=kinks, wrt="log_probs")
    assert checked <= rollout.log_probs.size
    grad = ppo_reference.ppo_policy_loss_grad
    reference = ppo_reference.ppo_policy_loss
    assert check_gradient(reference, rollout.log_probs, *data, gradient=grad, kinks=kinks) == checked


@proved(norm_inputs(), st.sampled_from([1e-5, 1e-8]))
def test_a_function_that_bends_at_a_small_scale_passes(case, eps):
    """A norm near 0 bends at √eps, a ten-thousandth: the step shrinks until the differences agree."""

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()

    assert check_gradient(norm, case.x) == case.x.size


def test_results_that_are_arrays_are_summed_and_their_upstream_gradient_is_handed_over():
    case = np.array([[0.5, -1.0, 2.0]]), np.array([1.0, 2.0, -1.0])
    assert check_gradient(norm_reference.rms_norm, *case, gradient=norm_reference.rms_norm_grad) == 6
    at_0 = np.array([0.0, 1.0])  # an integer result counts nothing: its jump at 0 is none of the gradient
    assert check_gradient(lambda x: (x.sin(), x.exp().sum(), (x > 0).sum()), at_0) == 2
    text = failure_of(norm_reference.rms_norm, *case, gradient=lambda x, w, dout: (x, w))
    assert "rms_norm: wrong gradient for" in text


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (torch.exp, 3.0),
        (torch.sigmoid, -20.0),
        (lambda x: x**3, 0.0),
        (lambda x: x.log(), 1e-3),
        (lambda x: (10 * x).tanh(), 0.03),
        (lambda x: 1e9 + x * 1e3, 2.0),
        (lambda x: 1e9 + x, 2.0),
        (lambda x: x.square(), 1e8),
        (lambda x: (x - x).sum(), 1.0),
    ],
    ids=["exp", "flat", "cube_at_0", "near_the_edge", "steep", "far_from_0", "further", "large", "constant"],
)
def test_scales(function, x):
    """Wherever the slope can be seen at all (a slope of 1 on a hill of 1e9 cannot), an error of a hundredth is."""
    assert check_gradient(function, np.array([x])) == 1

    class Off(torch.autograd.Function):
        forward = staticmethod(lambda ctx, y: y.clone())
        backward = staticmethod(lambda ctx, upstream: 1.01 * upstream)

    leaf = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    value = function(leaf).sum()
    (slope,) = torch.autograd.grad(value, leaf)
    if abs(slope.item()) * max(1.0, abs(x)) > 1e-6 * max(1.0, abs(value.item())):
        assert "wrong gradient" in failure_of(lambda x: Off.apply(function(x)), np.array([x]))


def test_data_unused_arguments_and_the_choice_of_arguments():
    def loss(weights, scale, counts, unused, option=None):
        return scale.detach() * (weights * counts).sum() + 0 * len(option or "")

    arguments = np.array([[1.0, 2.0]]), np.array(3.0), np.array([1, 2]), np.ones(3), "word"
    assert "for scale\n" in failure_of(loss, *arguments)
    assert check_gradient(loss, *arguments, wrt=("weights", "unused")) == 5
    assert check_gradient(loss, *arguments, wrt=0) == 2
    assert check_gradient(lambda *xs: xs[0] * xs[1], np.array(2.0), torch.tensor(3.0, dtype=torch.float64)) == 2
    with pytest.raises(ValueError, match="no argument 'weight', only weights, scale"):
        check_gradient(loss, *arguments, wrt="weight")
    with pytest.raises(ValueError, match="counts is no float64 array"):
        check_gradient(loss, *arguments, wrt="counts")
    with pytest.raises(ValueError, match="weights is float32, it must be float64"):
        check_gradient(loss, arguments[0].astype(np.float32), *arguments[1:])
    with pytest.raises(ValueError, match="nothing to differentiate among x"):
        check_gradient(lambda x: x, 1.0)


# What is wrong fails.


def test_the_message_for_a_wrong_sign():
    def my_loss(x, scale):
        return (scale * WrongSign.apply(x)).sum()

    text = failure_of(my_loss, np.array([1.0, 2.0]), 0.5)
    assert text == (
        "my_loss: wrong gradient for x[1]\n"
        "  got (autograd)        -1\n"
        "  by finite difference   1\n"
        "  the sign is the wrong way round\n"
        "  wrong at 2 of 2 coordinates\n"
        "  arguments:\n"
        "    x = np.array([1.0, 2.0])\n"
        "    scale = 0.5"
    )


def test_the_message_for_a_detached_argument():
    def my_loss(chosen, rejected):
        return -logsigmoid(chosen - rejected.detach()).mean()

    text = failure_of(my_loss, np.zeros(1), np.zeros(1))
    assert "wrong gradient for rejected[0]" in text
    assert "no gradient flows to rejected: is it detached?" in text
    assert "wrong at 1 of 2" in text and "rejected = np.array([0.0])" in text


@proved(floats((2, 3)), st.sampled_from([2.0, 0.5, 1.0001, 0.0]))
def test_a_factor_is_seen_and_named(x, factor):
    x = np.where(abs(x) < 0.1, 1.0, x)
    text = failure_of(lambda x: (x**2).sum(), x, gradient=lambda x: factor * 2 * x)
    assert "got (the function)" in text and "by finite difference" in text
    assert ("times what it should be" in text) == (factor != 0.0)


@pytest.mark.parametrize(
    ("by_hand", "where"),
    [
        (lambda x: 2 * x, "x[0, 1]"),  # the term y is dropped
        (lambda x: 2 * x + x.sum(1, keepdims=True), "x["),  # summed over the wrong axis
        (lambda x: np.where(x > 1.5, 0.0, 2 * x + x.sum(0)), "x[0, 1]"),  # one coordinate forgotten
        (lambda x: np.full(x.shape, np.nan), "x["),
    ],
    ids=["dropped_term", "wrong_axis", "forgotten_coordinate", "nan"],
)
def test_wrong_by_hand(by_hand, where):
    def right(x):
        return (x**2).sum() + (x.sum(0) ** 2).sum() / 2

    x = np.array([[1.0, 2.0], [0.5, 1.0]])
    assert check_gradient(right, x, gradient=lambda x: 2 * x + x.sum(0)) == 4
    assert f"wrong gradient for {where}" in failure_of(right, x, gradient=by_hand)


def test_errors_do_not_cancel_in_the_sum():
    """A softmax adds up to 1: in a plain sum even a gradient with the wrong sign would be 0, as it should be."""
    x = np.array([0.5, -1.0, 2.0])
    assert check_gradient(lambda x: (x.square() / 2).softmax(0), x) == 3
    assert "the sign is the wrong way round" in failure_of(lambda x: WrongSign.apply(x).softmax(0), x)


def test_the_furthest_coordinate_is_shown():
    text = failure_of(lambda x: (x**2).sum(), np.ones(4), gradient=lambda x: 2 * x + np.array([0, 1e-3, 5.0, 1.0]))
    assert "wrong gradient for x[2]\n" in text and "wrong at 3 of 4 coordinates" in text
    text = failure_of(lambda x: (x**2).sum(), np.ones(2), gradient=lambda x: np.array([9.0, np.nan]))
    assert "wrong gradient for x[1]\n" in text and "nan" in text


def test_a_gradient_of_the_wrong_shape_or_number():
    x = np.ones((2, 3))

    with pytest.raises(AssertionError, match=r"has shape \(3, 2\)"):
        check_gradient(lambda x: x.sum(), x, gradient=lambda x: x.T)
    with pytest.raises(ValueError, match="returned 2 gradients for 1 arguments"):
        check_gradient(lambda x: x.sum(), x, gradient=lambda x: (x, x))


@pytest.mark.parametrize("at", [0.0, 3e-5, 1.2e-4, 2e-4])
def test_a_kink_is_rough_and_declared_it_is_left_out(at):
    """On the kink itself both central differences agree on 1/2; the second differences do not."""
    x = np.array([at, 1.0])

    def relu(x):
        return x.clamp(min=0).sum()

    if at == 0.0:
        assert "the function is not smooth at x[0]" in failure_of(lambda x: relu(x), x)
        assert "kinks=" in failure_of(relu, x)
    assert check_gradient(relu, x, kinks=lambda x: x) == 1
    assert check_gradient(relu, x[:1], kinks=lambda x: [x]) == 0
    assert at or check_gradient(relu, x, kinks=lambda x: (abs(x[0]),)) == 1  # touched, not crossed


def test_a_kink_that_another_coordinate_stands_on_does_not_count():
    """The second number lies on its kink; the first has a gradient all the same, and it is checked."""
    x = np.array([2.0, 0.0])
    assert check_gradient(lambda x: x[0] * (1 + x[1].clamp(min=0)), x, kinks=lambda x: [x[1]]) == 1
    assert "x[0]" in failure_of(lambda x: WrongSign.apply(x)[0] + x[1].abs(), x, kinks=lambda x: [x[1]])


@pytest.mark.parametrize("slope", [0.0, 1.0, 3.0])
def test_roughness_buys_no_tolerance(slope):
    """A sawtooth far finer than any step: no gradient passes, neither that of the tooth nor that of the hill."""

    def saw(x):
        return float((x + 1e-5 * np.sin(x * 1e9)).sum())

    assert "is not smooth at x[0]" in failure_of(saw, np.array([0.3]), gradient=lambda x: np.array([slope]))


def test_low_precision_inside_is_seen():
    x = np.array([0.3, 0.7])
    assert "not smooth" in failure_of(lambda x: (x.float() * 1.1).double().sum(), x)
    with pytest.raises(AssertionError, match="returned float32 for float64 arguments"):
        check_gradient(lambda x: x.float().sum(), x)
    with pytest.raises(AssertionError, match="returned float32"):
        check_gradient(lambda x: x.astype(np.float32).sum(), x, gradient=np.ones_like)


def test_random_changing_and_infinite_functions_are_named():
    x = np.array([0.5, 1.0])
    assert "gives two results for the same arguments" in failure_of(lambda x: (x * torch.rand(2)).sum(), x)
    with pytest.raises(AssertionError, match="doubled changes its argument x in place"):

        def doubled(x):
            return x.mul_(2).sum()

        check_gradient(doubled, x)
    with pytest.raises(AssertionError, match="changes its argument x in place"):
        check_gradient(lambda x: x.sum(), x, gradient=lambda x: np.multiply(x, 2, out=x))
    assert x.tolist() == [0.5, 1.0]
    assert "is not finite here: nan" in failure_of(lambda x: (x - 2).log().sum(), x)
    assert "is not finite within" in failure_of(lambda x: x.log().sum(), np.array([1e-8]))


@pytest.mark.parametrize(("returned", "said"), [(None, "NoneType"), ({"loss": 1.0}, "dict"), ("loss", "str")])
def test_what_is_no_number_is_named(returned, said):
    with pytest.raises(ValueError, match=rf"must return a number.*{said}"):
        check_gradient(lambda x: (x.sum(), returned), np.ones(2))
