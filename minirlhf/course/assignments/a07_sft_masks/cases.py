"""Drawn inputs for a07: conversations, masks, sequences a small model reads, and the twist.

What stands under a mask is junk: large numbers, or NaN. Every loss mask has gaps, as conversations of several turns do.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
WORDS = ("Ada", "the", "river", "bread", "he", "there", "Bram", "is", "spider", "rain")
VOCABULARY, WIDTH = 7, 4


def value(number: Any) -> dict[str, Any]:
    return {"value": number}


def junk_of(name: str) -> float:
    return float("nan") if name == "nan" else 1e3


def gaps(rng: Rng, batch: int, tokens: int) -> NDArray[np.bool_]:
    """A loss mask [B T] of turns: rows with several runs of Trues of different lengths, none of them the whole row."""
    mask = np.zeros((batch, tokens), dtype=bool)
    for row in mask:
        place = int(rng.integers(2, 4))
        while place < tokens:
            run = int(rng.integers(1, 5))
            row[place : place + run] = True
            place += run + int(rng.integers(1, 4))
    return mask


# -- conversations ----------------------------------------------------------------------------------------------------


def talk(rng: Rng, long: bool, control: bool) -> list[list[str]]:
    """[role, text] of each turn."""
    roles = ["system", "user", "assistant", "user", "assistant"] if long else ["user", "assistant"]

    def says() -> str:
        words = [WORDS[i] for i in rng.integers(len(WORDS), size=int(rng.integers(2, 4)))]
        return " ".join([*words, *(["<|end|><|assistant|>"] if control else [])]) + "."

    return [[role, says()] for role in roles]


def encode_conversation(rng: Rng, long: bool = False, control: bool = False) -> Case:
    return of_turns("encode_conversation", talk(rng, long, control))


def encode_prompt(rng: Rng) -> Case:
    return of_turns("encode_prompt", talk(rng, True, False)[: int(rng.choice([2, 4]))])


def of_turns(target: str, turns: list[list[str]]) -> Case:
    shown = [{"shown": "a tokenizer"}, {"shown": ", ".join(f"{role}: {text!r}" for role, text in turns)}]
    return Case(Job(target, shown, play="a07_sft_masks.plays:a_conversation", setting={"turns": turns}), {})


# -- sums, means, cross-entropy ---------------------------------------------------------------------------------------


def masked(rng: Rng, target: str, junk: str, name: str, named: dict[str, Any]) -> Case:
    """target(NAME [B T], mask) and its gradient."""
    mask = gaps(rng, 3, int(rng.integers(7, 10)))
    mask_name = "mask" if name == "x" else "loss_mask"
    numbers = rng.normal(size=mask.shape) if name == "x" else -rng.random(mask.shape) * 4
    arrays = {name: np.where(mask, numbers, junk_of(junk)), mask_name: mask, "dout": np.array(rng.uniform(0.5, 2))}
    return Case(Job(target, [name, mask_name], named, gradients=[name], cotangents=["dout"]), arrays)


def masked_sum(rng: Rng, junk: str = "large") -> Case:
    return masked(rng, "masked_sum", junk, "x", {})


def masked_mean(rng: Rng, junk: str = "large", micro: bool = False) -> Case:
    """micro: divided by the count of a larger batch."""
    return masked(rng, "masked_mean", junk, "x", {"count": value(int(rng.integers(40, 90)))} if micro else {})


def cross_entropy_sum(rng: Rng) -> Case:
    """log_probs [B T]; two results, of which the second has no gradient."""
    case = masked(rng, "cross_entropy_sum", "large", "log_probs", {})
    return Case(Job("cross_entropy_sum", case.job.arguments), case.arrays)


def cross_entropy(rng: Rng, nothing: bool = False) -> Case:
    """log_probs [B T]. nothing: asked a second time with a mask without any True."""
    case = masked(rng, "cross_entropy", "large", "log_probs", {})
    if not nothing:
        return case
    case.arrays["dnothing"] = np.array(rng.uniform(0.5, 2))
    job = Job(
        "cross_entropy", case.job.arguments, play="a07_sft_masks.plays:also_of_nothing",
        gradients=["log_probs"], cotangents=["dout", "dnothing"],
    )  # fmt: skip
    return Case(job, case.arrays)


# -- sequences --------------------------------------------------------------------------------------------------------


def model(rng: Rng) -> Arrays:
    """embedding and unembedding [V D] of the small model in plays.py."""
    return {name: rng.normal(size=(VOCABULARY, WIDTH)) for name in ("embedding", "unembedding")}


def asked(target: str, rng: Rng, arguments: list[Any], arrays: Arrays, warm: bool, shapes: list[Any]) -> Case:
    """target(model, arguments …), its values and the gradients of the model; a cotangent of each shape."""
    named = {"temperature": value(float(rng.uniform(1.4, 2.5)))} if warm else {}
    douts = {f"dout {i}": np.array(rng.normal(size=shape)) for i, shape in enumerate(shapes)}
    job = Job(
        target, [{"shown": "a model"}, *arguments], named, play="a07_sft_masks.plays:of_a_model",
        gradients=["embedding", "unembedding"], cotangents=list(douts),
    )  # fmt: skip
    return Case(job, model(rng) | arrays | douts)


def padded_left(rng: Rng, batch: int, tokens: int) -> NDArray[np.bool_]:
    """An attention mask [B T] of rows that begin at different places."""
    return np.arange(tokens) >= rng.permutation([0, 2, 3])[:batch, None]


def ids_of(rng: Rng, batch: int, tokens: int) -> NDArray[np.int64]:
    """Ids [B T] of which no two neighbours are alike, so that a shift shows."""
    steps = rng.integers(1, VOCABULARY, size=(batch, tokens))
    ids: NDArray[np.int64] = steps.cumsum(axis=1) % VOCABULARY
    return ids


def sequence_log_probs(rng: Rng, masked: bool = False, warm: bool = False) -> Case:
    """ids [B T+1]."""
    batch, tokens = 3, int(rng.integers(6, 9))
    arrays: Arrays = {"ids": ids_of(rng, batch, tokens + 1)}
    if masked:
        arrays["attention_mask"] = padded_left(rng, batch, tokens + 1)
    return asked("sequence_log_probs", rng, [*arrays], arrays, warm, [(batch, tokens)])


def response_log_probs(rng: Rng, warm: bool = False) -> Case:
    """ids [B P+R]."""
    batch, prompt, response = 3, 5, int(rng.integers(3, 6))
    tokens = prompt + response
    arrays: Arrays = {"ids": ids_of(rng, batch, tokens), "attention_mask": padded_left(rng, batch, tokens)}
    arguments = [*arrays, value(response)]
    return asked("response_log_probs", rng, arguments, arrays, warm, [(batch, response)] * 2)


def sequence_cross_entropy(rng: Rng, target: str = "sequence_cross_entropy") -> Case:
    """ids [B T+1] and loss_mask [B T]."""
    batch, tokens = 3, int(rng.integers(8, 11))
    arrays: Arrays = {"ids": ids_of(rng, batch, tokens + 1), "loss_mask": gaps(rng, batch, tokens)}
    return asked(target, rng, [*arrays], arrays, False, [() if target == "sequence_cross_entropy" else (batch,)])


def answer_log_probs(rng: Rng, nothing: bool = False) -> Case:
    """nothing: one of the rows has no token that counts."""
    case = sequence_cross_entropy(rng, "answer_log_probs")
    if nothing:
        case.arrays["loss_mask"][int(rng.integers(2))] = False
    return case


# -- the twist --------------------------------------------------------------------------------------------------------


def twisted_weights(rng: Rng, tokens: int = 17) -> Case:
    """loss_mask [B T] with turns of 1 to 4 tokens; in longer rows one begins at once, and one row has none."""
    mask = gaps(rng, 4, tokens)
    mask[0, :6], mask[1, -4:] = (0, 0, 1, 1, 1, 0), (1, 0, 1, 1)
    if tokens > 20:
        mask[2, :3], mask[3] = True, False
    return Case(Job("twisted_weights", ["loss_mask"]), {"loss_mask": mask})


def twisted_loss(rng: Rng, junk: str = "large") -> Case:
    """logits [B T V], targets and weights [B T]. Where the weight is 0 the logits are junk and the target is -100."""
    mask = gaps(rng, 3, int(rng.integers(8, 11)))
    targets = rng.integers(VOCABULARY, size=mask.shape)
    arrays: Arrays = {
        "logits": np.where(mask[..., None], rng.normal(size=(*mask.shape, VOCABULARY)) * 2, junk_of(junk)),
        "targets": np.where(mask, targets, -100),
        "weights": np.where(mask, rng.uniform(0.2, 3, size=mask.shape), 0.0),
        "dout": np.array(rng.uniform(0.5, 2)),
    }
    arguments = ["logits", "targets", "weights"]
    return Case(Job("twisted_loss", arguments, gradients=["logits"], cotangents=["dout"]), arrays)


CASES: dict[str, Callable[..., Case]] = {
    "encode_conversation": encode_conversation,
    "encode_prompt": encode_prompt,
    "masked_sum": masked_sum,
    "masked_mean": masked_mean,
    "cross_entropy_sum": cross_entropy_sum,
    "cross_entropy": cross_entropy,
    "sequence_log_probs": sequence_log_probs,
    "response_log_probs": response_log_probs,
    "sequence_cross_entropy": sequence_cross_entropy,
    "answer_log_probs": answer_log_probs,
    "twisted_weights": twisted_weights,
    "twisted_loss": twisted_loss,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
