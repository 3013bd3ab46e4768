"""Rewards, advantages and returns: against hand numbers, a double loop, and padding full of junk."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.records import Rollout
from minirlhf.rollout.experience import estimate_advantages, token_rewards, values_after_cut
from tests.helpers.tiny_rl import junk_ids, tiny_rollout, tiny_value_model, widened


def rollout_of(values, scores, ended, old=None, ref=None) -> Rollout:
    """A rollout from nested lists of unequal length, one prompt token a row."""
    lengths = [len(row) for row in values]
    mask = torch.tensor([[t < n for t in range(max(lengths))] for n in lengths])

    def padded(rows):
        return torch.tensor([[*row, *[0.0] * (max(lengths) - len(row))] for row in rows], dtype=torch.float64)

    zeros = [[0.0] * n for n in lengths]
    return Rollout(
        ids=torch.zeros((len(values), 1 + max(lengths)), dtype=torch.int64),
        attention_mask=torch.cat([torch.ones((len(values), 1), dtype=torch.bool), mask], dim=1),
        response_mask=mask,
        ended=torch.tensor(ended),
        old_log_probs=padded(old or zeros),
        ref_log_probs=padded(ref or zeros),
        values=padded(values),
        scores=torch.tensor(scores, dtype=torch.float64),
        prompts=("",) * len(values),
        responses=("",) * len(values),
    )


def test_rewards_by_hand():
    rollout = rollout_of(
        [[0.0] * 3, [0.0]], [2.0, -1.0], [True, True], [[-1.0, -2.0, -0.5], [-3.0]], [[-1.5, -1.0, -0.5], [-1.0]]
    )
    expected = [[-0.1 * 0.5, -0.1 * -1.0, 2.0], [-1.0 - 0.1 * -2.0, 0.0, 0.0]]
    torch.testing.assert_close(token_rewards(rollout, 0.1), torch.tensor(expected, dtype=torch.float64))


def test_a_score_clip_limits_the_score_but_not_the_penalty():
    rollout = rollout_of([[0.0]] * 2, [5.0, -7.0], [True, True], [[-1.0], [-1.0]], [[-3.0], [-1.0]])
    assert token_rewards(rollout, 10.0, score_clip=1.5).squeeze(1).tolist() == [1.5 - 20.0, -1.5]


def double_loop(rewards, values, gamma, lam, beyond):
    """sum over l of (gamma lambda)^l (r[t+l] + gamma V[t+l+1] - V[t+l]), for one row, written out."""
    n, v = len(rewards), [*values, beyond]
    return [
        sum((gamma * lam) ** (k - t) * (rewards[k] + gamma * v[k + 1] - v[k]) for k in range(t, n)) for t in range(n)
    ]


numbers = st.floats(-3, 3, allow_nan=False, allow_subnormal=False)
rows = st.lists(st.lists(numbers, min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(rows, st.floats(0, 1), st.floats(0, 1), st.booleans(), st.data())
def test_advantages_equal_a_double_loop_over_each_row(values, gamma, lam, bootstrap, data):
    n = len(values)
    scores = data.draw(st.lists(numbers, min_size=n, max_size=n))
    ended = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    beyond = data.draw(st.lists(numbers, min_size=n, max_size=n))
    rollout = rollout_of(values, scores, ended)
    last_values = torch.tensor(beyond, dtype=torch.float64) if bootstrap else None
    experience = estimate_advantages(
        rollout, token_rewards(rollout, 0.3), gamma, lam, whiten_advantages=False, last_values=last_values
    )
    for row, value in enumerate(values):
        rewards = [0.0] * (len(value) - 1) + [scores[row]]
        after = beyond[row] if bootstrap and not ended[row] else 0.0
        expected = torch.tensor(double_loop(rewards, value, gamma, lam, after), dtype=torch.float64)
        torch.testing.assert_close(experience.advantages[row, : len(value)], expected, rtol=1e-10, atol=1e-12)
        returns = expected + torch.tensor(value, dtype=torch.float64)
        torch.testing.assert_close(experience.returns[row, : len(value)], returns, rtol=1e-10, atol=1e-12)


def test_whitened_rewards_keep_the_sign_of_their_mean_and_returns_are_left_in_reward_units():
    rollout = rollout_of([[0.5, 0.5], [0.5]], [3.0, 5.0], [True, True])
    rewards = token_rewards(rollout, 0.0)
    raw = estimate_advantages(rollout, rewards, whiten_advantages=False)
    white = estimate_advantages(rollout, rewards, whiten_advantages=True)
    assert torch.equal(raw.returns, white.returns)
    counted = white.advantages[rollout.response_mask]
    torch.testing.assert_close(counted.mean(), torch.tensor(0.0, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(counted.square().mean(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-6, atol=0)
    scaled = estimate_advantages(rollout, rewards, whiten_rewards=True, whiten_advantages=False)
    r = torch.tensor([0.0, 3.0, 5.0], dtype=torch.float64)  # counted rewards
    white_r = (r - r.mean()) / (r.var(correction=0) + 1e-8).sqrt() + r.mean()  # mean kept
    torch.testing.assert_close(scaled.returns[1, 0], white_r[2], rtol=1e-10, atol=0)


def test_an_advantage_clip_comes_after_whitening():
    rollout = rollout_of([[0.0]] * 5, [0.0, 0.0, 0.0, 0.0, 10.0], [True] * 5)
    rewards = token_rewards(rollout, 0.0)
    assert estimate_advantages(rollout, rewards).advantages.max() > 1.9
    assert estimate_advantages(rollout, rewards, advantage_clip=1.0).advantages.max() == 1.0
    assert estimate_advantages(rollout, rewards, advantage_clip=1.0).returns.max() == 10.0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 1000), st.sampled_from([0.0, 100.0, -1e9]))
def test_padding_full_of_junk_changes_no_reward_advantage_or_return(left, right, seed, junk):
    rollout = tiny_rollout(value_model=tiny_value_model())
    wide = widened(rollout, left, right, junk_ids(seed), junk)
    mask = rollout.response_mask
    for options in ({}, {"whiten_rewards": True}, {"whiten_advantages": False, "gamma": 0.9}):
        results = []
        for each in (rollout, wide):
            rewards = token_rewards(each, 0.2)
            experience = estimate_advantages(each, rewards, **options)
            results.append((rewards, experience.advantages, experience.returns))
        for narrow, padded in zip(*results, strict=True):
            torch.testing.assert_close(padded[wide.response_mask], narrow[mask], rtol=1e-12, atol=1e-12)
            assert (padded[~wide.response_mask] == 0).all()


def test_the_value_after_a_cut_answer_is_read_after_its_last_token():
    value_model = tiny_value_model()
    rollout = tiny_rollout(value_model=value_model)
    last_values = values_after_cut(value_model, rollout)
    for row in range(len(rollout.ids)):
        ids = rollout.ids[row, rollout.attention_mask[row]][None]
        expected = 0.0 if rollout.ended[row] else value_model(ids)[0, -1].item()
        assert last_values[row].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert (last_values != 0).any()
    assert not last_values.requires_grad


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.integers(0, 1000))
def test_the_value_after_a_cut_answer_does_not_depend_on_padding_behind_it(left, right, seed):
    value_model = tiny_value_model()
    rollout = tiny_rollout(value_model=value_model)
    last_values = values_after_cut(value_model, rollout)
    padded = values_after_cut(value_model, widened(rollout, left, right, junk_ids(seed), 100.0))
    torch.testing.assert_close(padded, last_values, rtol=1e-10, atol=1e-12)
