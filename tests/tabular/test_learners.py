"""Q-learning, SARSA and replay reach the exact solution, each its own; and the first two differ at the cliff."""

import dataclasses
import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from minirlhf.errors import UserError
from minirlhf.tabular.grid import CLIFF, decision_process
from minirlhf.tabular.learning import constant, decaying
from minirlhf.tabular.policies import epsilon_greedy_policy, greedy_policy, likeliest_path
from minirlhf.tabular.process import DecisionProcess
from minirlhf.tabular.q_learning import q_learning, q_target
from minirlhf.tabular.replay import ReplayBuffer, Transition, learn_from, q_learning_with_replay
from minirlhf.tabular.sarsa import sarsa, sarsa_target
from minirlhf.tabular.value_iteration import action_values, policy_values, value_iteration, with_exploration
from tests.tabular.worlds import GAMMA, SMALL, starting_anywhere

PROCESS = starting_anywhere(decision_process(SMALL))
DRY = starting_anywhere(decision_process(dataclasses.replace(SMALL, slip=0.0)))
SEEDS = range(3)
EPSILON = 0.5

# The noise that is left. A target r + gamma max Q scatters by about 2 here (it says whether a foot slipped, and where
# to). With step sizes n^-0.7 an average forgets as fast as it learns and keeps sqrt(n^-0.7 / 2) of that: after the 500
# visits or so that the rarest action gets, 0.16. Every number within four of these; the values span -5 to 5.
NOISE = 0.6


def best_q(process, gamma=GAMMA):
    return action_values(process, value_iteration(process, gamma), gamma)


def best_q_on_policy(process, epsilon, gamma=GAMMA):
    """The first action is taken for certain; the hand trembles from the second on."""
    return action_values(process, value_iteration(with_exploration(process, epsilon), gamma), gamma)


def rows_of(path, width):
    """The rows of the cells between the way up and the way down."""
    return {state // width for state in path if 0 < state % width < width - 1}


@pytest.mark.parametrize("seed", SEEDS)
def test_q_learning_reaches_the_best_values(seed):
    learned = q_learning(PROCESS, 4000, np.random.default_rng(seed), GAMMA, EPSILON, decaying(0.7))
    assert np.abs(learned.q - best_q(PROCESS)).max() <= NOISE
    best = policy_values(PROCESS, greedy_policy(learned.q), GAMMA)
    assert_allclose(best, value_iteration(PROCESS, GAMMA), atol=1e-8)  # so the policy is not just near the best
    assert (learned.q[PROCESS.terminal] == 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_sarsa_reaches_the_values_of_the_best_policy_that_trembles(seed):
    learned = sarsa(PROCESS, 4000, np.random.default_rng(seed), GAMMA, EPSILON, decaying(0.7))
    on_policy = best_q_on_policy(PROCESS, EPSILON)
    assert np.abs(learned.q - on_policy).max() <= NOISE
    assert np.abs(best_q(PROCESS) - on_policy).max() > 2 * NOISE  # so this is not Q-learning's answer
    assert (learned.q[PROCESS.terminal] == 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_replay_reaches_the_best_values(seed):
    learned = q_learning_with_replay(
        PROCESS, 1500, np.random.default_rng(seed), GAMMA, EPSILON, decaying(0.7), replays=4
    )
    assert np.abs(learned.q - best_q(PROCESS)).max() <= NOISE
    assert (learned.q[PROCESS.terminal] == 0).all()


@pytest.mark.parametrize("learner", [q_learning, q_learning_with_replay])
def test_on_dry_ground_there_is_no_noise_and_no_error(learner):
    """Each step is value iteration in one place, so the answer is exact but for the factor left of the start, 2^-n."""
    learned = learner(DRY, 600, np.random.default_rng(0), GAMMA, epsilon=0.6)
    assert_allclose(learned.q[:-1], best_q(DRY)[:-1], atol=1e-9)  # where an episode begins is drawn, and so noisy


def test_one_update_by_hand():
    q = np.array([[0.0, 1.0], [2.0, 4.0]])
    assert q_target(q, reward=-1.0, next_state=1, gamma=0.5) == 1.0  # the best of the next state
    assert sarsa_target(q, reward=-1.0, next_state=1, next_action=0, gamma=0.5) == 0.0  # the one taken
    visits = np.zeros((2, 2), dtype=np.int64)
    learn_from(q, visits, Transition(0, 1, -1.0, 1), 0.5, constant(0.25))
    assert q.tolist() == [[0.0, 1.0], [2.0, 4.0]]  # it was worth what was expected
    learn_from(q, visits, Transition(0, 0, 3.0, 1), 0.5, lambda n: 1 / (n + 1))
    assert q.tolist() == [[2.5, 1.0], [2.0, 4.0]]  # half of the way from 0 to 5
    assert visits.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("seed", SEEDS)
def test_at_the_cliff_q_learning_walks_the_edge_and_sarsa_keeps_away(seed):
    """Sutton and Barto 2018, Example 6.6, with what each policy is really worth while its hand trembles."""
    process, epsilon, width = decision_process(CLIFF), 0.1, CLIFF.shape[1]
    daring = q_learning(process, 500, np.random.default_rng(seed), 1.0, epsilon)
    small_steps = lambda n: max(n**-0.6, 0.02)  # noqa: E731
    careful = sarsa(process, 3000, np.random.default_rng(seed), 1.0, epsilon, small_steps)
    assert rows_of(likeliest_path(process, greedy_policy(daring.q)), width) == {2}
    assert 2 not in rows_of(likeliest_path(process, greedy_policy(careful.q)), width)

    worth = [
        policy_values(process, epsilon_greedy_policy(learned.q, epsilon))[process.start]
        for learned in (daring, careful)
    ]
    assert worth[0] < -40  # -46 with the exact values: one step in forty along the edge leads over it
    assert worth[1] > -26  # the best there is, is -20.7
    assert careful.returns[-300:].mean() > daring.returns[-300:].mean() + 10  # so it does better while it learns
    steady = [policy_values(process, greedy_policy(learned.q), 0.999)[process.start] for learned in (daring, careful)]
    assert steady[0] > steady[1]  # and worse once the hand is steady


def test_returns_are_the_rewards_of_each_episode():
    """On a corridor with one thing to do: three steps to the goal, -1 each, and cut after two."""
    step = np.zeros((4, 1, 4))
    step[[0, 1, 2, 3], 0, [1, 2, 3, 3]] = 1.0
    corridor = DecisionProcess(step, -step, np.arange(4) == 3, 0)
    for learner in (q_learning, sarsa, q_learning_with_replay):
        assert learner(corridor, 2, np.random.default_rng(0)).returns.tolist() == [-3, -3]
        cut = learner(corridor, 2, np.random.default_rng(0), step_size=constant(1.0), max_steps=2)
        assert cut.returns.tolist() == [-2, -2]
        assert cut.q[2, 0] == 0  # never seen, and the cut taught nothing
        assert cut.q[1, 0] == -1
        learned = learner(corridor, 3, np.random.default_rng(0), gamma=0.5, step_size=constant(1.0))
        assert_allclose(learned.q[:, 0], [-1.75, -1.5, -1.0, 0.0])


# -- memory -----------------------------------------------------------------------------------------------------------


def numbered(count):
    return [Transition(number, 0, 0.0, 0) for number in range(count)]


def test_the_buffer_keeps_the_last_ones():
    buffer = ReplayBuffer(3)
    for count, transition in enumerate(numbered(8), start=1):
        buffer.add(transition)
        assert len(buffer) == min(count, 3)
        assert {each.state for each in buffer.transitions} == set(range(max(0, count - 3), count))


def test_the_buffer_draws_all_with_equal_probability():
    buffer, rng = ReplayBuffer(10), np.random.default_rng(0)
    for transition in numbered(4):
        buffer.add(transition)
    times = np.bincount([each.state for each in buffer.sample(20_000, rng)], minlength=4)
    assert np.abs(times / 20_000 - 0.25).max() <= 5 * np.sqrt(0.25 * 0.75 / 20_000)  # five standard deviations


def test_an_empty_or_impossible_buffer_is_refused():
    with pytest.raises(ValueError, match="nothing in the buffer"):
        ReplayBuffer(1).sample(1, np.random.default_rng(0))
    with pytest.raises(UserError, match="capacity of 1"):
        ReplayBuffer(0)


def test_replaying_a_fixed_memory_solves_the_world_it_shows():
    """Without one more step: the process estimated from the memory is solved, not the true one."""
    rng, q = np.random.default_rng(1), np.zeros((PROCESS.states, PROCESS.actions))
    visits, counts = np.zeros(q.shape, dtype=np.int64), np.zeros(PROCESS.transitions.shape)
    buffer = ReplayBuffer(10_000)
    for state, action in itertools.product(np.flatnonzero(~PROCESS.terminal), range(4)):
        for _ in range(3):  # three looks at each: enough to be wrong about the slip
            following = int(rng.choice(PROCESS.states, p=PROCESS.transitions[state, action]))
            buffer.add(Transition(int(state), action, PROCESS.rewards[state, action, following], following))
            counts[state, action, following] += 1
    for transition in buffer.sample(60_000, rng):
        learn_from(q, visits, transition, GAMMA, decaying(0.7))
    counts[PROCESS.terminal] = PROCESS.transitions[PROCESS.terminal]
    shown = DecisionProcess(
        counts / counts.sum(axis=2, keepdims=True), PROCESS.rewards, PROCESS.terminal, PROCESS.start
    )
    assert np.abs(q - best_q(shown)).max() <= NOISE
    assert np.abs(best_q(PROCESS) - best_q(shown)).max() > 2 * NOISE


def test_memory_makes_more_of_the_same_number_of_walks():
    """Twenty walks along the cliff are worth much more to who remembers, for each of five seeds."""
    process = decision_process(CLIFF)
    for seed in range(5):
        plain = q_learning(process, 20, np.random.default_rng(seed))
        replayed = q_learning_with_replay(process, 20, np.random.default_rng(seed), replays=20)
        far = [np.abs(learned.q.max(axis=1) - value_iteration(process))[24:36].mean() for learned in (plain, replayed)]
        assert far[1] < far[0] / 2
