"""The exact answer, for who knows the process: dynamic programming. Learners are judged by it.

Sutton and Barto 2018, chapter 4. The best values obey v(s) = max_a sum_s' P[s,a,s'] (r(s,a,s') + gamma v(s')), eq. 4.1,
and putting any v into the right-hand side brings it closer: for gamma < 1 by the factor gamma at least, in the largest
coordinate. So |v - v*| <= residual / (1 - gamma), where the residual is how far one more sweep moves v.
"""

from dataclasses import replace

import numpy as np

from minirlhf.errors import UserError
from minirlhf.tabular.policies import greedy_policy
from minirlhf.tabular.process import DecisionProcess, Floats, expected_rewards


def action_values(process: DecisionProcess, values: Floats, gamma: float) -> Floats:
    """What each action is worth if `values` [S] are right about what comes after: [S A], 0 where all is over."""
    following = np.where(process.terminal, 0.0, values)  # [S]
    q = expected_rewards(process) + gamma * process.transitions @ following  # [S A]
    return np.where(process.terminal[:, None], 0.0, q)


def bellman_update(process: DecisionProcess, values: Floats, gamma: float) -> Floats:
    """One sweep, [S] -> [S]: each state's best action, looking one step ahead. Sutton and Barto 2018, eq. 4.10."""
    best: Floats = action_values(process, values, gamma).max(axis=1)
    return best


def bellman_residual(process: DecisionProcess, values: Floats, gamma: float) -> float:
    """How far one more sweep would move the values, in the largest coordinate: 0 for the best values only."""
    return float(np.abs(bellman_update(process, values, gamma) - values).max())


def value_iteration(
    process: DecisionProcess, gamma: float = 1.0, tolerance: float = 1e-10, max_sweeps: int = 100_000
) -> Floats:
    """The best values [S], by sweeping until a sweep moves nothing by more than `tolerance`.

    Raises: UserError when that never happens, as with gamma = 1 where no end can be reached.
    """
    values = np.zeros(process.states)
    for _ in range(max_sweeps):
        before, values = values, bellman_update(process, values, gamma)
        if np.abs(values - before).max() <= tolerance:
            return values
    raise UserError(
        "value iteration does not settle",
        found=f"a sweep that still moves a value by {np.abs(values - before).max():.3g} after {max_sweeps}",
        fix="choose gamma below 1, or make sure that every state has a way to a terminal one",
    )


def policy_values(process: DecisionProcess, policy: Floats, gamma: float = 1.0) -> Floats:
    """What a policy [S A] is worth in every state, [S], by solving v = r + gamma P v. Sutton and Barto 2018, eq. 4.4.

    Raises: UserError with gamma = 1 and a policy that may walk for ever: its values have no end.
    """
    alive = ~process.terminal
    step, pay = under_policy(process, policy)
    values = np.zeros(process.states)
    system = np.eye(int(alive.sum())) - gamma * step[np.ix_(alive, alive)]
    if gamma == 1 and np.linalg.cond(system) > 1e12:  # a circle that nothing leaves
        raise UserError(
            "this policy never comes to an end from some state, so its values are infinite",
            found="gamma = 1",
            fix="choose gamma below 1, or a policy that can reach a terminal state from everywhere",
        )
    values[alive] = np.linalg.solve(system, pay[alive])
    return values


def under_policy(process: DecisionProcess, policy: Floats) -> tuple[Floats, Floats]:
    """The process with the choice made: next-state probabilities [S S] and expected rewards [S] under a policy."""
    step = np.einsum("sa,sax->sx", policy, process.transitions)
    pay = (policy * expected_rewards(process)).sum(axis=1)
    return step, pay


def policy_iteration(process: DecisionProcess, gamma: float = 1.0) -> tuple[Floats, Floats]:
    """(best values [S], best policy [S A]): evaluate exactly, act greedily, again. Sutton and Barto 2018, section 4.3.

    It begins with the policy that does anything with equal probability, which reaches every end that can be reached.
    Each round is at least as good everywhere, and there are finitely many policies, so it stops.
    """
    policy = np.full((process.states, process.actions), 1 / process.actions)
    values = policy_values(process, policy, gamma)
    while True:
        better = greedy_policy(action_values(process, values, gamma))
        improved = policy_values(process, better, gamma)
        if (improved <= values + 1e-9 * np.maximum(1.0, np.abs(values))).all():  # equal, up to rounding
            return values, policy
        policy, values = better, improved


def with_exploration(process: DecisionProcess, epsilon: float) -> DecisionProcess:
    """The process that replaces an action, with probability epsilon, by any: a trembling hand as part of the world.

    Its best values are those of the best epsilon-greedy policy of `process`, which is where SARSA with a fixed epsilon
    goes. Sutton and Barto 2018, section 5.4, where it is the environment with the requirement moved inside.
    """
    step = process.transitions  # [S A S]
    mixed = (1 - epsilon) * step + epsilon * step.mean(axis=1, keepdims=True)
    paid = step * process.rewards
    mixed_paid = (1 - epsilon) * paid + epsilon * paid.mean(axis=1, keepdims=True)
    rewards = np.divide(mixed_paid, mixed, out=np.zeros_like(mixed), where=mixed > 0)  # the mean pay, given s, a, s'
    return replace(process, transitions=mixed, rewards=rewards)
