"""Drawn inputs for a11: estimators of the KL, the exact KL, its controller, entropies, log-probs, and the twist.

Every function draws one case from a generator. What stands under the padding is junk: large numbers, or NaN.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.assignments.a10_ppo.cases import answers, apart, number_under
from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
Floats = NDArray[np.float64]


def estimate(rng: Rng, name: str, close: bool = False) -> Case:
    """log_probs and ref_log_probs [B R]. close: they differ in the fifth digit, and the result is magnified."""
    shape = (2, int(rng.integers(3, 6)))
    log_probs = -rng.uniform(0.5, 4, size=shape)
    moved = rng.choice([-1, 1], size=shape) * rng.uniform(*((1e-5, 3e-5) if close else (0.2, 1.5)), size=shape)
    arrays: Arrays = {"log_probs": log_probs, "ref_log_probs": log_probs - moved, "dout": rng.normal(size=shape)}
    play = "a11_kl.plays:magnified" if close else ""
    job = Job(name, ["log_probs", "ref_log_probs"], gradients=["log_probs"], cotangents=["dout"], play=play)
    return Case(job, arrays)


def exact_kl(rng: Rng, temperature: bool = False, forbidden: bool = False) -> Case:
    """logits and ref_logits [B T V]. forbidden: -inf for both at some tokens, and for the policy alone at others."""
    arrays = two_rows(rng, forbidden)
    if forbidden:
        arrays["logits"][..., 2] = -np.inf
    named = {"temperature": {"value": float(rng.choice([0.6, 0.7, 1.4, 1.7]))}} if temperature else {}
    job = Job("exact_kl", ["logits", "ref_logits"], named, gradients=["logits"], cotangents=["dout"])
    return Case(job, arrays)


def two_rows(rng: Rng, forbidden: bool) -> Arrays:
    """logits and ref_logits [2 3 6] and dout [2 3]; with forbidden, one token a row is -inf in both."""
    arrays: Arrays = {name: rng.normal(size=(2, 3, 6)) * 1.2 for name in ("logits", "ref_logits")}
    if forbidden:
        places = rng.integers(3, 6, size=(2, 3, 1))
        for array in arrays.values():
            np.put_along_axis(array, places, -np.inf, axis=2)
    return arrays | {"dout": rng.uniform(0.5, 2, size=(2, 3)) * rng.choice([-1, 1], size=(2, 3))}


def next_kl_coef(rng: Rng, near: bool = True, far: bool = False) -> Case:
    """A run of batches whose KL lies near the target, far above it and far below it."""
    target, horizon = float(rng.uniform(3, 9)), int(rng.integers(2000, 9000))
    shares = [*(rng.uniform(0.83, 1.17, size=4) if near else ()), *(apart(rng, 4, (0.1, 0.6), (1.5, 4)) if far else ())]
    setting = {
        "kl_coef": float(rng.uniform(0.02, 0.3)),
        "kls": [float(target * share) for share in rng.permutation(shares)],
        "episodes": [int(count) for count in rng.integers(200, 900, size=len(shares))],
    }
    arguments = [{"shown": "the coefficient"}, {"shown": "the batch's KL"}, {"value": target}, {"value": horizon},
                 {"shown": "the batch's answers"}]  # fmt: skip
    return Case(Job("next_kl_coef", arguments, play="a11_kl.plays:controlled", setting=setting), {})


def entropy(rng: Rng, temperature: bool = False, forbidden: bool = False) -> Case:
    """logits [B T V] and targets [B T], which are never forbidden."""
    rows = two_rows(rng, forbidden)
    arrays = {"logits": rows["logits"], "targets": rng.integers(0, 3, size=(2, 3))}
    arrays |= {"dlog_probs": rows["dout"], "dentropy": rng.uniform(0.2, 0.9, size=(2, 3))}
    named = {"temperature": {"value": float(rng.choice([0.6, 0.7, 1.4, 1.7]))}} if temperature else {}
    job = Job(
        "token_log_probs_and_entropy",
        ["logits", "targets"],
        named,
        gradients=["logits"],
        cotangents=["dlog_probs", "dentropy"],
    )
    return Case(job, arrays)


def response(rng: Rng, temperature: bool = False, padded: bool = False) -> Case:
    """ids and attention_mask [B P+R] and the table [V V] of a small model that looks back at all tokens in sight."""
    batch, prompt, tokens, vocabulary = 3, int(rng.integers(3, 6)), int(rng.integers(2, 4)), 7
    mask = np.ones((batch, prompt + tokens), dtype=bool)
    if padded:  # prompts on the left, short answers on the right
        mask[0, : prompt - 2] = False
        mask[1, 0] = False
        mask[2, -1] = False
    arrays: Arrays = {
        "ids": rng.integers(0, vocabulary, size=mask.shape),
        "attention_mask": mask,
        "table": rng.normal(size=(vocabulary, vocabulary)),
        "dlog_probs": rng.normal(size=(batch, tokens)),
        "dentropy": rng.normal(size=(batch, tokens)),
    }
    named = {"temperature": {"value": float(rng.choice([0.6, 0.7, 1.4, 1.7]))}} if temperature else {}
    job = Job(
        "response_log_probs",
        [{"shown": "model_forward"}, "ids", "attention_mask", {"value": tokens}],
        named,
        gradients=["table"],
        cotangents=["dlog_probs", "dentropy"],
        play="a11_kl.plays:of_a_small_model",
    )
    return Case(job, arrays)


def twisted_divergence(rng: Rng, forbidden: bool = False) -> Case:
    """logits and ref_logits [B T V]."""
    job = Job("twisted_divergence", ["logits", "ref_logits"], gradients=["logits"], cotangents=["dout"])
    return Case(job, two_rows(rng, forbidden))


def twisted_estimate(rng: Rng, junk: str = "large") -> Case:
    """log_probs and ref_log_probs [B R]: ratios on both sides of 1, and beyond every cap."""
    arrays = answers(rng, True, ("log_probs", "ref_log_probs"), number_under(junk))
    mask = arrays["response_mask"]
    ratios = apart(rng, mask.sum(), (3.5, 6.0), (0.2, 0.7), (1.1, 1.4))  # reference over policy
    arrays["log_probs"][mask] = -np.abs(arrays["log_probs"][mask]) - 2
    arrays["ref_log_probs"][mask] = arrays["log_probs"][mask] + np.log(rng.permutation(ratios))
    arrays["dout"] = np.array(rng.uniform(0.5, 2))
    arguments = ["log_probs", "ref_log_probs", "response_mask"]
    return Case(Job("twisted_estimate", arguments, gradients=["log_probs"], cotangents=["dout"]), arrays)


CASES: dict[str, Callable[..., Case]] = {
    "estimate": estimate,
    "exact_kl": exact_kl,
    "next_kl_coef": next_kl_coef,
    "entropy": entropy,
    "response": response,
    "twisted_divergence": twisted_divergence,
    "twisted_estimate": twisted_estimate,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
