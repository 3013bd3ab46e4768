"""The arrays of a process, drawing from them, returns, and policies made of numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from minirlhf.errors import UserError
from minirlhf.tabular.learning import constant, decaying
from minirlhf.tabular.policies import (
    epsilon_greedy_action,
    epsilon_greedy_policy,
    greedy_policy,
    likeliest_path,
    softmax_policy,
)
from minirlhf.tabular.process import DecisionProcess, discounted_returns, draw, expected_rewards, play, take_step
from minirlhf.testing.strategies import floats
from tests.tabular.worlds import every_episode, processes

DRAWS = 20_000


def within_noise(times: np.ndarray, probabilities: np.ndarray, draws: int = DRAWS) -> bool:
    """Counted frequencies, within five standard deviations of a binomial: a right one fails once in a million."""
    spread = np.sqrt(probabilities * (1 - probabilities) / draws)
    return bool((np.abs(times / draws - probabilities) <= 5 * spread + 1e-12).all())


@given(st.integers(0, 6).flatmap(lambda n: floats((n,))), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_returns_are_the_double_loop(rewards, gamma):
    steps = len(rewards)
    by_definition = [sum(gamma ** (k - t) * rewards[k] for k in range(t, steps)) for t in range(steps)]
    assert_allclose(discounted_returns(rewards, gamma), by_definition, rtol=1e-12, atol=1e-12)


@given(processes())
def test_expected_rewards_are_the_sum_over_what_may_happen(process):
    found = expected_rewards(process)
    for s, a in np.ndindex(found.shape):
        mean = sum(process.transitions[s, a, x] * process.rewards[s, a, x] for x in range(process.states))
        assert found[s, a] == pytest.approx(mean, abs=1e-12)


def test_draws_come_as_often_as_they_should_and_never_when_impossible():
    rng = np.random.default_rng(0)
    probabilities = np.array([0.0, 0.3, 0.0, 0.6, 0.1, 0.0])
    times = np.bincount([draw(probabilities, rng) for _ in range(DRAWS)], minlength=6)
    assert within_noise(times, probabilities)
    assert (times[probabilities == 0] == 0).all()


def test_a_step_has_the_transition_s_probabilities_and_pays_what_it_pays():
    transitions = np.array([[[0.2, 0.8], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    rewards = np.arange(8.0).reshape(2, 2, 2)
    process = DecisionProcess(transitions, rewards, np.array([False, True]), 0)
    rng = np.random.default_rng(1)
    steps = [take_step(process, 0, 0, rng) for _ in range(DRAWS)]
    assert within_noise(np.bincount([state for state, _ in steps]), transitions[0, 0])
    assert {(state, pay) for state, pay in steps} == {(0, 0.0), (1, 1.0)}
    assert take_step(process, 0, 1, rng) == (0, 2.0)


def test_episodes_come_as_often_as_their_probabilities_say():
    rng = np.random.default_rng(2)
    transitions = np.array([[[0.5, 0.5, 0], [0, 0.2, 0.8]], [[0.9, 0, 0.1], [0, 0, 1.0]], [[0, 0, 1.0], [0, 0, 1.0]]])
    process = DecisionProcess(transitions, transitions * 2.0, np.array([False, False, True]), 0)
    policy = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])
    chances: dict[tuple, float] = {}
    for chance, episode in every_episode(process, policy, longest=3):
        name = (*episode.states, *episode.actions, *episode.rewards)
        chances[name] = chances.get(name, 0.0) + chance
    assert sum(chances.values()) == pytest.approx(1)
    times = dict.fromkeys(chances, 0)
    for _ in range(DRAWS):
        episode = play(process, policy, rng, max_steps=3)
        times[(*episode.states, *episode.actions, *episode.rewards)] += 1
    assert within_noise(np.array(list(times.values())), np.array(list(chances.values())))


@given(floats((3, 4)), st.sampled_from([0.0, 0.1, 1.0]))
def test_policies_are_probabilities_that_prefer_what_is_worth_more(q, epsilon):
    greedy, mixed, soft = greedy_policy(q), epsilon_greedy_policy(q, epsilon), softmax_policy(q)
    for policy in (greedy, mixed, soft):
        assert_allclose(policy.sum(axis=1), 1, atol=1e-12)
        assert (policy >= 0).all()
    for row in range(3):
        assert greedy[row, q[row].argmax()] == 1
        assert_allclose(np.sort(mixed[row])[:-1], epsilon / 4, atol=1e-12)  # all but one are equally unlikely
        assert_allclose(np.log(soft[row]) - q[row], np.log(soft[row, 0]) - q[row, 0], atol=1e-12)
    assert_allclose(softmax_policy(q + 1000), soft, rtol=1e-9)  # a constant changes nothing, and nothing overflows


def test_the_drawn_action_follows_the_policy_that_is_written_down():
    q, rng = np.array([[0.3, 2.0, -1.0]]), np.random.default_rng(3)
    times = np.bincount([epsilon_greedy_action(q[0], 0.3, rng) for _ in range(DRAWS)], minlength=3)
    assert within_noise(times, epsilon_greedy_policy(q, 0.3)[0])


def test_the_likeliest_path_ends_at_a_terminal_state_or_after_max_steps():
    step = np.array([[[0.1, 0.9, 0], [0, 0, 1.0]], [[0.6, 0, 0.4], [0, 0, 1.0]], [[0, 0, 1.0], [0, 0, 1.0]]])
    process = DecisionProcess(step, 0 * step, np.array([False, False, True]), 0)
    assert likeliest_path(process, np.array([[0.9, 0.1], [0.2, 0.8], [1, 0]])) == [0, 1, 2]
    assert likeliest_path(process, np.array([[0.9, 0.1], [0.8, 0.2], [1, 0]]), max_steps=4) == [0, 1, 0, 1, 0]


def test_step_sizes():
    assert [constant(0.3)(n) for n in (1, 9)] == [0.3, 0.3]
    assert_allclose([decaying()(n) for n in (1, 2, 4)], [1, 1 / 2, 1 / 4])
    assert_allclose([decaying(0.5)(n) for n in (1, 4, 9)], [1, 1 / 2, 1 / 3])
    mean = 0.0
    for n, value in enumerate([3.0, 5.0, 10.0], start=1):
        mean += decaying()(n) * (value - mean)
    assert mean == pytest.approx(6)  # power 1 is the plain mean


def test_what_is_no_process_is_refused():
    good = np.full((2, 1, 2), 0.5)
    over = np.array([False, True])
    with pytest.raises(UserError, match="state 0, action 0"):
        DecisionProcess(good * np.array([0.8, 1.1])[:, None, None], good, over, 0)
    with pytest.raises(UserError, match="not probabilities"):
        DecisionProcess(np.array([[[1.5, -0.5]], [[0.0, 1.0]]]), good, over, 0)
    with pytest.raises(UserError, match="rewards do not fit the 2 states"):
        DecisionProcess(good, good[:, :, :1], over, 0)
    with pytest.raises(UserError, match="differ in shape"):
        DecisionProcess(good, np.zeros((2, 3, 2)), over, 0)
    with pytest.raises(UserError, match="no such start"):
        DecisionProcess(good, good, over, 2)
    assert_array_equal(DecisionProcess(good, good, over, 1).transitions.shape, (2, 1, 2))
