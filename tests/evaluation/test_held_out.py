"""Held-out loss and the reward model's evaluation: against loops over single tokens, and by what must not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.data.batches import validation_windows
from minirlhf.evaluation.held_out import (
    bits_per_byte,
    evaluate_held_out,
    evaluate_reward_model,
    token_byte_lengths,
    validation_loss,
)
from minirlhf.models.heads import RewardModel
from minirlhf.records import PreferenceBatch, TokenBatch
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.tokenizer import END, byte_tokenizer
from tests.helpers.tiny_rl import TOKENIZER, tiny_gpt, tiny_reward_model


def random_batch(seed, rows=5, tokens=7):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(TOKENIZER.vocab_size, (rows, tokens + 1), generator=generator)
    loss_mask = torch.rand(rows, tokens, generator=generator) < 0.6
    loss_mask[0, 0] = True
    return TokenBatch(ids, loss_mask)


def by_hand(model, batch, tokenizer):
    """Token by token, prefix by prefix, in NumPy: nats, tokens, bytes."""
    nats, tokens, spelled = 0.0, 0, 0
    for ids, mask in zip(batch.ids.tolist(), batch.loss_mask.tolist(), strict=True):
        for t, counts in enumerate(mask):
            if counts:
                logits = model(torch.tensor([ids[: t + 1]]))[0, -1].detach().numpy()
                nats -= logits[ids[t + 1]] - math.log(np.exp(logits - logits.max()).sum()) - logits.max()
                tokens += 1
                spelled += len(tokenizer.tokens[ids[t + 1]]) if ids[t + 1] < len(tokenizer.tokens) else 0
    return nats, tokens, spelled


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_loss_and_bits_by_a_loop_over_tokens(seed):
    model, batch = tiny_gpt(seed), random_batch(seed)
    nats, tokens, spelled = by_hand(model, batch, TOKENIZER)
    result = evaluate_held_out(model, [batch], TOKENIZER)
    assert (result.tokens, result.bytes) == (tokens, spelled)
    assert_allclose(result.total_nats, nats, rtol=1e-11)
    assert_allclose(result.loss_nats_per_token, nats / tokens, rtol=1e-11)
    if spelled:
        assert_allclose(result.bits_per_byte, nats / spelled / math.log(2), rtol=1e-11)


def test_how_the_set_is_cut_into_batches_does_not_matter():
    model = tiny_gpt(1)
    stream = torch.randint(256, (100,), generator=torch.Generator().manual_seed(2))
    losses = [evaluate_held_out(model, validation_windows(stream, 8, size), TOKENIZER) for size in (1, 3, 50)]
    assert {loss.tokens for loss in losses} == {99}
    assert_allclose([loss.total_nats for loss in losses], losses[0].total_nats, rtol=1e-12)


def test_what_is_not_counted_does_not_matter():
    model, batch = tiny_gpt(1), random_batch(3)
    padded = torch.cat([batch.ids, torch.randint(256, (5, 4))], dim=1)
    wider = TokenBatch(padded, torch.cat([batch.loss_mask, torch.zeros(5, 4, dtype=torch.bool)], dim=1))
    assert_allclose(validation_loss(model, [wider]), validation_loss(model, [batch]), rtol=1e-12)
    with pytest.raises(ValueError, match="no target"):
        validation_loss(model, [TokenBatch(batch.ids, torch.zeros_like(batch.loss_mask))])


def test_every_byte_of_a_text_is_counted_once_and_control_tokens_spell_none():
    text = "The mill by the river, the miller, the bread — 面包."
    for tokenizer in (byte_tokenizer(), train_bpe([text] * 3, 290)):
        lengths = token_byte_lengths(tokenizer)
        assert lengths.shape == (tokenizer.vocab_size,)
        assert lengths[tokenizer.encode(text)].sum() == len(text.encode("utf-8"))
        assert lengths[tokenizer.encode(END, allow_control=[END])].tolist() == [0]
        assert (lengths[list(tokenizer.control.values())] == 0).all()


def test_bits_per_byte_does_not_depend_on_the_tokenizer():
    assert bits_per_byte(8 * math.log(2) * 10, 10) == pytest.approx(8, rel=1e-12)  # uniform over 256 values
    assert math.isnan(bits_per_byte(1.0, 0))


def test_dropout_is_off_while_evaluating_and_back_on_afterwards():
    model, batch = tiny_gpt(1, dropout=0.5), random_batch(4)
    model.train()
    model.final_norm.eval()  # a mixed state must come back as it was
    before = {name: module.training for name, module in model.named_modules()}
    assert validation_loss(model, [batch]) == validation_loss(model, [batch])
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ValueError):
        validation_loss(model, [])
    assert {name: module.training for name, module in model.named_modules()} == before


def pair_batch(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(2):
        ids = torch.randint(256, (rows, 9), generator=generator)
        lengths = torch.randint(2, 10, (rows, 1), generator=generator)
        parts += [ids, torch.arange(9) < lengths]
    return PreferenceBatch(*parts)


def test_the_reward_models_report_by_a_loop_over_pairs():
    model, batches = tiny_reward_model(), [pair_batch(0, 4), pair_batch(1, 3)]
    right, margins, differences = 0, [], []
    for batch in batches:
        for c, cm, r, rm in zip(*vars(batch).values(), strict=True):
            margins.append((model(c[cm][None]) - model(r[rm][None])).item())  # each answer alone, without padding
            differences.append(int(cm.sum() - rm.sum()))
            right += margins[-1] > 0
    report = evaluate_reward_model(model, batches)
    assert report.accuracy.mean == right / 7 and report.accuracy.n == 7
    assert_allclose(report.margin_mean, np.mean(margins), rtol=1e-9)
    assert report.length.pairs == sum(d != 0 for d in differences)
    with pytest.raises(ValueError):
        evaluate_reward_model(model, [])


def test_normalising_the_scores_changes_nothing_in_the_report():
    model = RewardModel.from_trunk(tiny_gpt(2), torch.Generator().manual_seed(0)).double()
    batches = [pair_batch(3, 12)]
    before = evaluate_reward_model(model, batches)
    model.normalise(torch.tensor([3.0, 40.0, -7.0], dtype=torch.float64))
    after = evaluate_reward_model(model, batches)
    assert float(model.gain) != 1
    assert_allclose(after.loss_nats_per_pair, before.loss_nats_per_pair, rtol=1e-9)
    assert_allclose(after.calibration_error, before.calibration_error, rtol=1e-9)
