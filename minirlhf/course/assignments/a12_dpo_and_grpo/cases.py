"""Drawn inputs for a12: DPO and IPO on pairs, leave-one-out and group advantages, GRPO's loss, and the twist.

Every function draws one case from a generator. No ratio lies near a clip's edge. Pairs come as summed log-probs [B];
what stands under the padding of tokens is junk: large numbers, or NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.assignments.a10_ppo.cases import answers, apart, number_under
from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
Floats = NDArray[np.float64]

PAIRS = ("chosen_log_probs", "rejected_log_probs", "ref_chosen_log_probs", "ref_rejected_log_probs")
TOKENS = ("log_probs", "old_log_probs", "ref_log_probs")
LEARNS = "a12_dpo_and_grpo.plays:who_learns"


def pair_arrays(rng: Rng, far: bool = False) -> Arrays:
    """Four of [B]: the policy has moved a few nats from its reference, or (far) ten thousand."""
    pairs = int(rng.integers(4, 7))
    arrays: Arrays = {name: -rng.uniform(5, 60, size=pairs) for name in PAIRS[2:]}
    for name in PAIRS[:2]:
        moved = rng.uniform(1e4, 2e4, size=pairs) * rng.choice([-1, 1], size=pairs) if far else rng.normal(size=pairs)
        arrays[name] = arrays[f"ref_{name}"] + moved * (1 if far else 4)
    return arrays


def implicit_rewards(rng: Rng, learns: bool = False) -> Case:
    """log_probs and ref_log_probs [B]."""
    pairs = pair_arrays(rng)
    arrays = {"log_probs": pairs[PAIRS[0]], "ref_log_probs": pairs[PAIRS[2]]}
    arguments = ["log_probs", "ref_log_probs", {"value": float(rng.uniform(0.1, 0.6))}]
    if learns:
        return Case(Job("implicit_rewards", arguments, play=LEARNS, setting={"arrays": list(arrays)}), arrays)
    arrays["dout"] = rng.normal(size=len(arrays["log_probs"]))
    return Case(Job("implicit_rewards", arguments, gradients=["log_probs"], cotangents=["dout"]), arrays)


def dpo(rng: Rng, smoothing: bool = False, far: bool = False, micro: bool = False) -> Case:
    """Four of [B]; label_smoothing between 0.1 and 0.4 when it is asked for."""
    arrays = pair_arrays(rng, far)
    named: dict[str, Any] = {"label_smoothing": {"value": float(rng.uniform(0.1, 0.4))}} if smoothing else {}
    return pair_loss("dpo", arrays, rng, [{"value": float(rng.uniform(0.1, 0.6))}], named, micro)


def ipo(rng: Rng, micro: bool = False) -> Case:
    """Four of [B]: pairs that have moved too little, enough, and too far."""
    return pair_loss("ipo", pair_arrays(rng), rng, [{"value": float(rng.uniform(0.1, 0.4))}], {}, micro)


def pair_loss(
    target: str, arrays: Arrays, rng: Rng, more: list[Any], named: dict[str, Any], micro: bool = False
) -> Case:
    """The call with the gradients of the policy's two arrays."""
    count = {"count": {"value": len(arrays[PAIRS[0]]) + int(rng.integers(3, 20))}} if micro else {}
    arrays["dout"] = np.array(rng.uniform(0.5, 2))
    job = Job(target, [*PAIRS, *more], named | count, gradients=PAIRS[:2], cotangents=["dout"])
    return Case(job, arrays)


def scores_of(rng: Rng, groups: int, size: int) -> Floats:
    """[groups size], each group with a zero and a scale of its own."""
    scale, zero = rng.uniform(0.5, 3, size=(groups, 1)), rng.normal(size=(groups, 1)) * 4
    found: Floats = zero + scale * rng.normal(size=(groups, size))
    return found


def rloo_advantages(rng: Rng, any_size: bool = False) -> Case:
    """scores [B], three groups of four, or some of two to six."""
    groups, size = (int(rng.integers(1, 4)), int(rng.integers(2, 7))) if any_size else (3, 4)
    arrays: Arrays = {"scores": scores_of(rng, groups, size).reshape(-1)}
    return Case(Job("rloo_advantages", ["scores", {"value": size}]), arrays)


def group_advantages(rng: Rng, divide: bool = True, equal: bool = False) -> Case:
    """scores [B], three groups of five. equal: one of them has the same score five times."""
    scores = scores_of(rng, 3, 5)
    if equal:
        scores[rng.integers(3)] = rng.integers(1, 9)
    named = {} if divide else {"divide_by_std": {"value": False}}
    return Case(Job("group_advantages", ["scores", {"value": 5}], named), {"scores": scores.reshape(-1)})


def grpo_loss(
    rng: Rng,
    padded: bool = False,
    junk: str = "large",
    clipped: bool = True,
    kl: bool = True,
    micro: bool = False,
    learns: bool = False,
) -> Case:
    """Three of [B R] and advantages [B] of both signs: every answer has tokens within the clip and on both sides."""
    arrays = answers(rng, padded, TOKENS, number_under(junk))
    mask = arrays["response_mask"]
    kinds = [apart(rng, mask.shape[1], (0.3, 0.7), (1.3, 2.5), (0.85, 1.15)) if clipped
             else apart(rng, mask.shape[1], (0.4, 1.6)) for _ in mask]  # fmt: skip
    arrays["old_log_probs"][mask] = -np.abs(arrays["old_log_probs"][mask]) - 1
    arrays["log_probs"][mask] = (arrays["old_log_probs"] + np.log(np.stack(kinds)))[mask]
    arrays["ref_log_probs"][mask] = arrays["log_probs"][mask] + rng.uniform(-1, 1, size=mask.sum())
    arrays["advantages"] = rng.permutation([1.0, -1.0, rng.choice([-1.0, 1.0])]) * rng.uniform(0.5, 2, size=3)
    clip_range, kl_coef = {"value": 0.2 if clipped else 0.9}, {"value": float(rng.uniform(0.2, 0.9)) if kl else 0.0}
    arguments = [*TOKENS, "advantages", "response_mask", clip_range, kl_coef]
    named = {"count": {"value": 3 + int(rng.integers(2, 9))}} if micro else {}
    if learns:
        setting = {"arrays": [*TOKENS, "advantages"]}
        return Case(Job("grpo_loss", arguments, named, play=LEARNS, setting=setting), arrays)
    arrays["dout"] = np.array(rng.uniform(0.5, 2))
    return Case(Job("grpo_loss", arguments, named, gradients=["log_probs"], cotangents=["dout"]), arrays)


def twisted_dpo(rng: Rng, far: bool = False) -> Case:
    """Four of [B] and two lengths: chosen answers that fell below their reference, and others that rose above it."""
    arrays = pair_arrays(rng, far)
    pairs = len(arrays[PAIRS[0]])
    moved = arrays[PAIRS[0]] - arrays[PAIRS[2]]
    signs = np.resize([1, -1], pairs)  # alternating, so that each case has both
    arrays[PAIRS[0]] = arrays[PAIRS[2]] + signs * np.maximum(np.abs(moved), 0.5)
    arrays["chosen_tokens"] = rng.integers(4, 12, size=pairs).astype(np.float64)
    arrays["rejected_tokens"] = rng.integers(13, 30, size=pairs).astype(np.float64)
    more = ["chosen_tokens", "rejected_tokens", {"value": float(rng.uniform(0.3, 0.8))}]
    return pair_loss("twisted_dpo", arrays, rng, more, {})


def twisted_grpo_loss(rng: Rng, junk: str = "large") -> Case:
    """log_probs and old_log_probs [8 R], scores [8] of two groups: answers of both signs on both sides of any edge."""
    size, tokens = 4, int(rng.integers(6, 9))
    mask = np.arange(tokens) < rng.permutation(np.arange(8) % (tokens - 2) + 3)[:, None]
    old = np.where(mask, -rng.uniform(0.5, 3, size=mask.shape), 0.0)
    high, near, low = (1.6, 2.2), (0.93, 1.07), (0.35, 0.6)
    kinds = np.concatenate((apart(rng, size, high, low, high, low), apart(rng, size, near, high, near, low)))
    places = np.concatenate((rng.permutation(size), size + rng.permutation(size)))
    above = np.array([1, 1, -1, -1] * 2) * rng.uniform(0.5, 1.5, size=2 * size)  # two above the group's mean, two below
    scale, zero = rng.uniform(0.5, 3, size=2), rng.normal(size=2) * 3
    scores = (above * scale.repeat(size) + zero.repeat(size))[places]
    moved = rng.normal(size=mask.shape) * 0.3 * mask
    moved += np.log(kinds[places])[:, None] - (moved.sum(1) / mask.sum(1))[:, None]  # the mean over an answer's tokens
    arrays: Arrays = {
        "log_probs": np.where(mask, old + moved, number_under(junk)),
        "old_log_probs": np.where(mask, old, 3 * number_under(junk)),
        "scores": scores,
        "response_mask": mask,
        "dout": np.array(rng.uniform(0.5, 2)),
    }
    arguments = ["log_probs", "old_log_probs", "scores", "response_mask", {"value": size}]
    return Case(Job("twisted_grpo_loss", arguments, gradients=["log_probs"], cotangents=["dout"]), arrays)


CASES: dict[str, Callable[..., Case]] = {
    "implicit_rewards": implicit_rewards,
    "dpo": dpo,
    "ipo": ipo,
    "rloo_advantages": rloo_advantages,
    "group_advantages": group_advantages,
    "grpo_loss": grpo_loss,
    "twisted_dpo": twisted_dpo,
    "twisted_grpo_loss": twisted_grpo_loss,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
