"""The frozen records that travel between the floors.

Dimension letters, everywhere the same: B batch, T tokens, P prompt tokens, R response tokens.
Masks are bool and True means yes.
"""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation. role is "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True)
class Document:
    """A text to pretrain on. source is `file:line` for messages."""

    text: str
    source: str


@dataclass(frozen=True)
class Conversation:
    """Turns to imitate; the loss counts the assistant's turns, each with its end token."""

    turns: tuple[Turn, ...]
    source: str


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt (the turns before the answer), the first preferred."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    source: str


@dataclass(frozen=True)
class Prompt:
    """A prompt to answer. fields holds whatever else the line carried, for reward functions and reports."""

    turns: tuple[Turn, ...]
    source: str
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Labelled:
    """A text with a label: a class name, a number, or True/False for unpaired preferences."""

    text: str
    label: str
    source: str


@dataclass(frozen=True)
class TokenBatch:
    """ids int64 [B T+1], right-padded; loss_mask bool [B T]: does the prediction of ids[:, t+1] count?"""

    ids: Tensor
    loss_mask: Tensor


@dataclass(frozen=True)
class PreferenceBatch:
    """Prompt and answer as one right-padded sequence, twice: ids int64 [B T], attention_mask bool [B T]."""

    chosen_ids: Tensor
    chosen_attention_mask: Tensor
    rejected_ids: Tensor
    rejected_attention_mask: Tensor


@dataclass(frozen=True)
class PromptBatch:
    """Left-padded prompts, ready to be continued: ids int64 [B P], attention_mask bool [B P], and their texts."""

    ids: Tensor
    attention_mask: Tensor
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Generation:
    """What a model wrote. ids int64 [B P+R] and attention_mask bool [B P+R]: prompt (left-padded) and response.

    response_mask bool [B R] is True up to and including the stop token; ended bool [B] says whether one came.
    log_probs float [B R], nats: of each sampled token under the distribution it was drawn from, 0 off the mask.
    """

    ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    ended: Tensor
    log_probs: Tensor


@dataclass(frozen=True)
class Rollout:
    """What happened, no gradient anywhere. Scores are one per answer, in reward units; log-probs in nats.

    ids, attention_mask [B P+R]; response_mask, old_log_probs, ref_log_probs, values [B R]; scores, ended [B].
    """

    ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    ended: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    values: Tensor
    scores: Tensor
    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    generation_seconds: float = 0.0
    """How long the answers took to write, in this process."""


@dataclass(frozen=True)
class Experience:
    """What we conclude from a rollout: everything a PPO minibatch needs. No gradient anywhere.

    ids, attention_mask [B P+R]; response_mask, old_log_probs, old_values, advantages, returns [B R].
    """

    ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Report:
    """One training step, for the caller to log. metrics carry their unit in the key; state is what resuming needs."""

    step: int
    metrics: dict[str, float]
    state: dict[str, float] = field(default_factory=dict)
