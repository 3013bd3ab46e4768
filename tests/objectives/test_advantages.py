import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.advantages import clip_magnitude, gae, last_response_index, shape_rewards
from minirlhf.reference import advantages as reference
from minirlhf.testing.strategies import rollouts

fractions = st.sampled_from([0.0, 0.3, 0.95, 1.0])


def tensors(rollout, *names):
    return [torch.tensor(getattr(rollout, name)) for name in names]


@given(rollouts(), st.floats(0, 2))
def test_rewards_equal_the_definition_and_sum_to_score_minus_penalty(rollout, kl_coef):
    arrays = rollout.scores, rollout.log_probs, rollout.ref_log_probs, rollout.response_mask
    rewards = shape_rewards(*map(torch.tensor, arrays), kl_coef)
    assert_allclose(rewards, reference.shape_rewards(*arrays, kl_coef), rtol=1e-12, atol=1e-14)
    penalty = ((rollout.log_probs - rollout.ref_log_probs) * rollout.response_mask).sum(1)
    assert_allclose(rewards.sum(1), rollout.scores - kl_coef * penalty, rtol=1e-11, atol=1e-12)
    assert (rewards.numpy()[~rollout.response_mask] == 0).all()


def test_rewards_of_three_tokens_by_hand():
    """Penalties 0.1 * (0.5, -1, 2); the score stands at the last real token, once; a token likelier than under the
    reference is paid for, a less likely one is paid back, so moving away from the reference lowers the return."""
    log_probs = torch.tensor([[-1.0, -2.0, -1.0, 7.0]], dtype=torch.float64)
    ref_log_probs = torch.tensor([[-1.5, -1.0, -3.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    rewards = shape_rewards(torch.tensor([10.0]), log_probs, ref_log_probs, mask, kl_coef=0.1)
    assert_allclose(rewards, [[-0.05, 0.1, 9.8, 0.0]], rtol=1e-12)
    further = shape_rewards(torch.tensor([10.0]), log_probs, ref_log_probs - 1, mask, kl_coef=0.1)
    assert_allclose(further.sum(), rewards.sum() - 0.3, rtol=1e-12)


@given(rollouts(), fractions, fractions, st.sampled_from(["terminal", "bootstrap", "bootstrap without last_values"]))
def test_gae_equals_the_double_loop(rollout, gamma, gae_lambda, truncated):
    rewards, values, mask, ended, last_values = tensors(
        rollout, "rewards", "values", "response_mask", "ended", "last_values"
    )
    last = rollout.response_mask.sum(1) - 1
    beyond = {
        "terminal": np.zeros_like(rollout.last_values),
        "bootstrap": np.where(rollout.ended, 0, rollout.last_values),
        "bootstrap without last_values": np.where(rollout.ended, 0, rollout.values[np.arange(len(last)), last]),
    }[truncated]
    advantages, returns = gae(
        rewards,
        values,
        mask,
        gamma,
        gae_lambda,
        ended=ended,
        truncated=truncated.split()[0],
        last_values=last_values if truncated == "bootstrap" else None,
    )
    by_definition = reference.gae(rollout.rewards, rollout.values, rollout.response_mask, gamma, gae_lambda, beyond)
    assert_allclose(advantages, by_definition[0], rtol=1e-11, atol=1e-12)
    assert_allclose(returns, by_definition[1], rtol=1e-11, atol=1e-12)


@given(rollouts(), fractions)
def test_lambda_one_is_return_minus_value_and_lambda_zero_the_td_error(rollout, gamma):
    rewards, values, mask = tensors(rollout, "rewards", "values", "response_mask")
    discounted = reference.discounted_returns(
        rollout.rewards, rollout.response_mask, gamma, np.zeros(len(rollout.scores))
    )
    advantages, returns = gae(rewards, values, mask, gamma, 1.0)
    assert_allclose(returns, discounted, rtol=1e-11, atol=1e-12)
    assert_allclose(advantages, (discounted - rollout.values) * rollout.response_mask, rtol=1e-11, atol=1e-12)

    for b, length in enumerate(rollout.response_mask.sum(1)):
        for t in range(length):
            after = rollout.values[b, t + 1] if t + 1 < length else 0.0
            td_error = rollout.rewards[b, t] + gamma * after - rollout.values[b, t]
            assert_allclose(gae(rewards, values, mask, gamma, 0.0)[0][b, t], td_error, rtol=1e-12, atol=1e-13)


HAND_REWARDS = torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
HAND_VALUES = torch.tensor([[0.5, 0.6, 0.7, 100.0]], dtype=torch.float64)
HAND_MASK = torch.tensor([[True, True, True, False]])
CUT, WHOLE = torch.tensor([False]), torch.tensor([True])


@pytest.mark.parametrize(
    ("ended", "truncated", "last_values", "advantages"),
    [
        # deltas -0.2, -0.25, 1 - 0.7; each advantage adds a quarter of the next
        (WHOLE, "terminal", None, [-0.24375, -0.175, 0.3]),
        (CUT, "terminal", None, [-0.24375, -0.175, 0.3]),
        (WHOLE, "bootstrap", torch.tensor([2.0]), [-0.24375, -0.175, 0.3]),
        # the last delta becomes 1 + 0.5 * 2 - 0.7
        (CUT, "bootstrap", torch.tensor([2.0]), [-0.18125, 0.075, 1.3]),
        # or 1 + 0.5 * 0.7 - 0.7, when the value before the last token has to do
        (CUT, "bootstrap", None, [-0.221875, -0.0875, 0.65]),
    ],
)
def test_a_response_cut_by_the_maximum_length_by_hand(ended, truncated, last_values, advantages):
    """gamma = lambda = 1/2."""
    found, returns = gae(
        HAND_REWARDS, HAND_VALUES, HAND_MASK, 0.5, 0.5, ended=ended, truncated=truncated, last_values=last_values
    )
    assert_allclose(found, [[*advantages, 0.0]], rtol=1e-12)
    assert_allclose(returns[0, :3], np.add(advantages, [0.5, 0.6, 0.7]), rtol=1e-12)


@given(
    rollouts(),
    st.integers(0, 3),
    st.sampled_from([100.0, math.nan, math.inf]),
    st.sampled_from(["terminal", "bootstrap"]),
)
def test_padding_with_junk_changes_nothing(rollout, padding, junk, truncated):
    """Junk under every pad already there, and under new columns of padding."""
    rewards, values, mask, ended, last_values = tensors(
        rollout, "rewards", "values", "response_mask", "ended", "last_values"
    )
    log_probs, ref_log_probs, scores = tensors(rollout, "log_probs", "ref_log_probs", "scores")
    last_values = last_values if truncated == "bootstrap" else None
    columns = mask.shape[1]

    def dirty(x):
        planted = x.masked_fill(~mask, junk)
        return torch.cat([planted, torch.full((len(x), padding), junk, dtype=x.dtype)], dim=1)

    longer_mask = torch.cat([mask, torch.zeros(len(mask), padding, dtype=torch.bool)], dim=1)
    for clean, planted in (
        (
            gae(rewards, values, mask, 0.9, 0.8, ended=ended, truncated=truncated, last_values=last_values),
            gae(
                dirty(rewards), dirty(values), longer_mask, 0.9, 0.8,
                ended=ended, truncated=truncated, last_values=last_values,
            ),
        ),
        (
            [shape_rewards(scores, log_probs, ref_log_probs, mask, 0.1)],
            [shape_rewards(scores, dirty(log_probs), dirty(ref_log_probs), longer_mask, 0.1)],
        ),
    ):  # fmt: skip
        for short, long in zip(clean, planted, strict=True):
            assert torch.equal(long[:, :columns], short)
            assert (long[~longer_mask] == 0).all()


def test_rewards_advantages_and_returns_carry_no_graph():
    leaf = torch.zeros(2, 3, requires_grad=True)
    mask = torch.ones(2, 3, dtype=torch.bool)
    rewards = shape_rewards(leaf[:, 0], leaf * 2, leaf, mask, 0.1)
    advantages, returns = gae(leaf * 2, leaf, mask)
    assert not (rewards.requires_grad or advantages.requires_grad or returns.requires_grad)


def test_inputs_are_left_as_they_were():
    rewards, values = HAND_REWARDS.clone(), HAND_VALUES.clone()
    gae(rewards, values, HAND_MASK, ended=CUT, truncated="bootstrap", last_values=torch.tensor([2.0]))
    assert torch.equal(rewards, HAND_REWARDS) and torch.equal(values, HAND_VALUES)


def test_clipping_is_off_by_default_and_symmetric():
    x = torch.tensor([-7.0, -1.0, 0.0, 3.0])
    assert clip_magnitude(x) is x
    assert clip_magnitude(x, 2.0).tolist() == [-2.0, -1.0, 0.0, 2.0]
    with pytest.raises(ValueError, match="positive"):
        clip_magnitude(x, 0.0)


def test_what_does_not_fit_is_refused():
    mask, zeros = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3)
    gap, empty = mask.clone(), mask.clone()
    gap[0, 1], empty[1] = False, False
    for bad, message in ((gap, "gap"), (empty, "first token"), (zeros, "bool"), (mask[0], r"\[B R\]")):
        with pytest.raises(ValueError, match=message):
            last_response_index(bad)
    with pytest.raises(ValueError, match="scores have shape"):
        shape_rewards(torch.zeros(3), zeros, zeros, mask, 0.1)
    with pytest.raises(ValueError, match="kl_coef"):
        shape_rewards(torch.zeros(2), zeros, zeros, mask, -0.1)
    with pytest.raises(ValueError, match="values has shape"):
        gae(zeros, zeros[:, :2], mask)
    with pytest.raises(ValueError, match="gae_lambda"):
        gae(zeros, zeros, mask, 1.0, 1.5)
    with pytest.raises(ValueError, match="needs ended"):
        gae(zeros, zeros, mask, truncated="bootstrap")
    with pytest.raises(ValueError, match="last_values has shape"):
        gae(zeros, zeros, mask, ended=mask[:, 0], truncated="bootstrap", last_values=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="only read by"):
        gae(zeros, zeros, mask, last_values=torch.zeros(2))
    with pytest.raises(ValueError, match='"terminal" or "bootstrap"'):
        gae(zeros, zeros, mask, truncated="cut")
