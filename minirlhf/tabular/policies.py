"""From numbers about actions to a choice: greedy, epsilon-greedy, softmax. A policy is probabilities, [S A]."""

import numpy as np

from minirlhf.tabular.process import DecisionProcess, Floats


def greedy_policy(q: Floats) -> Floats:
    """All probability on the best action, the first of equals. [S A] -> [S A]."""
    return np.eye(q.shape[1])[q.argmax(axis=1)]


def epsilon_greedy_policy(q: Floats, epsilon: float) -> Floats:
    """Greedy, but with probability epsilon any action at all. Sutton and Barto 2018, section 2.2."""
    return (1 - epsilon) * greedy_policy(q) + epsilon / q.shape[1]


def epsilon_greedy_action(q: Floats, epsilon: float, rng: np.random.Generator) -> int:
    """Draw from the same policy in one state, q [A], without writing its probabilities down."""
    if rng.random() < epsilon:
        return int(rng.integers(len(q)))
    return int(q.argmax())


def softmax_policy(logits: Floats) -> Floats:
    """exp(logits) / its sum, row by row, [S A] -> [S A]. Sutton and Barto 2018, eq. 13.2."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))  # shifted: the largest power is 1
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def likeliest_path(process: DecisionProcess, policy: Floats, max_steps: int = 100) -> list[int]:
    """The states from the start to a terminal one, if the likeliest action always has its likeliest outcome."""
    path = [process.start]
    while not process.terminal[path[-1]] and len(path) <= max_steps:
        action = policy[path[-1]].argmax()
        path.append(int(process.transitions[path[-1], action].argmax()))
    return path
