"""Experience replay: what was seen once can teach many times. Lin 1992, "Self-Improving Reactive Agents Based On
Reinforcement Learning, Planning and Teaching", Machine Learning 8.

Allowed because Q-learning is off-policy: its target does not ask who chose the action, or when.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minirlhf.errors import UserError
from minirlhf.tabular.learning import HALF, Learned, StepSize
from minirlhf.tabular.policies import epsilon_greedy_action
from minirlhf.tabular.process import DecisionProcess, Floats, take_step
from minirlhf.tabular.q_learning import q_target


@dataclass(frozen=True)
class Transition:
    """One step of the world, all that Q-learning needs of it."""

    state: int
    action: int
    reward: float
    next_state: int


class ReplayBuffer:
    """The last `capacity` transitions: when it is full, the newest takes the place of the oldest."""

    def __init__(self, capacity: int):
        if capacity < 1:
            raise UserError("a replay buffer needs room", found=str(capacity), expected="a capacity of 1 or more")
        self.capacity = capacity
        self.transitions: list[Transition] = []
        self.oldest = 0

    def __len__(self) -> int:
        return len(self.transitions)

    def add(self, transition: Transition) -> None:
        if len(self) < self.capacity:
            self.transitions.append(transition)
        else:
            self.transitions[self.oldest] = transition
            self.oldest = (self.oldest + 1) % self.capacity

    def sample(self, count: int, rng: np.random.Generator) -> list[Transition]:
        """`count` transitions, each drawn from all with equal probability. Raises: ValueError when there are none."""
        if not self.transitions:
            raise ValueError("there is nothing in the buffer yet")
        return [self.transitions[place] for place in rng.integers(len(self), size=count)]


def learn_from(q: Floats, visits: NDArray[np.int64], transition: Transition, gamma: float, step_size: StepSize) -> None:
    """Q-learning's update, in place, from a transition that may be long past. q and visits are [S A]."""
    place = transition.state, transition.action
    visits[place] += 1
    target = q_target(q, transition.reward, transition.next_state, gamma)
    q[place] += step_size(int(visits[place])) * (target - q[place])


def q_learning_with_replay(
    process: DecisionProcess,
    episodes: int,
    rng: np.random.Generator,
    gamma: float = 1.0,
    epsilon: float = 0.1,
    step_size: StepSize = HALF,
    capacity: int = 10_000,
    replays: int = 10,
    max_steps: int = 1000,
) -> Learned:
    """Q-learning that, after each step in the world, also learns from `replays` steps out of its memory."""
    buffer = ReplayBuffer(capacity)
    q = np.zeros((process.states, process.actions))
    visits = np.zeros(q.shape, dtype=np.int64)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        state = process.start
        for _ in range(max_steps):
            action = epsilon_greedy_action(q[state], epsilon, rng)
            next_state, reward = take_step(process, state, action, rng)
            now = Transition(state, action, reward, next_state)
            buffer.add(now)
            for transition in (now, *buffer.sample(replays, rng)):
                learn_from(q, visits, transition, gamma, step_size)
            returns[episode] += reward
            state = next_state
            if process.terminal[state]:
                break
    return Learned(q, returns)
