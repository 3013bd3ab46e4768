"""Hypothesis strategies for the arrays of this field: logits, targets, masks, scores, attention, pairs and rollouts.

Everything is NumPy float64, int64 and bool; torch users wrap what they draw. Values stay moderate, so that a
tolerance can be tight, and sizes small: what fails shrinks towards one row, one token and the numbers 0, 1, 0.5.
"""

import math
from typing import Literal

import numpy as np

from minirlhf.testing.cases import (
    AttentionInputs,
    Bools,
    Floats,
    Ints,
    LabelledAnswers,
    MLPInputs,
    NormInputs,
    PreferencePairs,
    RaggedBatch,
    Rankings,
    RolloutArrays,
    ScoreGroups,
    TokenArrays,
)
from minirlhf.testing.profiles import MISSING

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError(MISSING) from error

Side = Literal["left", "right"]


def shapes(min_dims: int = 1, max_dims: int = 3, max_side: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of min_dims to max_dims axes, each 1 to max_side long."""
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=1, max_side=max_side)


def floats(shape: tuple[int, ...], limit: float = 4.0) -> st.SearchStrategy[Floats]:
    """float64 arrays with values between -limit and limit.

    Up to 64 numbers are drawn one by one; in larger arrays many are equal, which is faster.
    """
    numbers = st.floats(-limit, limit, allow_nan=False, allow_subnormal=False)
    return hnp.arrays(np.float64, shape, elements=numbers, fill=st.nothing() if math.prod(shape) <= 64 else None)


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[Bools]:
    """bool arrays with at least one True."""
    return hnp.arrays(np.bool_, shape).filter(lambda mask: bool(mask.any()))


@st.composite
def padding_masks(draw: st.DrawFn, rows: int, tokens: int, side: Side = "right") -> Bools:
    """bool [rows tokens]: each row has 1 to `tokens` Trues, and Falses on the side that is padded."""
    lengths = np.array(draw(st.lists(st.integers(1, tokens), min_size=rows, max_size=rows)))[:, None]
    place = np.arange(tokens)
    return place < lengths if side == "right" else place >= tokens - lengths


def response_masks(rows: int, tokens: int) -> st.SearchStrategy[Bools]:
    """bool [rows tokens]: each row is 1 to `tokens` Trues, then Falses."""
    return padding_masks(rows, tokens)


@st.composite
def ragged_batches(draw: st.DrawFn, max_rows: int = 3, max_tokens: int = 5, side: Side = "right") -> RaggedBatch:
    """Values [B T] with the mask of rows that are 1 to T tokens long, padded on one side."""
    rows, tokens = draw(st.integers(1, max_rows)), draw(st.integers(1, max_tokens))
    return RaggedBatch(draw(floats((rows, tokens))), draw(padding_masks(rows, tokens, side)))


@st.composite
def token_batches(
    draw: st.DrawFn, max_rows: int = 3, max_tokens: int = 5, max_vocab: int = 7, min_vocab: int = 2
) -> TokenArrays:
    """ids [B T+1] and a loss mask [B T] with at least one True, anywhere."""
    rows, tokens = draw(st.integers(1, max_rows)), draw(st.integers(1, max_tokens))
    vocab = draw(st.integers(min_vocab, max_vocab))
    ids = draw(hnp.arrays(np.int64, (rows, tokens + 1), elements=st.integers(0, vocab - 1)))
    return TokenArrays(ids, draw(masks((rows, tokens))), vocab)


@st.composite
def logit_cases(draw: st.DrawFn, max_tokens: int = 5, max_vocab: int = 6) -> tuple[Floats, Ints, Bools]:
    """logits [T V], targets [T] and a mask [T] with at least one True."""
    tokens, vocab = draw(st.integers(1, max_tokens)), draw(st.integers(2, max_vocab))
    targets = draw(hnp.arrays(np.int64, (tokens,), elements=st.integers(0, vocab - 1)))
    return draw(floats((tokens, vocab))), targets, draw(masks((tokens,)))


@st.composite
def attention_inputs(
    draw: st.DrawFn,
    max_rows: int = 2,
    max_tokens: int = 4,
    max_kv_heads: int = 2,
    max_group: int = 2,
    max_head_width: int = 3,
    max_past: int = 2,
    empty_rows: bool = False,
) -> AttentionInputs:
    """Causal attention over left- or right-padded rows, with up to max_past earlier (cached) tokens.

    Each key-value head serves 1 to max_group heads. A token that is padding sees itself, unless empty_rows lets rows
    of `visible` be without any True.
    """
    rows, tokens, kv_heads, group, width = (
        draw(st.integers(1, most)) for most in (max_rows, max_tokens, max_kv_heads, max_group, max_head_width)
    )
    seen = tokens + draw(st.integers(0, max_past))
    real = draw(padding_masks(rows, seen, draw(st.sampled_from(["right", "left"]))))  # [B S]
    here, there = np.arange(seen - tokens, seen)[:, None], np.arange(seen)
    visible = (there <= here) & real[:, None, None, :]  # [B 1 T S]
    return AttentionInputs(
        q=draw(floats((rows, kv_heads * group, tokens, width))),
        k=draw(floats((rows, kv_heads, seen, width))),
        v=draw(floats((rows, kv_heads, seen, width))),
        visible=visible if empty_rows else visible | (there == here),
    )


@st.composite
def norm_inputs(draw: st.DrawFn, max_tokens: int = 3, max_width: int = 5) -> NormInputs:
    """Inputs of LayerNorm and RMSNorm, at a scale of 1, 0.01 or 100."""
    tokens, width = draw(st.integers(1, max_tokens)), draw(st.integers(2, max_width))
    x = draw(floats((tokens, width))) * draw(st.sampled_from([1.0, 0.01, 100.0]))
    return NormInputs(x, draw(floats((width,))), draw(floats((width,))), draw(floats((tokens, width))))


@st.composite
def mlp_inputs(draw: st.DrawFn, max_tokens: int = 3, max_width: int = 3, max_hidden: int = 4) -> MLPInputs:
    """Inputs and weights of an MLP, gated or not."""
    tokens, width, hidden = (draw(st.integers(1, most)) for most in (max_tokens, max_width, max_hidden))
    return MLPInputs(
        x=draw(floats((tokens, width))),
        gate=draw(floats((hidden, width), 2.0)),
        up=draw(floats((hidden, width), 2.0)),
        down=draw(floats((width, hidden), 2.0)),
        dout=draw(floats((tokens, width))),
    )


@st.composite
def score_pairs(draw: st.DrawFn, max_pairs: int = 6) -> tuple[Floats, Floats]:
    """Scores [B] of chosen and of rejected answers."""
    pairs = draw(st.integers(1, max_pairs))
    return draw(floats((pairs,), 10.0)), draw(floats((pairs,), 10.0))


@st.composite
def log_prob_pairs(draw: st.DrawFn, count: int) -> tuple[Floats, Floats]:
    """Summed log-probs [count] under policy and reference: at most 0 nats, and up to 4 nats apart."""
    reference = 0.0 - np.abs(draw(floats((count,), 20.0)))  # not -0.0, which is harder to read
    return np.minimum(reference + draw(floats((count,))), 0.0), reference


@st.composite
def preference_pairs(draw: st.DrawFn, max_pairs: int = 4) -> PreferencePairs:
    """1 to max_pairs pairs; scores between -10 and 10, whichever answer is chosen."""
    pairs = draw(st.integers(1, max_pairs))
    chosen_scores, rejected_scores = draw(floats((pairs,), 10.0)), draw(floats((pairs,), 10.0))
    chosen, ref_chosen = draw(log_prob_pairs(pairs))
    rejected, ref_rejected = draw(log_prob_pairs(pairs))
    return PreferencePairs(chosen_scores, rejected_scores, chosen, rejected, ref_chosen, ref_rejected)


@st.composite
def labelled_answers(draw: st.DrawFn, max_answers: int = 5) -> LabelledAnswers:
    """1 to max_answers answers, with labels of one kind or both."""
    answers = draw(st.integers(1, max_answers))
    log_probs, reference = draw(log_prob_pairs(answers))
    kl_nats = draw(st.floats(0.0, 3.0, allow_subnormal=False))
    return LabelledAnswers(log_probs, reference, draw(hnp.arrays(np.bool_, (answers,))), kl_nats)


@st.composite
def rankings(draw: st.DrawFn, max_rows: int = 3, max_answers: int = 4) -> Rankings:
    """1 to max_rows rankings of 2 to max_answers answers; what lies behind a row's count is padding."""
    rows, answers = draw(st.integers(1, max_rows)), draw(st.integers(2, max_answers))
    counts = draw(st.lists(st.integers(2, answers), min_size=rows, max_size=rows))
    return Rankings(draw(floats((rows, answers))), np.array(counts, dtype=np.int64))


@st.composite
def score_groups(draw: st.DrawFn, max_prompts: int = 3, max_group: int = 4) -> ScoreGroups:
    """Scores of 2 to max_group answers to each of 1 to max_prompts prompts."""
    prompts, group_size = draw(st.integers(1, max_prompts)), draw(st.integers(2, max_group))
    return ScoreGroups(draw(floats((prompts * group_size,))), group_size)


@st.composite
def rollouts(draw: st.DrawFn, max_rows: int = 3, max_tokens: int = 5) -> RolloutArrays:
    """Rollouts of 1 to max_rows responses of 1 to max_tokens tokens; new and old log-probs differ by up to 1 nat."""
    rows, tokens = draw(st.integers(1, max_rows)), draw(st.integers(1, max_tokens))
    shape = (rows, tokens)
    old_log_probs = 0.0 - np.abs(draw(floats(shape)))
    return RolloutArrays(
        response_mask=draw(response_masks(rows, tokens)),
        ended=draw(hnp.arrays(np.bool_, (rows,))),
        scores=draw(floats((rows,))),
        log_probs=old_log_probs + draw(floats(shape, 1.0)),
        old_log_probs=old_log_probs,
        ref_log_probs=0.0 - np.abs(draw(floats(shape))),
        rewards=draw(floats(shape)),
        values=draw(floats(shape)),
        old_values=draw(floats(shape)),
        advantages=draw(floats(shape)),
        returns=draw(floats(shape)),
        last_values=draw(floats((rows,))),
    )
