"""Drawn inputs for a10: rewards, advantages, PPO's two losses, explained variance, and the twist.

Every function draws one case from a generator. No ratio or value lies near a clip's edge, where two answers are
right. What stands under the padding is junk: large numbers, or NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
Floats = NDArray[np.float64]


def answers(rng: Rng, padded: bool, names: tuple[str, ...], junk: float = 1e3) -> Arrays:
    """response_mask [B R] and normal numbers [B R] for each name, junk off the mask."""
    batch, tokens = 3, int(rng.integers(5, 8))
    lengths = rng.permutation([tokens, tokens - 2, 2]) if padded else np.full(batch, tokens)
    mask = np.arange(tokens) < lengths[:, None]
    return {"response_mask": mask} | {
        name: np.where(mask, rng.normal(size=mask.shape), junk * i) for i, name in enumerate(names, start=1)
    }


def number_under(name: str) -> float:
    return float("nan") if name == "nan" else 1e3


def shape_rewards(rng: Rng, padded: bool = True, junk: str = "large") -> Case:
    """scores [B], log_probs and ref_log_probs [B R]."""
    arrays = answers(rng, padded, ("log_probs", "ref_log_probs"), number_under(junk))
    arrays["scores"] = rng.normal(size=3) * 2
    arguments = ["scores", "log_probs", "ref_log_probs", "response_mask", {"value": float(rng.uniform(0.1, 0.5))}]
    return Case(Job("shape_rewards", arguments), arrays)


def gae(rng: Rng, padded: bool = True, junk: str = "large", edges: bool = False, cut: str = "") -> Case:
    """rewards and values [B R]. cut: "" (all is over), "known" (last_values are given) or "unknown"."""
    arrays = answers(rng, padded, ("rewards", "values"), number_under(junk))
    gamma, gae_lambda = (float(rng.choice([0.0, 1.0]) if edges else rng.uniform(0.5, 0.9)) for _ in range(2))
    named: dict[str, Any] = {}
    if cut:
        arrays["ended"] = rng.permutation([True, False, False])
        named = {"ended": "ended", "truncated": {"value": "bootstrap"}}
    if cut == "known":
        arrays["last_values"] = rng.normal(size=3)
        named["last_values"] = "last_values"
    job = Job("gae", ["rewards", "values", "response_mask", {"value": gamma}, {"value": gae_lambda}], named)
    return Case(job, arrays)


def apart(rng: Rng, count: int, *ranges: tuple[float, float]) -> Floats:
    """[count] numbers, the ranges in turn."""
    return np.array([rng.uniform(*ranges[i % len(ranges)]) for i in range(count)])


def policy_loss(
    rng: Rng, padded: bool = False, junk: str = "large", clipped: bool = True, micro: bool = False, learns: bool = False
) -> Case:
    """log_probs, old_log_probs and advantages [B R]: every kind of ratio with both signs of the advantage."""
    arrays = answers(rng, padded, ("log_probs", "old_log_probs", "advantages"), number_under(junk))
    mask = arrays["response_mask"]
    ratios = (
        apart(rng, mask.sum(), (0.3, 0.7), (0.85, 1.15), (1.3, 2.5)) if clipped else apart(rng, mask.sum(), (0.4, 1.6))
    )
    signs = np.where(np.arange(mask.sum()) // 3 % 2, -1.0, 1.0)
    order = rng.permutation(mask.sum())
    arrays["old_log_probs"][mask] = -np.abs(arrays["old_log_probs"][mask]) - 1
    arrays["log_probs"][mask] = arrays["old_log_probs"][mask] + np.log(ratios)[order]
    arrays["advantages"][mask] = (signs * rng.uniform(0.5, 2, size=mask.sum()))[order]
    clip_range = {"value": 0.2 if clipped else 0.9}
    arguments = ["log_probs", "old_log_probs", "advantages", "response_mask", clip_range]
    return loss("ppo_policy_loss", arguments, arrays, rng, micro, learns)


def value_loss(rng: Rng, padded: bool = False, micro: bool = False, learns: bool = False) -> Case:
    """values, old_values and returns [B R]: moves within and beyond the clip, towards the return and away from it."""
    arrays = answers(rng, padded, ("values", "old_values", "returns"))
    mask = arrays["response_mask"]
    moves = apart(rng, mask.sum(), (-0.2, 0.2), (0.4, 2.0), (-2.0, -0.4))[rng.permutation(mask.sum())]
    arrays["values"][mask] = arrays["old_values"][mask] + moves
    clip_range = {"value": 0.3}
    arguments = ["values", "old_values", "returns", "response_mask", clip_range]
    return loss("clipped_value_loss", arguments, arrays, rng, micro, learns)


def loss(target: str, arguments: list[Any], arrays: Arrays, rng: Rng, micro: bool, learns: bool) -> Case:
    """The call with the gradient of the first array, or (learns) of the first three, where 0 is expected of two."""
    named = {"count": {"value": int(arrays["response_mask"].sum()) + int(rng.integers(3, 20))}} if micro else {}
    if learns:
        return Case(Job(target, arguments, named, play="a10_ppo.plays:who_learns"), arrays)
    arrays["dout"] = np.array(rng.uniform(0.5, 2))
    return Case(Job(target, arguments, named, gradients=[arguments[0]], cotangents=["dout"]), arrays)


def explained_variance(rng: Rng, constant: bool = False) -> Case:
    """values and returns [B R]. constant: asked a second time with returns that are all equal."""
    arrays = answers(rng, True, ("values", "returns"))
    mask = arrays["response_mask"]
    arrays["values"][mask] = 0.7 * arrays["returns"][mask] + 0.3 * arrays["values"][mask] + 1
    play = "a10_ppo.plays:also_of_a_constant" if constant else ""
    return Case(Job("explained_variance", ["values", "returns", "response_mask"], play=play), arrays)


def twisted_gae(rng: Rng, junk: str = "large") -> Case:
    arrays = answers(rng, True, ("rewards", "values"), number_under(junk))
    arguments = ["rewards", "values", "response_mask", {"value": float(rng.uniform(0.6, 0.95))}]
    return Case(Job("twisted_gae", arguments), arrays)


def twisted_policy_loss(rng: Rng, junk: str = "large") -> Case:
    """Ratios on either side of every edge that a twist can have, with both signs of the advantage."""
    case = policy_loss(rng, True, junk)
    mask = case.arrays["response_mask"]
    ratios = apart(rng, mask.sum(), (0.3, 0.65), (0.92, 1.08), (1.65, 1.75), (3.6, 5.0))
    signs = np.where(np.arange(mask.sum()) // 4 % 2, -1.0, 1.0)
    order = rng.permutation(mask.sum())
    case.arrays["log_probs"][mask] = case.arrays["old_log_probs"][mask] + np.log(ratios)[order]
    case.arrays["advantages"][mask] = (signs * rng.uniform(0.5, 2, size=mask.sum()))[order]
    arguments = ["log_probs", "old_log_probs", "advantages", "response_mask"]
    return Case(Job("twisted_policy_loss", arguments, gradients=["log_probs"], cotangents=["dout"]), case.arrays)


CASES: dict[str, Callable[..., Case]] = {
    "shape_rewards": shape_rewards,
    "gae": gae,
    "policy_loss": policy_loss,
    "value_loss": value_loss,
    "explained_variance": explained_variance,
    "twisted_gae": twisted_gae,
    "twisted_policy_loss": twisted_policy_loss,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
