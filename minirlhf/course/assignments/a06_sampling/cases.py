"""Drawn inputs for a06: cutting a distribution, drawing from it, writing with a cache, and the twist.

Every function draws one case from a generator. No two logits of a row are alike, and no probability lies where it is
rounding that decides on which side of a line a token falls.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Case, Job

Rng = np.random.Generator
Floats = NDArray[np.float64]


def some_logits(rng: Rng, rows: int = 4, vocab: int = 0, forbidden: bool = False) -> Floats:
    """[B V], some rows flat and some steep. forbidden: two tokens of every row are -inf, the first among them."""
    logits = rng.normal(size=(rows, vocab or int(rng.integers(9, 14)))) * np.linspace(1, 2.5, rows)[:, None]
    if forbidden:
        logits[:, 0] = -np.inf
        logits[:, int(rng.integers(1, logits.shape[1]))] = -np.inf
    return logits


def probs_of(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def sampling(**settings: Any) -> dict[str, str]:
    """The argument as the feedback shows it; the play makes it of its setting."""
    return {"shown": f"SamplingConfig({', '.join(f'{name}={value}' for name, value in settings.items())})"}


def top_k(rng: Rng, forbidden: bool = False, large: bool = False) -> Case:
    """k of some tokens. large: k is the vocabulary or more."""
    logits = some_logits(rng, forbidden=forbidden)
    k = logits.shape[1] + int(rng.integers(0, 3)) if large else int(rng.integers(3, 7))
    return Case(Job("keep_top_k", ["logits", {"value": k}]), {"logits": logits})


def top_p(rng: Rng, low: float = 0.4, high: float = 0.9, forbidden: bool = False) -> Case:
    """p between low and high, 1 if both are 1."""
    logits = some_logits(rng, forbidden=forbidden)
    arguments = ["logits", "probs", {"value": float(rng.uniform(low, high))}]
    return Case(Job("keep_top_p", arguments), {"logits": logits, "probs": probs_of(logits)})


def distribution(rng: Rng, cut: str = "", forbidden: bool = False) -> Case:
    """sampling_log_probs at a temperature. cut: "k", "p", or both."""
    settings: dict[str, Any] = {
        "temperature": round(float(rng.choice([rng.uniform(0.4, 0.7), rng.uniform(1.5, 3)])), 2)
    }
    if "k" in cut:
        settings["top_k"] = int(rng.integers(4, 7))
    if "p" in cut:
        settings["top_p"] = round(float(rng.uniform(0.5, 0.85)), 2)
    job = Job(
        "sampling_log_probs", ["logits", sampling(**settings)], play="a06_sampling.plays:configured", setting=settings
    )
    return Case(job, {"logits": some_logits(rng, forbidden=forbidden)})


def draw(rng: Rng, edges: bool = False) -> Case:
    """A token for each of many uniform numbers. edges: 0 and the largest below 1, impossible tokens at both ends."""
    probs = probs_of(some_logits(rng, rows=8))
    uniforms = rng.uniform(0.03, 0.97, size=8)
    if edges:
        probs[:, [0, 1, -1]] = 0
        uniforms[::2], uniforms[1::2] = 0.0, 1 - 2.0**-53
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs / probs.sum(-1, keepdims=True))
    return Case(Job("invert_cumulative", ["log_probs", "uniforms"]), {"log_probs": log_probs, "uniforms": uniforms})


def tokens(rng: Rng, greedy: bool = False, seeded: bool = False, broken: str = "") -> Case:
    """sample_tokens of given uniform numbers, of a generator (seeded), greedily; broken: one row is "nan" or "-inf"."""
    settings: dict[str, Any] = {"temperature": round(float(rng.uniform(1.6, 2.5)), 2), "greedy": greedy}
    if not greedy:
        settings["top_k"] = int(rng.integers(5, 8))
    arrays = {"logits": some_logits(rng, rows=6)}
    arguments: list[Any] = ["logits", sampling(**settings)]
    if seeded:
        arguments.append({"generator": int(rng.integers(1 << 30))})
    else:
        arrays["uniforms"] = rng.uniform(0.03, 0.97, size=6)
        arguments += [{"value": None}, "uniforms"]
    if broken:
        arrays["broken"] = arrays["logits"].copy()
        row = int(rng.integers(6))
        arrays["broken"][row, int(rng.integers(9)) if broken == "nan" else slice(None)] = float(broken)
    return Case(Job("sample_tokens", arguments, play="a06_sampling.plays:tokens", setting=settings), arrays)


VOCABULARY, STOPS = 8, [5, 2]


def habits(rng: Rng, most: int) -> dict[str, Any]:
    """What a Chatterbox says: `table` [V V] logits after a token, `pull` [V V] what every visible token adds."""
    table = rng.normal(size=(VOCABULARY, VOCABULARY))
    table[:, STOPS] += np.log(10 / most) - 0.5
    return {"table": table, "pull": rng.normal(size=(VOCABULARY, VOCABULARY))}


def writing(rng: Rng, padded: bool = True, stops: bool = True, banned: bool = False, room: bool = False) -> Case:
    """generate: answers that end early, late or never. padded: prompts of several lengths. room: no place over."""
    most, prompt_tokens = int(rng.integers(9, 12)), 6
    lengths = rng.permutation([5, 4, 3, 3, 2, 1, 4, 2]) if padded else np.full(8, prompt_tokens)
    ids = rng.integers(0, VOCABULARY, size=(8, prompt_tokens))
    setting: dict[str, Any] = {
        "sampling": {"max_new_tokens": most, "temperature": round(float(rng.uniform(0.7, 1.4)), 2)},
        "stop_ids": STOPS if stops else [],
        "pad_id": int(rng.integers(VOCABULARY)),
        "banned_ids": [int(rng.choice([0, 1, 3]))] if banned else [],
        "context": int(lengths.max()) + most if room else 99,
        "seed": int(rng.integers(1 << 30)),
        "room": room,
    }
    arrays = {"ids": ids, "attention_mask": np.arange(prompt_tokens) >= prompt_tokens - lengths[:, None]}
    arguments = [
        {"shown": "a small model"},
        {"shown": f"prompts of {lengths.tolist()} tokens"},
        sampling(**setting["sampling"]),
        {"value": setting["stop_ids"]},
        {"value": setting["pad_id"]},
        {"generator": setting["seed"]},
        {"value": setting["banned_ids"]},
    ]
    return Case(
        Job("generate", arguments, play="a06_sampling.plays:writing", setting=setting), arrays | habits(rng, most)
    )


def streaming(rng: Rng, full: bool = False, banned: bool = False) -> Case:
    """stream: until a stop token, or (full) until max_new_tokens or the context is full, whichever comes first."""
    setting: dict[str, Any] = {
        "sampling": {"max_new_tokens": int(rng.integers(6, 9)), "temperature": round(float(rng.uniform(0.7, 1.4)), 2)},
        "stop_ids": [] if full else STOPS,
        "banned_ids": [int(rng.choice([0, 1, 3]))] if banned else [],
        "context": int(rng.integers(7, 16)) if full else 99,
        "seeds": [int(seed) for seed in rng.integers(1 << 30, size=1 if full else 6)],
    }
    arguments = [
        {"shown": "a small model"},
        "prompt",
        sampling(**setting["sampling"]),
        {"value": setting["stop_ids"]},
        {"generator": setting["seeds"][0]},
        {"value": setting["banned_ids"]},
    ]
    arrays = {"prompt": rng.integers(0, VOCABULARY, size=4)} | habits(rng, 7)
    return Case(Job("stream", arguments, play="a06_sampling.plays:streaming", setting=setting), arrays)


def twisted_charge(rng: Rng, short: bool = False) -> Case:
    """logits [B V] and ids [B T], in which tokens come back. short: fewer ids than any window."""
    vocab, length = 9, 2 if short else int(rng.integers(8, 11))
    ids = rng.integers(0, 4, size=(5, length))
    ids[::2, -2] = ids[::2, -1]
    ids[1::2, -1] = 5 - short  # here the newest token is new
    return Case(Job("twisted_charge", ["logits", "ids"]), {"logits": some_logits(rng, 5, vocab), "ids": ids})


def twisted_log_probs(rng: Rng, forbidden: bool = False) -> Case:
    logits = some_logits(rng, rows=6, vocab=40, forbidden=forbidden)
    logits[:, 3] = logits.max(-1) + rng.uniform(0.3, 1.2, size=6)  # a likeliest token that stands out a little
    return Case(Job("twisted_log_probs", ["logits"]), {"logits": logits})


CASES: dict[str, Callable[..., Case]] = {
    "top_k": top_k,
    "top_p": top_p,
    "distribution": distribution,
    "draw": draw,
    "tokens": tokens,
    "writing": writing,
    "streaming": streaming,
    "twisted_charge": twisted_charge,
    "twisted_log_probs": twisted_log_probs,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
