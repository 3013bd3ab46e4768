"""What the strategies draw, as frozen records of NumPy arrays: float64, int64 and bool, True meaning yes.

Dimension letters: B batch, T tokens, S tokens looked at, R response tokens, N answers, D width, F hidden width,
H heads, G key-value heads, K head width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class RaggedBatch:
    """Rows of different lengths: x [B T] float64, and mask [B T], True where a row has a token."""

    x: Floats
    mask: Bools


@dataclass(frozen=True)
class TokenArrays:
    """ids [B T+1], each below vocab_size; loss_mask [B T]: does the prediction of ids[:, t+1] count? One does."""

    ids: Ints
    loss_mask: Bools
    vocab_size: int


@dataclass(frozen=True)
class AttentionInputs:
    """q [B H T K], k and v [B G S K], visible bool [B 1 T S]; H is a multiple of G, and S >= T."""

    q: Floats
    k: Floats
    v: Floats
    visible: Bools


@dataclass(frozen=True)
class NormInputs:
    """x and the upstream gradient dout [T D], weight and bias [D]."""

    x: Floats
    weight: Floats
    bias: Floats
    dout: Floats


@dataclass(frozen=True)
class MLPInputs:
    """x and the upstream gradient dout [T D]; gate and up [F D], down [D F]. A plain MLP is up and down."""

    x: Floats
    gate: Floats
    up: Floats
    down: Floats
    dout: Floats


@dataclass(frozen=True)
class PreferencePairs:
    """Chosen and rejected answers, all [B]: scores, and summed log-probs (nats, <= 0) of policy and reference."""

    chosen_scores: Floats
    rejected_scores: Floats
    chosen_log_probs: Floats
    rejected_log_probs: Floats
    ref_chosen_log_probs: Floats
    ref_rejected_log_probs: Floats

    @property
    def log_probs(self) -> tuple[Floats, Floats, Floats, Floats]:
        """In the order of DPO's arguments: policy's chosen and rejected, then the reference's."""
        return (
            self.chosen_log_probs,
            self.rejected_log_probs,
            self.ref_chosen_log_probs,
            self.ref_rejected_log_probs,
        )


@dataclass(frozen=True)
class LabelledAnswers:
    """Answers that are liked or not, one by one: summed log-probs [B] (nats, <= 0), desirable bool [B], a KL >= 0."""

    log_probs: Floats
    ref_log_probs: Floats
    desirable: Bools
    kl_nats: float


@dataclass(frozen=True)
class Rankings:
    """scores [B N], the best-ranked answer first; only the first counts[b] of row b, at least two, are answers."""

    scores: Floats
    counts: Ints


@dataclass(frozen=True)
class ScoreGroups:
    """scores [B] of B / group_size prompts' answers; those of one prompt stand next to each other."""

    scores: Floats
    group_size: int


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
