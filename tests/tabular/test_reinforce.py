"""The policy gradient: exact, by finite differences, and as the mean of what single episodes say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.tabular.grid import decision_process
from minirlhf.tabular.policies import softmax_policy
from minirlhf.tabular.process import Episode
from minirlhf.tabular.reinforce import (
    episode_gradient,
    expected_return,
    log_policy_gradient,
    policy_gradient,
    reinforce,
)
from minirlhf.tabular.value_iteration import value_iteration
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats
from tests.tabular.worlds import GAMMA, SMALL, every_episode, grids, processes

LONGEST = 3


@given(st.integers(2, 5).flatmap(lambda n: floats((n,))), st.integers(0, 4))
def test_the_slope_of_the_log_probability(logits, action):
    action %= len(logits)
    by_nudging = central_difference(lambda x: float(np.log(softmax_policy(x)[action])), logits)
    assert_allclose(log_policy_gradient(logits, action), by_nudging, rtol=1e-6, atol=1e-8)  # limited by the step
    assert log_policy_gradient(logits, action).sum() == pytest.approx(0, abs=1e-12)


@given(processes(), floats((4, 3)), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_the_exact_gradient_is_the_slope_of_the_expected_return(process, logits, gamma):
    by_nudging = central_difference(lambda x: expected_return(process, x, gamma), logits)
    assert_allclose(policy_gradient(process, logits, gamma), by_nudging, rtol=1e-6, atol=1e-7)  # limited by the step


@given(grids(), st.integers(0, 99))
@settings(max_examples=20)
def test_on_drawn_grids_too(grid, seed):
    process = decision_process(grid)
    logits = np.random.default_rng(seed).normal(size=(process.states, process.actions))
    by_nudging = central_difference(lambda x: expected_return(process, x, 0.8), logits)
    scale = 1e-8 * np.abs(process.rewards).max() / (1 - 0.8)  # a fall costs 100, and rounding grows with the values
    assert_allclose(policy_gradient(process, logits, 0.8), by_nudging, rtol=1e-6, atol=max(1e-7, scale))


def mean_return(process, logits, gamma):
    """Of all episodes of at most LONGEST steps, each with its probability."""
    return sum(
        chance * sum(gamma**t * reward for t, reward in enumerate(episode.rewards))
        for chance, episode in every_episode(process, softmax_policy(logits), LONGEST)
    )


@given(processes(states=3, actions=2), floats((3, 2)), floats((3,)), st.sampled_from([0.7, 1.0]))
@settings(max_examples=15)
def test_the_mean_over_all_episodes_is_the_gradient_whatever_the_baseline(process, logits, baseline, gamma):
    """Unbiased, by enumeration: finite differences of the mean return, a zero baseline and a drawn one agree."""
    by_nudging = central_difference(lambda x: mean_return(process, x, gamma), logits)
    episodes = list(every_episode(process, softmax_policy(logits), LONGEST))
    for b in (np.zeros(3), baseline):
        mean = sum(chance * episode_gradient(logits, episode, gamma, b) for chance, episode in episodes)
        assert_allclose(mean, by_nudging, rtol=1e-6, atol=1e-7)  # limited by the step


def test_a_baseline_takes_noise_away():
    """The value of a state as its baseline: the variance of one episode's estimate falls, its mean stays."""
    process = decision_process(SMALL)
    logits = np.random.default_rng(0).normal(size=(process.states, process.actions))
    values = np.full(process.states, -20.0)  # a world that costs: all returns are far below 0
    episodes = list(every_episode(process, softmax_policy(logits), longest=3))
    plain, centred = (
        np.array([episode_gradient(logits, shifted(episode), 1.0, b) for _, episode in episodes])
        for b in (np.zeros(process.states), values)
    )  # [episodes S A]
    chances = np.array([chance for chance, _ in episodes])[:, None, None]
    means = [(chances * each).sum(axis=0) for each in (plain, centred)]
    variances = [(chances * (each - mean) ** 2).sum() for each, mean in zip((plain, centred), means, strict=True)]
    assert_allclose(means[0], means[1], rtol=1e-9, atol=1e-9)
    assert variances[1] < variances[0] / 3


def shifted(episode):
    """Twenty less at the end: what every episode pays however it went."""
    rewards = episode.rewards.copy()
    rewards[-1] -= 20.0
    return Episode(episode.states, episode.actions, rewards)


def test_one_episode_by_hand():
    """Two visits to one state: with gamma 1/2 the second counts half, and each is weighed by what followed it."""
    logits = np.zeros((2, 2))  # all probabilities are 1/2, so a slope is +-1/2
    episode = Episode(np.array([0, 0]), np.array([1, 0]), np.array([2.0, 4.0]))
    found = episode_gradient(logits, episode, 0.5, np.array([1.0, 50.0]))
    first, second = 2 + 0.5 * 4 - 1, 0.5 * (4 - 1)
    assert_allclose(found, [[(second - first) / 2, (first - second) / 2], [0, 0]])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("baseline_step_size", "near"), [(0.0, 2.5), (0.1, 0.5)])
def test_reinforce_climbs_almost_to_the_best_there_is(seed, baseline_step_size, near):
    """A softmax never quite decides, so within 0.5 of the best return, from five below it.

    Without a baseline the first episodes, all worse than 0, push away whatever they happened to try: 2.5.
    """
    process = decision_process(SMALL)
    best = value_iteration(process, GAMMA)[process.start]
    learned = reinforce(process, 1500, np.random.default_rng(seed), GAMMA, 0.05, baseline_step_size)
    assert expected_return(process, np.zeros(learned.logits.shape), GAMMA) < best - 4
    assert best - near <= expected_return(process, learned.logits, GAMMA) <= best
    assert learned.returns[-200:].mean() > learned.returns[:50].mean() + 4
    assert (learned.baseline == 0).all() == (baseline_step_size == 0)


def test_the_baseline_is_the_mean_return_met():
    process = decision_process(SMALL)
    learned = reinforce(process, 1200, np.random.default_rng(0), GAMMA, step_size=0.0, baseline_step_size=0.01)
    assert (learned.logits == 0).all()
    expected = expected_return(process, learned.logits, GAMMA)
    # returns scatter by about 3, and a mean with steps of 0.01 keeps sqrt(0.01 / 2) of that: four times 0.2
    assert learned.baseline[process.start] == pytest.approx(expected, abs=0.8)
