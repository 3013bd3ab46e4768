"""SARSA: what will I really do there? Rummery and Niranjan 1994, "On-line Q-learning using connectionist systems".

Sutton and Barto 2018, section 6.4, eq. 6.7: state, action, reward, state, action. On-policy: its values count the
slips of its own exploring hand, so near a cliff it keeps its distance. Laid beside q_learning.py, one line differs.
"""

import numpy as np

from minirlhf.tabular.learning import HALF, Learned, StepSize
from minirlhf.tabular.policies import epsilon_greedy_action
from minirlhf.tabular.process import DecisionProcess, Floats, take_step


def sarsa_target(q: Floats, reward: float, next_state: int, next_action: int, gamma: float) -> float:
    """What the last action turned out to be worth, if it goes on with next_action. q [S A] is 0 where all is over."""
    return reward + gamma * float(q[next_state, next_action])


def sarsa(
    process: DecisionProcess,
    episodes: int,
    rng: np.random.Generator,
    gamma: float = 1.0,
    epsilon: float = 0.1,
    step_size: StepSize = HALF,
    max_steps: int = 1000,
) -> Learned:
    """Walk epsilon-greedily and move Q(s, a) towards r + gamma Q(s', a'), where a' is the action that comes next.

    An episode that has not ended after max_steps is cut; nothing is learnt from the cut itself.
    """
    q = np.zeros((process.states, process.actions))
    visits = np.zeros(q.shape, dtype=np.int64)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        state = process.start
        action = epsilon_greedy_action(q[state], epsilon, rng)
        for _ in range(max_steps):
            next_state, reward = take_step(process, state, action, rng)
            next_action = epsilon_greedy_action(q[next_state], epsilon, rng)
            visits[state, action] += 1
            step = step_size(int(visits[state, action]))
            q[state, action] += step * (sarsa_target(q, reward, next_state, next_action, gamma) - q[state, action])
            returns[episode] += reward
            state, action = next_state, next_action
            if process.terminal[state]:
                break
    return Learned(q, returns)
