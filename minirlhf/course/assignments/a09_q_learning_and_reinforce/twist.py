"""The twist of a09: expected SARSA with steps of its own, and REINFORCE with a bonus for keeping one's options open.

    first, power    the n-th update of a state and action has the step size first / n^power
    down            … times down where the target lies below Q(s, a)
    epsilon         the target is r + γ Σ_b π(b|s') Q(s', b) with π epsilon-greedy in Q (Sutton and Barto 2018, 6.9),
    calm            or with π = softmax(Q(s', ·) / calm)
    bonus           at every step the slope of bonus · H(π(·|s_t)) is climbed too (Williams and Peng 1991)
    warm            the policy is softmax(logits / warm),
    reach           or G_t ends after `reach` rewards

With π = softmax(z / w) and H = -Σ π log π, ∂ log π_a / ∂ z_k = (1[k = a] - π_k) / w and
∂ H / ∂ z_k = -π_k (log π_k + H) / w.

Everybody gets first, power, down and bonus, and either epsilon and warm or calm and reach.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("first", "power", "down", "bonus", "epsilon", "warm", "calm", "reach")


def draw(drawn: bytes) -> Twist:
    """More than a million combinations."""
    others = (
        {"epsilon": round(0.15 + 0.02 * (drawn[5] % 26), 2), "warm": round(1.4 + 0.1 * (drawn[6] % 17), 1)}
        if drawn[0] % 2
        else {"calm": round(0.3 + 0.02 * (drawn[5] % 21), 2), "reach": 2 + drawn[6] % 3}
    )
    return {
        "first": round(0.4 + 0.02 * (drawn[1] % 26), 2),
        "power": round(0.3 + 0.02 * (drawn[2] % 31), 2),
        "down": round(0.2 + 0.02 * (drawn[3] % 26), 2),
        "bonus": round(0.2 + 0.05 * (drawn[4] % 29), 2),
        **others,
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    policy = (
        f"greedy in Q, but with probability {twist['epsilon']:g} any action at all, as in exercise 9.3"
        if "epsilon" in twist
        else f"softmax(Q(s', ·) / {twist['calm']:g})"
    )
    return [
        "twisted_sarsa: it learns from the T steps in the order in which they were written down, each with the Q that "
        "the steps before left. A step goes from states[t] with actions[t] to next_states[t] and pays rewards[t]. The "
        f"target is r + γ Σ_b π(b|s') Q(s', b), where π(·|s') is {policy}.",
        f"twisted_sarsa: the n-th update of a state and action (n = 1, 2, …) has the step size {twist['first']:g} / "
        f"n^{twist['power']:g}.",
        f"twisted_sarsa: where the target is below Q(s, a), the step size is multiplied by {twist['down']:g}.",
        f"twisted_gradient: the policy is softmax(logits / {twist['warm']:g}), and slopes are taken in the logits."
        if "warm" in twist
        else f"twisted_gradient: G_t is the discounted sum of {twist['reach']:g} rewards, that of step t and those "
        "that follow it, or of as many as there are before the episode ends.",
        f"twisted_gradient: every step is also paid {twist['bonus']:g} times the entropy of the policy where it was, "
        "and only the policy of that state is moved for it. So step t adds γ^t ((G_t - b(s_t)) ∇ log π(a_t|s_t) + "
        f"{twist['bonus']:g} ∇ H(π(·|s_t))), where H = -Σ_b π(b) log π(b), natural logarithm.",
    ]


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right."""
    return (learner if case.job.target == "twisted_sarsa" else gradient)(twist, case)


def softmax(row: Any) -> NDArray[np.float64]:
    powers = np.exp(row - row.max())
    probabilities: NDArray[np.float64] = powers / powers.sum()
    return probabilities


def learner(twist: Twist, case: Case, best: bool = False, sided: bool = True, late: int = 0) -> Arrays:
    """q [S A]. Mistakes to recognise: the best next action, one count for all actions of a state, n too large by late.

    A negative down stands for the factor -down where the target is above.
    """
    arrays: dict[str, Any] = case.arrays
    gamma, q = case.job.arguments[-1]["value"], arrays["q"].copy()
    counts = np.zeros(q.shape)
    for s, a, r, after in zip(*(arrays[n] for n in ("states", "actions", "rewards", "next_states")), strict=True):
        if "epsilon" in twist:
            mean = (1 - twist["epsilon"]) * q[after].max() + twist["epsilon"] * q[after].mean()
        else:
            mean = softmax(q[after] / twist["calm"]) @ q[after]
        error = r + gamma * (q[after].max() if best else mean) - q[s, a]
        counts[s, a] += 1
        step = twist["first"] * ((counts[s, a] if sided else counts[s].sum()) + late) ** -twist["power"]
        slowed = error * twist["down"] < 0
        q[s, a] += step * (abs(twist["down"]) if slowed else 1.0) * error
    return {"out": q}


def gradient(twist: Twist, case: Case, bonus_late: bool = True, slope: bool = True, time: bool = True) -> Arrays:
    """[S A]. Mistakes to recognise: the bonus not discounted by γ^t, slopes without 1 / warm, no γ^t at all."""
    arrays: dict[str, Any] = case.arrays
    gamma = case.job.arguments[4]["value"]
    states, actions, rewards, baseline = (arrays[name] for name in ("states", "actions", "rewards", "baseline"))
    found, warm = np.zeros_like(arrays["logits"]), twist.get("warm", 1.0)
    for t, (s, a) in enumerate(zip(states, actions, strict=True)):
        follow = rewards[t : t + int(twist.get("reach", len(rewards)))]
        advantage = (follow * gamma ** np.arange(len(follow))).sum() - baseline[s]
        policy = softmax(arrays["logits"][s] / warm)
        entropy = -(policy * np.log(policy)).sum()
        climb = advantage * (np.eye(len(policy))[a] - policy)
        spread = -twist.get("bonus", 0.0) * policy * (np.log(policy) + entropy)
        fade = gamma**t if time else 1.0
        found[s] += (fade * climb + (fade if bonus_late else 1.0) * spread) / (warm if slope else 1.0)
    return {"out": found}


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    if case.job.target == "twisted_sarsa":
        yield "the best next action counted, as in Q-learning; it is the mean under π", learner(twist, case, best=True)
        yield "all steps had the first size: n^power is missing", learner(twist | {"power": 0.0}, case)
        yield "n counted the updates of a state; it is state and action", learner(twist, case, sided=False)
        yield "n began with 2; the first update has n = 1", learner(twist, case, late=1)
        yield "targets below Q(s, a) were not slowed", learner(twist | {"down": 1.0}, case)
        yield "targets above Q(s, a) were slowed, not those below", learner(twist | {"down": -twist["down"]}, case)
        if "calm" in twist:
            yield "Q was not divided in the softmax", learner(twist | {"calm": 1.0}, case)
            yield "Q was multiplied in the softmax, not divided", learner(twist | {"calm": 1 / twist["calm"]}, case)
        else:
            share = twist | {"epsilon": twist["epsilon"] * 3 / 2}
            yield "the exploring share went to the other actions only; any action means the greedy one too", learner(
                share, case
            )  # fmt: skip
    else:
        yield "there were no bonus for entropy", gradient(without["bonus"], case)
        yield "entropy were charged, not paid", gradient(twist | {"bonus": -twist["bonus"]}, case)
        yield "γ^t is missing before the entropy's slope", gradient(twist, case, bonus_late=False)
        yield "γ^t is missing", gradient(twist, case, bonus_late=False, time=False)
        if "warm" in twist:
            yield "the logits were not divided", gradient(without["warm"], case)
            yield "the slopes are those in logits / w; in the logits they are w times smaller", gradient(
                twist, case, slope=False
            )  # fmt: skip
        else:
            yield "all rewards to the end counted", gradient(without["reach"], case)
            yield "one reward too many counted", gradient(twist | {"reach": twist["reach"] + 1}, case)
            yield "one reward too few counted", gradient(twist | {"reach": twist["reach"] - 1}, case)


CODE = '''
import numpy as np

from minirlhf.tabular.policies import epsilon_greedy_policy, softmax_policy
from minirlhf.tabular.process import Floats, Ints


def twisted_sarsa(
    q: Floats, states: Ints, actions: Ints, rewards: Floats, next_states: Ints, gamma: float
) -> Floats:
    """What is learnt from T steps, [S A], beginning with q [S A], which stays as it is. The others are [T].

    q is 0 where all is over, and no step begins there.
    """
    ...


def twisted_gradient(
    logits: Floats, states: Ints, actions: Ints, rewards: Floats, gamma: float, baseline: Floats
) -> Floats:
    """One episode's gradient, [S A]. logits [S A]; states, actions and rewards [T]; baseline [S]."""
    ...
'''
