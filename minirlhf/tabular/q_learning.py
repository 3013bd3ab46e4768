"""Q-learning: what is the best I could do from there? Watkins 1989, "Learning from Delayed Rewards".

Sutton and Barto 2018, section 6.5, eq. 6.8. Off-policy: it learns the values of the greedy policy, whatever it does.
"""

import numpy as np

from minirlhf.tabular.learning import HALF, Learned, StepSize
from minirlhf.tabular.policies import epsilon_greedy_action
from minirlhf.tabular.process import DecisionProcess, Floats, take_step


def q_target(q: Floats, reward: float, next_state: int, gamma: float) -> float:
    """What the last action turned out to be worth, if from now on the best is done. q [S A] is 0 where all is over."""
    return reward + gamma * float(q[next_state].max())


def q_learning(
    process: DecisionProcess,
    episodes: int,
    rng: np.random.Generator,
    gamma: float = 1.0,
    epsilon: float = 0.1,
    step_size: StepSize = HALF,
    max_steps: int = 1000,
) -> Learned:
    """Walk epsilon-greedily and move Q(s, a) towards r + gamma max_b Q(s', b) after every step.

    An episode that has not ended after max_steps is cut; nothing is learnt from the cut itself.
    """
    q = np.zeros((process.states, process.actions))
    visits = np.zeros(q.shape, dtype=np.int64)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        state = process.start
        for _ in range(max_steps):
            action = epsilon_greedy_action(q[state], epsilon, rng)
            next_state, reward = take_step(process, state, action, rng)
            visits[state, action] += 1
            step = step_size(int(visits[state, action]))
            q[state, action] += step * (q_target(q, reward, next_state, gamma) - q[state, action])
            returns[episode] += reward
            state = next_state
            if process.terminal[state]:
                break
    return Learned(q, returns)
