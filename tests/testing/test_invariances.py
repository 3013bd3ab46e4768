"""Padding, causality and order: right code passes, leaks do not."""

import numpy as np
import pytest
import torch

from minirlhf.nn.attention import eager_attend
from minirlhf.objectives.ppo import ppo_policy_loss
from minirlhf.testing import (
    attention_inputs,
    check_causality,
    check_padding_invariance,
    check_permutation_equivariance,
    proved,
    ragged_batches,
    rollouts,
)


def failure_of(check, *arguments, **options):
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **options)
    return str(caught.value)


def masked_mean(x, mask):
    return torch.where(mask, x, 0.0).sum() / mask.sum()


RAGGED = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([[True, True, False], [True, False, False]])


@proved(rollouts())
def test_a_masked_loss_ignores_padding_even_if_it_is_nan(rollout):
    arrays = rollout.log_probs, rollout.old_log_probs, rollout.advantages
    both = {"sides": ("left", "right"), "junk": (30.0, np.nan, np.inf)}
    check_padding_invariance(ppo_policy_loss, arrays, rollout.response_mask, **both)


@proved(ragged_batches())
def test_results_for_tokens_for_rows_and_for_all(batch):
    check_padding_invariance(
        lambda x, mask: (x.exp(), torch.where(mask, x, 0.0).sum(-1), masked_mean(x, mask)), batch.x, batch.mask
    )


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x, mask: x.mean(), "what stands in hidden places makes a difference"),
        (lambda x, mask: (x * mask).mean(), "2 more columns of padding on the right makes a difference"),
        (lambda x, mask: x.cumsum(-1).flip(-1), "what stands in hidden places"),
        (lambda x, mask: x - x.mean(-1, keepdim=True), "what stands in hidden places"),
        (lambda x, mask: (x * mask).sum(-1) / x.shape[-1], "2 more columns"),
    ],
    ids=["missing_mask", "wrong_count", "leak_between_tokens", "unmasked_mean", "row_mean_over_padding"],
)
def test_leaks_through_padding(function, said):
    text = failure_of(check_padding_invariance, function, *RAGGED)
    assert said in text and "mask = np.array([[True, True, False" in text


def test_a_hidden_place_must_not_learn():
    """The value is right; the gradient of the hidden numbers is not 0."""

    def loss(x, mask):
        return masked_mean(x, mask) + (x - x.detach()).sum()

    assert "gradient for x[" in failure_of(check_padding_invariance, loss, *RAGGED)


def test_multiplying_by_zero_lets_nan_through():
    def loss(x, mask):
        return (x * mask).sum() / mask.sum()

    check_padding_invariance(loss, *RAGGED)
    assert "got       nan" in failure_of(check_padding_invariance, loss, *RAGGED, junk=[np.nan])


def test_ids_can_be_padded_and_sides_differ():
    ids, table = np.array([[3, 1, 0], [2, 0, 0]]), torch.arange(4.0, dtype=torch.float64)
    check_padding_invariance(lambda ids, mask: masked_mean(table[ids], mask), ids, RAGGED[1], sides=("left", "right"))
    assert "hidden" in failure_of(check_padding_invariance, lambda ids, mask: table[ids].sum(), ids, RAGGED[1])

    def counts_columns(x, mask):
        return masked_mean(x * torch.arange(x.shape[1]), mask)

    check_padding_invariance(counts_columns, *RAGGED)
    assert "on the left" in failure_of(check_padding_invariance, counts_columns, *RAGGED, sides=("left",))


def test_shapes_and_masks_are_checked():
    with pytest.raises(ValueError, match="must be bool"):
        check_padding_invariance(masked_mean, RAGGED[0], RAGGED[1].astype(int))
    with pytest.raises(ValueError, match="does not begin with the mask's"):
        check_padding_invariance(masked_mean, RAGGED[0][:, :2], RAGGED[1])
    with pytest.raises(ValueError, match="axis 1 should be 3 long"):
        check_causality(lambda x: x.sum(-1), RAGGED[0])
    with pytest.raises(ValueError, match="equally long"):
        check_permutation_equivariance(lambda x, y: x, RAGGED, axis=(0, 1))


def test_a_running_sum_is_causal_and_what_looks_ahead_is_not():
    x = RAGGED[0]
    check_causality(lambda x: x.cumsum(1), x)
    check_causality(lambda x: x.cumsum(0), x, axis=0)
    assert "output up to position 0 changed" in failure_of(check_causality, lambda x: x.flip(1).cumsum(1).flip(1), x)
    assert "sees the future" in failure_of(check_causality, lambda x: x - x.mean(1, keepdim=True), x)
    assert "sees the future" in failure_of(check_causality, lambda x: x.roll(-1, 1), np.zeros((1, 3)))
    ids, table = np.zeros((1, 3), dtype=np.int64), torch.arange(4.0, dtype=torch.float64)
    check_causality(lambda ids: table[ids].cumsum(1), ids)
    assert "ids_changed = np.array([[0, 1, 1]])" in failure_of(check_causality, lambda ids: table[ids].roll(-1, 1), ids)


@proved(attention_inputs(max_past=0))
def test_attention_is_causal_in_keys_and_values(case):
    q, k, v, visible = (torch.tensor(getattr(case, name)) for name in ("q", "k", "v", "visible"))
    check_causality(lambda v: eager_attend(q, k, v, visible), case.v, axis=2)
    check_causality(lambda k: eager_attend(q, k, v, visible), case.k, axis=2)
    everything = torch.ones_like(visible)
    if visible.shape[-1] > 1:
        failure_of(check_causality, lambda v: eager_attend(q, k, v, everything), case.v, axis=2)


@proved(attention_inputs())
def test_attention_has_no_order_of_rows_and_groups_of_heads(case):
    arrays = case.q, case.k, case.v, case.visible
    check_permutation_equivariance(eager_attend, arrays, axis=0)
    group = case.q.shape[1] // case.k.shape[1]
    by_group = case.q.reshape(len(case.q), -1, group, *case.q.shape[2:])  # [B G Q T K]

    def grouped(q, k, v, visible):
        return eager_attend(q.flatten(1, 2), k, v, visible).unflatten(1, q.shape[1:3])

    check_permutation_equivariance(grouped, (by_group, *arrays[1:]), axis=(1, 1, 1, None))


def test_what_depends_on_the_order_is_seen():
    x = RAGGED[0]
    check_permutation_equivariance(lambda x: x.exp(), x)
    check_permutation_equivariance(lambda x: x.softmax(1), x, axis=1)
    check_permutation_equivariance(lambda x: x.mean(0), x, out_axis=None)
    text = failure_of(check_permutation_equivariance, lambda x: x.cumsum(0), x)
    assert "in the order [1, 0]" in text and "x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])" in text
    failure_of(check_permutation_equivariance, lambda x: x[0], x, out_axis=None)
    failure_of(check_permutation_equivariance, lambda x: x.mean(0), x, axis=1, out_axis=None)
