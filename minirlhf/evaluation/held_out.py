"""Held-out loss in nats per token and bits per byte, and a reward model's report on held-out pairs.

Everything is a sum over the whole set divided once at the end, so the batch size changes nothing.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minirlhf.evaluation.calibration import PreferenceReport, evaluate_preferences
from minirlhf.objectives.likelihood import sequence_log_probs
from minirlhf.parallel.ranks import ALONE, World, totals
from minirlhf.records import PreferenceBatch, TokenBatch
from minirlhf.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class HeldOut:
    """total_nats over `tokens` counted targets that spell `bytes` bytes of text."""

    total_nats: float
    tokens: int
    bytes: int

    @property
    def loss_nats_per_token(self) -> float:
        """Mean negative log-probability of a counted target."""
        return self.total_nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """The same with units that do not depend on the tokenizer."""
        return bits_per_byte(self.total_nats, self.bytes)


def bits_per_byte(total_nats: float, total_bytes: int) -> float:
    """Code length per byte of text: nats / ln 2 / bytes. NaN when the targets spell no byte at all.

    Control tokens spell 0 bytes but their nats count: saying where a text ends is part of its code length.
    """
    return total_nats / math.log(2) / total_bytes if total_bytes else math.nan


def token_byte_lengths(tokenizer: Tokenizer) -> Tensor:
    """int64 [vocab_size]: how many bytes each id spells; 0 for control tokens."""
    lengths = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)
    lengths[: len(tokenizer.tokens)] = torch.tensor([len(token) for token in tokenizer.tokens])
    lengths[list(tokenizer.control.values())] = 0
    return lengths


def evaluate_held_out(
    model: nn.Module, batches: Iterable[TokenBatch], tokenizer: Tokenizer | None = None, world: World = ALONE
) -> HeldOut:
    """Sums over every counted target of every batch; bytes is 0 without a tokenizer.

    The model runs in eval mode without gradient and is put back into the mode it was in. Of several processes each
    evaluates its share of the batches, and all know the sums of all.
    Raises ValueError when no target is counted.
    """
    device = _device_of(model)
    byte_lengths = token_byte_lengths(tokenizer).to(device) if tokenizer is not None else None
    total_nats, tokens, total_bytes = 0.0, 0, 0
    with _evaluating(model):
        for batch in share_batches(world, batches):
            ids, loss_mask = batch.ids.to(device), batch.loss_mask.to(device)
            log_probs = sequence_log_probs(model, ids)  # [B T]; right padding is never looked at, no mask needed
            total_nats -= float(log_probs.masked_fill(~loss_mask, 0.0).double().sum())
            tokens += int(loss_mask.sum())
            if byte_lengths is not None:
                total_bytes += int((byte_lengths[ids[:, 1:]] * loss_mask).sum())
    sums = totals(world, {"nats": total_nats, "tokens": tokens, "bytes": total_bytes})
    total_nats, tokens, total_bytes = sums["nats"], int(sums["tokens"]), int(sums["bytes"])
    if tokens == 0:
        raise ValueError("the held-out batches count no target: every loss_mask is False")
    return HeldOut(total_nats, tokens, total_bytes)


def share_batches(world: World, batches: Iterable[TokenBatch]) -> Iterator[TokenBatch]:
    """This rank's batches: every size-th. Ranks that run out repeat the last one with nothing counted, to keep in step.

    (Sharded ranks hold each other's weights, so they must pass through the model equally often.)
    """
    if world.size == 1:
        yield from batches
        return
    everything = list(batches)
    for first in range(0, len(everything), world.size):
        mine = first + world.rank
        last = everything[-1]
        yield everything[mine] if mine < len(everything) else replace(last, loss_mask=torch.zeros_like(last.loss_mask))


def validation_loss(model: nn.Module, batches: Iterable[TokenBatch]) -> float:
    """Mean loss in nats per counted token over all batches."""
    return evaluate_held_out(model, batches).loss_nats_per_token


def evaluate_reward_model(
    reward_model: nn.Module, batches: Iterable[PreferenceBatch], bins: int = 5
) -> PreferenceReport:
    """Scores every pair and reports accuracy, calibration, margins and length bias; lengths are in tokens.

    Both sides of a pair carry the same prompt, so the difference of sequence lengths is that of the answers.
    Scores are taken before the gain that normalises them: Bradley-Terry gave its probabilities to those.
    Raises ValueError when there is no pair.
    """
    device = _device_of(reward_model)
    gain = float(getattr(reward_model, "gain", 1.0))
    columns: list[list[Tensor]] = [[], [], [], []]
    with _evaluating(reward_model):
        for batch in batches:
            chosen_mask, rejected_mask = batch.chosen_attention_mask, batch.rejected_attention_mask
            row = (
                reward_model(batch.chosen_ids.to(device), chosen_mask.to(device)),  # [B]
                reward_model(batch.rejected_ids.to(device), rejected_mask.to(device)),  # [B]
                chosen_mask.sum(-1),
                rejected_mask.sum(-1),
            )
            for column, values in zip(columns, row, strict=True):
                column.append(values.detach().double().cpu())
    if not columns[0]:
        raise ValueError("there is no pair to evaluate the reward model on")
    chosen, rejected, chosen_lengths, rejected_lengths = (torch.cat(column).numpy() for column in columns)
    return evaluate_preferences(chosen / gain, rejected / gain, chosen_lengths, rejected_lengths, bins)


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """eval mode and no gradient inside; afterwards every module has its old mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
