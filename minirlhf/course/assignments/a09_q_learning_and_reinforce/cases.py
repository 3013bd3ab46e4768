"""Drawn inputs for a09: worlds, walks and episodes with numbers between which no two actions are ever equally good."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator


def world(rng: Rng, states: int = 6, actions: int = 3) -> Arrays:
    """What a DecisionProcess is made of. Two of its states are terminal; every step may lead anywhere."""
    weights = rng.random((states, actions, states)) ** 3 + 0.02
    terminal = rng.permutation(np.arange(states) < 2)
    start = rng.choice(np.flatnonzero(~terminal))
    return {
        "transitions": weights / weights.sum(axis=2, keepdims=True),
        "rewards": rng.normal(size=weights.shape),
        "terminal": terminal,
        "start": np.array(start),
    }


def in_a_world(
    target: str, rng: Rng, arguments: list[Any], arrays: Arrays, named: dict[str, Any] | None = None, **setting: Any
) -> Case:
    """target(process, arguments …) in a drawn world."""
    drawn = world(rng)
    shown = {"shown": f"a world of {len(drawn['terminal'])} states"}
    play = "a09_q_learning_and_reinforce.plays:in_a_world"
    job = Job(target, [shown, *arguments], named or {}, numpy=True, play=play, setting=setting)
    return Case(job, drawn | arrays)


def value(number: float) -> dict[str, float]:
    return {"value": number}


def between(rng: Rng, low: float, high: float) -> dict[str, float]:
    return value(float(rng.uniform(low, high)))


def seed(rng: Rng) -> dict[str, int]:
    return {"generator": int(rng.integers(2**31))}


def discounted_returns(rng: Rng, edges: bool = False) -> Case:
    """rewards [T]."""
    gamma = value(float(rng.integers(2))) if edges else between(rng, 0.5, 0.95)
    rewards = rng.normal(size=int(rng.integers(4, 9)))
    return Case(Job("discounted_returns", ["rewards", gamma], numpy=True), {"rewards": rewards})


def play(rng: Rng, cut: bool = False) -> Case:
    """policy [S A]."""
    weights = rng.random((6, 3)) + 0.1
    named = {"max_steps": value(2)} if cut else {}
    return in_a_world("play", rng, ["policy", seed(rng)], {"policy": weights / weights.sum(1, keepdims=True)}, named)


def epsilon_greedy_policy(rng: Rng) -> Case:
    """q [S A]."""
    job = Job("epsilon_greedy_policy", ["q", between(rng, 0.1, 0.6)], numpy=True)
    return Case(job, {"q": rng.normal(size=(5, 3))})


def softmax_policy(rng: Rng, size: float = 1.5) -> Case:
    """logits [S A]."""
    return Case(Job("softmax_policy", ["logits"], numpy=True), {"logits": rng.normal(size=(4, 3)) * size})


def action_values(rng: Rng, guesses: bool = False, target: str = "action_values") -> Case:
    """values [S]. guesses: those of terminal states are not 0."""
    case = in_a_world(target, rng, ["values", between(rng, 0.5, 0.95)], {"values": rng.normal(size=6) * 3})
    case.arrays["values"][case.arrays["terminal"]] = 40.0 if guesses else 0.0
    return case


def bellman_update(rng: Rng) -> Case:
    return action_values(rng, True, "bellman_update")


def q_target(rng: Rng) -> Case:
    """q [S A]. The first action is not the best one."""
    q = np.sort(rng.normal(size=(5, 3)), axis=1)
    job = Job("q_target", ["q", between(rng, -2, 2), value(int(rng.integers(5))), between(rng, 0.5, 0.95)], numpy=True)
    return Case(job, {"q": q[:, [0, 2, 1]]})


def sarsa_target(rng: Rng) -> Case:
    """q [S A]. The next action is not the best one."""
    case = q_target(rng)
    q, reward, next_state, gamma = case.job.arguments
    arguments = [q, reward, next_state, value(2 * int(rng.integers(2))), gamma]
    return Case(Job("sarsa_target", arguments, numpy=True), case.arrays)


def q_learning(rng: Rng, shrinking: bool = False, cut: bool = False, target: str = "q_learning") -> Case:
    """25 episodes in a world that ends often."""
    named = {"max_steps": value(3)} if cut else {}
    arguments = [value(25), seed(rng), between(rng, 0.5, 0.9), between(rng, 0.2, 0.5)]
    step = {"power": float(rng.uniform(0.5, 0.9))} if shrinking else {"size": float(rng.uniform(0.2, 0.6))}
    return in_a_world(target, rng, arguments, {}, named, step_size=step)


def sarsa(rng: Rng, shrinking: bool = False, cut: bool = False) -> Case:
    return q_learning(rng, shrinking, cut, "sarsa")


def log_policy_gradient(rng: Rng) -> Case:
    """logits [A]."""
    logits = rng.normal(size=int(rng.integers(3, 6)))
    job = Job("log_policy_gradient", ["logits", value(int(rng.integers(len(logits))))], numpy=True)
    return Case(job, {"logits": logits})


def episode_gradient(rng: Rng, plain: bool = False, steps: int = 9) -> Case:
    """logits [S A], an episode [T] that meets some of its states again, baseline [S]."""
    states, actions = 4, 3
    gamma = value(1.0) if plain else between(rng, 0.6, 0.9)
    arguments = ["logits", {"shown": f"an episode of {steps} steps"}, gamma, "baseline"]
    arrays = {
        "logits": rng.normal(size=(states, actions)),
        "states": rng.integers(states, size=steps),
        "actions": rng.integers(actions, size=steps),
        "rewards": rng.normal(size=steps) * 2,
        "baseline": np.zeros(states) if plain else rng.normal(size=states),
    }
    return Case(
        Job("episode_gradient", arguments, numpy=True, play="a09_q_learning_and_reinforce.plays:of_an_episode"), arrays
    )


def twisted_sarsa(rng: Rng, steps: int = 37) -> Case:
    """A walk [T] through 3 living states and a terminal one, and q [S A] to begin with, 0 where all is over."""
    states, actions = 4, 3
    arrays: Arrays = {
        "q": rng.normal(size=(states, actions)),
        "states": rng.integers(states - 1, size=steps),
        "actions": rng.integers(actions, size=steps),
        "rewards": rng.normal(size=steps) * 2,
        "next_states": rng.integers(states, size=steps),
    }
    arrays["q"][-1] = 0.0
    arguments = ["q", "states", "actions", "rewards", "next_states", between(rng, 0.6, 0.95)]
    return Case(Job("twisted_sarsa", arguments, numpy=True), arrays)


def twisted_gradient(rng: Rng, steps: int = 9) -> Case:
    case = episode_gradient(rng, steps=steps)
    _, _, gamma, _ = case.job.arguments
    arguments = ["logits", "states", "actions", "rewards", gamma, "baseline"]
    return Case(Job("twisted_gradient", arguments, numpy=True), case.arrays)


CASES: dict[str, Callable[..., Case]] = {
    "discounted_returns": discounted_returns,
    "play": play,
    "epsilon_greedy_policy": epsilon_greedy_policy,
    "softmax_policy": softmax_policy,
    "action_values": action_values,
    "bellman_update": bellman_update,
    "q_target": q_target,
    "q_learning": q_learning,
    "sarsa_target": sarsa_target,
    "sarsa": sarsa,
    "log_policy_gradient": log_policy_gradient,
    "episode_gradient": episode_gradient,
    "twisted_sarsa": twisted_sarsa,
    "twisted_gradient": twisted_gradient,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
