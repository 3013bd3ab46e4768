"""Hypothesis strategies for the arrays of this field: logits, targets, masks, scores and rollouts.

Everything is NumPy float64, int64 and bool; torch users wrap what they draw. Values stay moderate, so that a
tolerance can be tight.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError("minirlhf.testing.strategies needs hypothesis: pip install 'minirlhf[test]'") from error

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def floats(shape: tuple[int, ...], limit: float = 4.0) -> st.SearchStrategy[Floats]:
    """float64 arrays with values between -limit and limit."""
    numbers = st.floats(-limit, limit, allow_nan=False, allow_subnormal=False)
    return hnp.arrays(np.float64, shape, elements=numbers)


def masks(shape: tuple[int, ...]) -> st.SearchStrategy[Bools]:
    """bool arrays with at least one True."""
    return hnp.arrays(np.bool_, shape).filter(lambda mask: bool(mask.any()))


@st.composite
def response_masks(draw: st.DrawFn, rows: int, tokens: int) -> Bools:
    """bool [rows tokens]: each row is 1 to `tokens` Trues, then Falses."""
    lengths = draw(st.lists(st.integers(1, tokens), min_size=rows, max_size=rows))
    return np.arange(tokens) < np.array(lengths)[:, None]


@st.composite
def logit_cases(draw: st.DrawFn, max_tokens: int = 5, max_vocab: int = 6) -> tuple[Floats, NDArray[np.int64], Bools]:
    """logits [T V], targets [T] and a mask [T] with at least one True."""
    tokens, vocab = draw(st.integers(1, max_tokens)), draw(st.integers(2, max_vocab))
    targets = draw(hnp.arrays(np.int64, (tokens,), elements=st.integers(0, vocab - 1)))
    return draw(floats((tokens, vocab))), targets, draw(masks((tokens,)))


@st.composite
def score_pairs(draw: st.DrawFn, max_pairs: int = 6) -> tuple[Floats, Floats]:
    """Scores [B] of chosen and of rejected answers."""
    pairs = draw(st.integers(1, max_pairs))
    return draw(floats((pairs,), 10.0)), draw(floats((pairs,), 10.0))


@dataclass(frozen=True)
class RolloutArrays:
    """A rollout in numbers: scores, ended and last_values are [B], the rest [B R]; the masks bool, the rest float64."""

    response_mask: Bools
    ended: Bools
    scores: Floats
    log_probs: Floats
    old_log_probs: Floats
    ref_log_probs: Floats
    rewards: Floats
    values: Floats
    old_values: Floats
    advantages: Floats
    returns: Floats
    last_values: Floats


@st.composite
def rollouts(draw: st.DrawFn, max_rows: int = 3, max_tokens: int = 5) -> RolloutArrays:
    """Rollouts of 1 to max_rows responses of 1 to max_tokens tokens; new and old log-probs differ by up to 1 nat."""
    rows, tokens = draw(st.integers(1, max_rows)), draw(st.integers(1, max_tokens))
    shape = (rows, tokens)
    old_log_probs = -np.abs(draw(floats(shape)))
    return RolloutArrays(
        response_mask=draw(response_masks(rows, tokens)),
        ended=draw(hnp.arrays(np.bool_, (rows,))),
        scores=draw(floats((rows,))),
        log_probs=old_log_probs + draw(floats(shape, 1.0)),
        old_log_probs=old_log_probs,
        ref_log_probs=-np.abs(draw(floats(shape))),
        rewards=draw(floats(shape)),
        values=draw(floats(shape)),
        old_values=draw(floats(shape)),
        advantages=draw(floats(shape)),
        returns=draw(floats(shape)),
        last_values=draw(floats((rows,))),
    )
