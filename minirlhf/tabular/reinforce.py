"""REINFORCE with a table: no values of actions, only a policy that is pushed uphill. Williams 1992, section 4.

The policy is softmax(logits[s]), and J = E[G_0] is what it earns. An episode has probability p = prod_t P pi(a_t|s_t),
of which only pi depends on the logits, and grad p = p grad log p, so

    grad J = E[ sum_t gamma^t (G_t - b(s_t)) grad log pi(a_t | s_t) ]           Sutton and Barto 2018, eq. 13.8, 13.11

Rewards before t dropped out: given the past, E[grad log pi] = sum_a grad pi(a|s) = grad 1 = 0. For the same reason any
baseline b(s), which knows nothing of the action, takes away noise and changes no expectation. For a softmax

    d log pi(a|s) / d logits[s, k] = 1[k = a] - pi(k|s).
"""

from dataclasses import dataclass

import numpy as np

from minirlhf.tabular.policies import softmax_policy
from minirlhf.tabular.process import DecisionProcess, Episode, Floats, discounted_returns, play
from minirlhf.tabular.value_iteration import action_values, policy_values, under_policy


@dataclass(frozen=True)
class LearnedPolicy:
    """logits [S A]; baseline [S], the mean return met in each state; returns [episodes], undiscounted."""

    logits: Floats
    baseline: Floats
    returns: Floats


def log_policy_gradient(logits: Floats, action: int) -> Floats:
    """d log softmax(logits)[action] / d logits, in one state: [A] -> [A]. It sums to 0."""
    gradient = -softmax_policy(logits)
    gradient[action] += 1.0
    return gradient


def episode_gradient(logits: Floats, episode: Episode, gamma: float, baseline: Floats) -> Floats:
    """One episode's estimate of grad J, [S A]; its mean over episodes is the gradient. baseline [S]."""
    gradient = np.zeros_like(logits)
    returns = discounted_returns(episode.rewards, gamma)  # [T]
    for t, (state, action) in enumerate(zip(episode.states, episode.actions, strict=True)):
        advantage = returns[t] - baseline[state]
        gradient[state] += gamma**t * advantage * log_policy_gradient(logits[state], action)
    return gradient


def reinforce(
    process: DecisionProcess,
    episodes: int,
    rng: np.random.Generator,
    gamma: float = 1.0,
    step_size: float = 0.1,
    baseline_step_size: float = 0.0,
    max_steps: int = 1000,
) -> LearnedPolicy:
    """Play an episode, climb its gradient, again. Sutton and Barto 2018, sections 13.3 and 13.4.

    The baseline of a state follows the returns met there with baseline_step_size; with 0 it stays 0, and this is
    REINFORCE without a baseline. A cut episode counts as over, so max_steps should be rarely met.
    """
    logits = np.zeros((process.states, process.actions))
    baseline = np.zeros(process.states)
    total = np.zeros(episodes)
    for number in range(episodes):
        episode = play(process, softmax_policy(logits), rng, max_steps)
        logits += step_size * episode_gradient(logits, episode, gamma, baseline)  # with the baseline from before
        for state, met in zip(episode.states, discounted_returns(episode.rewards, gamma), strict=True):
            baseline[state] += baseline_step_size * (met - baseline[state])
        total[number] = episode.rewards.sum()
    return LearnedPolicy(logits, baseline, total)


def expected_return(process: DecisionProcess, logits: Floats, gamma: float = 1.0) -> float:
    """J, what the policy softmax(logits) earns from the start on average: exact, for who knows the process."""
    return float(policy_values(process, softmax_policy(logits), gamma)[process.start])


def policy_gradient(process: DecisionProcess, logits: Floats, gamma: float = 1.0) -> Floats:
    """grad J itself, [S A], by the policy gradient theorem. Sutton and Barto 2018, eq. 13.5.

    How often, discounted, one is in s: d = start + gamma P^T d. Then dJ/dlogits[s,a] = d(s) pi(a|s) (q(s,a) - v(s)).
    """
    policy = softmax_policy(logits)
    values = policy_values(process, policy, gamma)
    alive = ~process.terminal
    step, _ = under_policy(process, policy)
    system = np.eye(int(alive.sum())) - gamma * step[np.ix_(alive, alive)]
    visits = np.zeros(process.states)
    visits[alive] = np.linalg.solve(system.T, np.eye(process.states)[process.start][alive])
    advantages = action_values(process, values, gamma) - values[:, None]  # [S A], their mean under the policy is 0
    return visits[:, None] * policy * advantages
