"""A finite Markov decision process as three arrays, how to take a step in it, and what a return is.

Dimension letters, in all of tabular/: S states, A actions, T steps of an episode.
Sutton and Barto 2018, "Reinforcement Learning: An Introduction", 2nd edition, chapter 3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minirlhf.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class DecisionProcess:
    """Everything there is to know about a small world. Learners may only sample from it; `value_iteration` reads it.

    transitions float [S A S]: the probability of each next state, after an action in a state
    rewards     float [S A S]: what that step pays
    terminal    bool  [S]: the episode is over; what a terminal state's rows say is never used
    start       the state every episode begins in
    Raises: UserError when the shapes do not fit or a row of probabilities does not sum to 1.
    """

    transitions: Floats
    rewards: Floats
    terminal: Bools
    start: int

    def __post_init__(self) -> None:
        states = len(self.terminal)
        for name in ("transitions", "rewards"):
            shape = getattr(self, name).shape
            if len(shape) != 3 or shape[0] != states or shape[2] != states:
                raise UserError(
                    f"{name} do not fit the {states} states",
                    found=f"shape {shape}",
                    expected=f"({states}, A, {states})",
                )
        if self.rewards.shape != self.transitions.shape:
            raise UserError("transitions and rewards differ in shape", found=str(self.rewards.shape))
        sums = self.transitions.sum(axis=2)  # [S A]
        if self.transitions.min() < 0 or not np.allclose(sums, 1.0, rtol=0, atol=1e-9):
            worst = np.unravel_index(np.abs(sums - 1).argmax(), sums.shape)
            raise UserError(
                "transitions are not probabilities",
                where=f"state {worst[0]}, action {worst[1]}",
                found=f"a sum of {sums[worst]:g}, smallest entry {self.transitions.min():g}",
                expected="numbers >= 0 that sum to 1",
            )
        if not 0 <= self.start < states:
            raise UserError("there is no such start", found=str(self.start), expected=f"0 to {states - 1}")

    @property
    def states(self) -> int:
        return self.transitions.shape[0]

    @property
    def actions(self) -> int:
        return self.transitions.shape[1]


@dataclass(frozen=True)
class Episode:
    """What happened, in order, all [T]: the state, the action taken there, and what that step paid."""

    states: Ints
    actions: Ints
    rewards: Floats


def expected_rewards(process: DecisionProcess) -> Floats:
    """R[s, a], what an action pays on average, [S A]. Sutton and Barto 2018, eq. 3.5."""
    return (process.transitions * process.rewards).sum(axis=2)


def draw(probabilities: Floats, rng: np.random.Generator) -> int:
    """An index, drawn with these probabilities [N]: where a uniform number falls in their running sum."""
    running = np.cumsum(probabilities)
    return int(np.searchsorted(running, rng.random() * running[-1], side="right"))


def take_step(process: DecisionProcess, state: int, action: int, rng: np.random.Generator) -> tuple[int, float]:
    """(next state, reward): all that a learner ever gets to see of the process."""
    next_state = draw(process.transitions[state, action], rng)
    return next_state, float(process.rewards[state, action, next_state])


def play(process: DecisionProcess, policy: Floats, rng: np.random.Generator, max_steps: int = 1000) -> Episode:
    """One episode under a policy [S A] (rows are probabilities), cut after max_steps."""
    states: list[int] = []
    actions: list[int] = []
    rewards: list[float] = []
    state = process.start
    while not process.terminal[state] and len(states) < max_steps:
        action = draw(policy[state], rng)
        next_state, reward = take_step(process, state, action, rng)
        states.append(state)
        actions.append(action)
        rewards.append(reward)
        state = next_state
    return Episode(
        np.array(states, dtype=np.int64), np.array(actions, dtype=np.int64), np.array(rewards, dtype=np.float64)
    )


def discounted_returns(rewards: Floats, gamma: float) -> Floats:
    """What followed each step, [T] -> [T]: G_t = r_t + gamma G_{t+1}. Sutton and Barto 2018, eq. 3.9.

    From the last step backwards, so that each reward is looked at once.
    """
    returns = np.zeros(len(rewards))
    following = 0.0
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * following
        returns[t] = following
    return returns
