"""Reference, reduction and accumulation: right code passes, planted mistakes do not."""

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.objectives.ppo import clipped_value_loss, ppo_policy_loss
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.reference import bradley_terry as reference
from minirlhf.reference import norm as norm_reference
from minirlhf.testing import (
    check_accumulation,
    check_against_reference,
    check_reduces_to,
    norm_inputs,
    preference_pairs,
    proved,
    rollouts,
)

SCORES = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
GRAD = reference.bradley_terry_grad


def failure_of(check, *arguments, **options):
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **options)
    return str(caught.value)


@proved(preference_pairs())
def test_a_loss_equals_its_reference(pairs):
    scores = pairs.chosen_scores, pairs.rejected_scores
    check_against_reference(bradley_terry, reference.bradley_terry, *scores, reference_gradient=GRAD)


@proved(norm_inputs())
def test_a_layer_equals_its_reference_under_an_upstream_gradient(case):
    def rms_norm(x, weight):
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight

    options = {"reference_gradient": norm_reference.rms_norm_grad, "rtol": 1e-8, "atol": 1e-9}
    check_against_reference(rms_norm, norm_reference.rms_norm, case.x, case.weight, **options)
    if np.abs(case.x).max() > 0.1 and np.abs(case.weight).max() > 0.1:
        text = failure_of(check_against_reference, lambda x, w: rms_norm(x, w.detach()), norm_reference.rms_norm,
                          case.x, case.weight, **options)  # fmt: skip
        assert "gradient for w[" in text


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda chosen, rejected: -logsigmoid(rejected - chosen).mean(), "(value)"),
        (lambda chosen, rejected: -logsigmoid(chosen - rejected).sum(), "(value)"),
        (lambda chosen, rejected: -logsigmoid(chosen - rejected), "(shape of the value)"),
        (lambda chosen, rejected: (-logsigmoid(chosen - rejected).mean(), chosen), "2 results, expected 1"),
        (lambda chosen, rejected: -logsigmoid(chosen - rejected.detach()).mean(), "gradient for rejected[1]"),
        (lambda chosen, rejected: bradley_terry(chosen, rejected) * torch.nan, "(value)"),
    ],
    ids=["swapped", "sum_for_mean", "unreduced", "too_many", "detached", "nan"],
)
def test_a_wrong_loss_differs_from_its_reference(loss, said):
    text = failure_of(check_against_reference, loss, reference.bradley_terry, *SCORES, reference_gradient=GRAD)
    assert said in text and "rejected = np.array([0.0, 1.0, 0.5])" in text


def test_the_finite_difference_says_who_is_right():
    def wrong_grad(chosen, rejected):
        return tuple(2 * part for part in GRAD(chosen, rejected))

    text = failure_of(
        check_against_reference, bradley_terry, reference.bradley_terry, *SCORES, reference_gradient=wrong_grad
    )
    rows = dict(line.strip().rsplit("  ", 1) for line in text.splitlines()[1:4])
    got, expected, nudged = (float(number) for number in rows.values())
    assert [label.strip() for label in rows] == ["got (autograd)", "expected (by hand)", "by finite difference"]
    assert got == pytest.approx(nudged, rel=1e-5) and expected == pytest.approx(2 * got, rel=1e-5)


def test_an_argument_without_a_reference_gradient_is_data():
    def loss(x, baseline, detach):
        return (x * (x.detach() - (baseline.detach() if detach else baseline))).sum()

    def value(x, baseline, detach):
        return (x * (x - baseline)).sum()

    options = {"reference_gradient": lambda x, baseline, detach: x - baseline}
    check_against_reference(loss, value, *SCORES, True, **options)
    text = failure_of(check_against_reference, loss, value, *SCORES, False, **options)
    assert "baseline gets a gradient" in text and "detach it" in text
    check_against_reference(loss, value, *SCORES, False, wrt="x", **options)


def test_one_function_reduces_to_another():
    def powers(x, p):
        return (x.abs() ** p).sum()

    x = np.array([1.0, -2.0])
    check_reduces_to(lambda x: powers(x, 2), lambda x: x.square().sum(), x)
    text = failure_of(check_reduces_to, lambda x: powers(x, 3), lambda x: x.square().sum(), x)
    assert "got       9\n  expected  5" in text and "x = np.array([1.0, -2.0])" in text
    text = failure_of(check_reduces_to, lambda x: x.square().sum(), lambda x: (x * x.detach()).sum(), x)
    assert "gradient for x[1]" in text  # equal values are not enough


@proved(rollouts())
def test_ppo_reduces_to_reinforce_where_the_policy_has_not_moved(rollout):
    def shifted(log_probs, advantages, mask):
        return ppo_policy_loss(log_probs, log_probs.detach(), advantages, mask)

    def centred(log_probs, advantages, mask):  # REINFORCE's value differs by a constant: -A log p against -A
        loss = reinforce_loss(log_probs, advantages, mask)
        return loss - loss.detach() + shifted(log_probs, advantages, mask).detach()

    check_reduces_to(shifted, centred, rollout.log_probs, rollout.advantages, rollout.response_mask, wrt="log_probs")


def by_count(loss):
    return lambda part, whole: loss(*part, count=whole[-1].sum())


@proved(rollouts())
def test_micro_batches_add_up(rollout):
    mask = rollout.response_mask
    policy = rollout.log_probs, rollout.old_log_probs, rollout.advantages, mask
    check_accumulation(ppo_policy_loss, *policy, part_loss=by_count(ppo_policy_loss))
    value = rollout.values, rollout.old_values, rollout.returns, mask
    check_accumulation(clipped_value_loss, *value, part_loss=by_count(clipped_value_loss))
    check_accumulation(lambda x, m: (x * m).sum(), rollout.values, mask)


def test_a_mean_of_means_does_not_add_up():
    """Three rows with 1, 2 and 3 counted tokens: the mean over tokens is no mean of the rows' means."""
    x = np.arange(9.0).reshape(3, 3)
    mask = np.tril(np.ones((3, 3), dtype=bool))

    def mean(x, mask):
        return (x * mask).sum() / mask.sum()

    check_accumulation(mean, x, mask, part_loss=lambda part, whole: mean(*part) * part[-1].sum() / whole[-1].sum())
    text = failure_of(
        check_accumulation, mean, x, mask, part_loss=lambda part, whole: mean(*part) * len(part[0]) / len(whole[0])
    )
    assert "mean: rows 0:1, 1:3 do not add up to the whole (value)" in text and "mask = np.array([[True, " in text
    assert "do not add up" in failure_of(check_accumulation, mean, x, mask)


def test_what_is_cut_can_be_chosen_and_gradients_count():
    x, table = np.array([1.0, 2.0]), np.array([3.0, 4.0])

    def loss(x, table):
        return (x[:, None] * table).sum()

    check_accumulation(loss, x, table, batched="x")
    assert "do not add up" in failure_of(check_accumulation, loss, x, table)
    text = failure_of(
        check_accumulation, loss, x, table, batched="x",
        part_loss=lambda part, whole: loss(part[0], part[1].detach()),
    )  # fmt: skip
    assert "gradient for table" in text
    with pytest.raises(ValueError, match="no argument has a batch axis"):
        check_accumulation(loss, 1.0, 2.0)
