"""The exact solution: it obeys Bellman's equation, nothing beats it, and it moves the right way when the world does."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.errors import UserError
from minirlhf.tabular.grid import CLIFF, Grid, decision_process, policy_map
from minirlhf.tabular.policies import epsilon_greedy_policy, greedy_policy, likeliest_path, softmax_policy
from minirlhf.tabular.process import DecisionProcess
from minirlhf.tabular.value_iteration import (
    action_values,
    bellman_residual,
    bellman_update,
    policy_iteration,
    policy_values,
    value_iteration,
    with_exploration,
)
from minirlhf.testing.strategies import floats
from tests.tabular.worlds import every_episode, grids, processes

GAMMAS = st.sampled_from([0.0, 0.5, 0.9])
TIGHT = 1e-12
ROUNDING = 1e-9  # values of size 30 at most, and sums of a few hundred terms


@given(grids(), GAMMAS)
def test_value_iteration_ends_at_the_fixed_point_that_policy_iteration_finds(grid, gamma):
    process = decision_process(grid)
    values = value_iteration(process, gamma, TIGHT)
    assert bellman_residual(process, values, gamma) <= TIGHT
    others, policy = policy_iteration(process, gamma)
    assert_allclose(values, others, rtol=ROUNDING, atol=TIGHT / (1 - gamma) + ROUNDING)
    assert_allclose(policy_values(process, policy, gamma), others, rtol=ROUNDING, atol=ROUNDING)
    assert (values[process.terminal] == 0).all()


@given(processes(), floats((4, 3)), GAMMAS)
def test_no_policy_is_worth_more_anywhere(process, logits, gamma):
    best = value_iteration(process, gamma, TIGHT)
    assert (policy_values(process, softmax_policy(logits), gamma) <= best + ROUNDING).all()
    assert (policy_values(process, greedy_policy(logits), gamma) <= best + ROUNDING).all()
    greedy = greedy_policy(action_values(process, best, gamma))
    assert_allclose(policy_values(process, greedy, gamma), best, rtol=ROUNDING, atol=ROUNDING)


@given(processes(), floats((4,)), floats((4,)), GAMMAS)
def test_a_sweep_is_a_contraction_and_keeps_order(process, first, second, gamma):
    """Distances shrink by gamma at least, and what is smaller everywhere stays smaller."""
    moved, also_moved = bellman_update(process, first, gamma), bellman_update(process, second, gamma)
    assert np.abs(moved - also_moved).max() <= gamma * np.abs(first - second).max() + ROUNDING
    low = bellman_update(process, np.minimum(first, second), gamma)
    assert (low <= np.minimum(moved, also_moved) + ROUNDING).all()


@given(processes(lowest=0.0))
def test_where_nothing_costs_a_later_reward_is_worth_more_the_less_it_is_discounted(process):
    values = [value_iteration(process, gamma, TIGHT) for gamma in (0.0, 0.3, 0.6, 0.9)]
    assert all((less <= more + ROUNDING).all() for less, more in itertools.pairwise(values))


@given(processes(), st.sampled_from([0.5, 3.0]), GAMMAS)
def test_values_scale_with_the_rewards_and_grow_with_each(process, factor, gamma):
    values = value_iteration(process, gamma, TIGHT)
    scaled = dataclasses.replace(process, rewards=factor * process.rewards)
    assert_allclose(value_iteration(scaled, gamma, TIGHT), factor * values, rtol=ROUNDING, atol=ROUNDING)
    richer = dataclasses.replace(process, rewards=process.rewards + np.eye(4)[1])  # state 1 pays one more
    assert (value_iteration(richer, gamma, TIGHT) >= values - ROUNDING).all()


@given(grids(), GAMMAS)
def test_wet_ground_is_never_better_than_dry(grid, gamma):
    """A slip only mixes what one could have chosen oneself."""
    dry = value_iteration(decision_process(dataclasses.replace(grid, slip=0.0)), gamma, TIGHT)
    assert (value_iteration(decision_process(grid), gamma, TIGHT) <= dry + ROUNDING).all()


@given(processes(states=3, actions=2), floats((3, 2)))
@settings(max_examples=20)
def test_a_policy_s_values_are_the_mean_return_of_all_its_episodes(process, logits):
    """Enumerated to 4 steps; the tail beyond them is bounded by the largest reward."""
    policy, gamma, longest = softmax_policy(logits), 0.2, 4
    mean = sum(
        chance * sum(gamma**t * reward for t, reward in enumerate(episode.rewards))
        for chance, episode in every_episode(process, policy, longest)
    )
    tail = gamma**longest / (1 - gamma) * np.abs(process.rewards).max()
    assert policy_values(process, policy, gamma)[process.start] == pytest.approx(mean, abs=tail + ROUNDING)


@given(processes(), floats((4, 3)), st.sampled_from([0.0, 0.1, 0.5]))
def test_a_trembling_hand_is_part_of_the_world(process, q, epsilon):
    """A greedy policy in the trembling world is the epsilon-greedy one in the steady world, and so is the best."""
    trembling = with_exploration(process, epsilon)
    assert_allclose(
        policy_values(trembling, greedy_policy(q), 0.9),
        policy_values(process, epsilon_greedy_policy(q, epsilon), 0.9),
        rtol=ROUNDING,
        atol=ROUNDING,
    )
    best = value_iteration(trembling, 0.9, TIGHT)
    assert (policy_values(process, epsilon_greedy_policy(q, epsilon), 0.9) <= best + 1e-8).all()


def test_two_states_by_hand():
    """From 0, action 0 stays for 1, action 1 ends for 5: with gamma 0.5 stopping wins, with gamma 0.9 staying does."""
    transitions = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    rewards = np.array([[[1.0, 0.0], [0.0, 5.0]], [[7.0, 7.0], [7.0, 7.0]]])  # what terminal states say is not used
    process = DecisionProcess(transitions, rewards, np.array([False, True]), 0)
    assert_allclose(value_iteration(process, 0.5), [5, 0], atol=1e-9)
    assert_allclose(value_iteration(process, 0.9), [10, 0], atol=1e-8)  # 1 + 0.9 + 0.81 + ...
    half = np.full((2, 2), 0.5)
    assert_allclose(policy_values(process, half, 0.9), [3 / 0.55, 0])  # v = (1 + 0.9 v + 5) / 2
    assert_allclose(action_values(process, np.array([2.0, 100.0]), 0.9), [[1 + 1.8, 5], [0, 0]])


def test_the_cliff():
    """Thirteen steps along the edge are best for who never trembles; who trembles keeps one row away."""
    process = decision_process(CLIFF)
    values = value_iteration(process)
    assert values[process.start] == -13
    path = likeliest_path(process, greedy_policy(action_values(process, values, 1.0)))
    assert path == [36, *range(24, 36), 47]
    assert "C" not in policy_map(CLIFF, greedy_policy(action_values(process, values, 1.0))).splitlines()[2]

    cautious = with_exploration(process, 0.1)
    q = action_values(process, value_iteration(cautious), 1.0)
    path = likeliest_path(process, greedy_policy(q))
    assert path == [36, 24, *range(12, 24), 35, 47]
    along_the_edge = policy_values(process, epsilon_greedy_policy(action_values(process, values, 1.0), 0.1))
    one_row_away = policy_values(process, epsilon_greedy_policy(q, 0.1))
    assert one_row_away[process.start] > along_the_edge[process.start] + 20


def test_no_end_and_no_discount_is_refused_in_words():
    process = decision_process(Grid("S#G"))
    with pytest.raises(UserError, match="does not settle"):
        value_iteration(process, max_sweeps=100)
    with pytest.raises(UserError, match="gamma below 1"):
        policy_values(process, np.full((3, 4), 0.25))
    assert value_iteration(process, 0.5)[0] == pytest.approx(-2)  # -1 - 0.5 - 0.25 ...
