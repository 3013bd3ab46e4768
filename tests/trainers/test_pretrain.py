"""Pretraining: the split of a batch changes nothing, the loss is what it says, and the trainer can be stopped."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.records import TokenBatch
from minirlhf.seeding import torch_generator
from minirlhf.trainers.optim import AdamW, OptimConfig, learning_rate_at
from minirlhf.trainers.pretrain import PretrainConfig, likelihood_step, train_pretrain, with_short_warmup

VOCAB, CONTEXT = 11, 8
OPTIM = OptimConfig(learning_rate=1e-2, warmup_steps=2, max_grad_norm=0.5)


def tiny_model(seed: int = 0, dropout: float = 0.0) -> GPT:
    config = GPTConfig(vocab_size=VOCAB, context=CONTEXT, layers=1, heads=2, width=8, dropout=dropout)
    return GPT(config, torch_generator(seed, "model")).double()


def ragged_batch(lengths: Sequence[int], seed: int) -> TokenBatch:
    """Rows of unequal length, right-padded, in which some tokens count and some do not."""
    generator = torch_generator(seed, "batch")
    ids = torch.randint(0, VOCAB, (len(lengths), max(lengths) + 1), generator=generator)
    counts = torch.rand(len(lengths), max(lengths), generator=generator) < 0.7
    return TokenBatch(ids, counts & (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]))


def rows(batch: TokenBatch, start: int, stop: int, width: int | None = None) -> TokenBatch:
    width = width or batch.loss_mask.shape[1]
    return TokenBatch(batch.ids[start:stop, : width + 1], batch.loss_mask[start:stop, :width])


def gradients(model: GPT, micro_batches: Sequence[TokenBatch]) -> tuple[dict[str, torch.Tensor], float]:
    """The gradients a step with these micro-batches sees, and its loss; the learning rate is 0."""
    model = copy.deepcopy(model)
    optim = OptimConfig(max_grad_norm=float("inf"))
    metrics = likelihood_step(model, micro_batches, AdamW(model.named_parameters(), optim), optim, 0.0)
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, metrics["loss_nats_per_token"]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, CONTEXT), min_size=2, max_size=5),
    cuts=st.sets(st.integers(1, 4)),
    seed=st.integers(0, 10**6),
)
def test_any_split_into_micro_batches_gives_the_gradient_of_the_whole_batch(lengths, cuts, seed):
    model, batch = tiny_model(seed), ragged_batch(lengths, seed)
    edges = [0, *sorted(cut for cut in cuts if cut < len(lengths)), len(lengths)]
    pairs = list(itertools.pairwise(edges))
    parts = [rows(batch, a, b, max(lengths[a:b])) for a, b in pairs]  # each part padded only to its own longest row

    whole, whole_loss = gradients(model, [batch])
    split, split_loss = gradients(model, parts)
    assert split_loss == pytest.approx(whole_loss, rel=1e-12, abs=1e-14)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-10, atol=1e-13)


def test_the_loss_is_the_mean_negative_log_probability_added_up_by_hand():
    model, batch = tiny_model(), ragged_batch([3, 8, 5], 1)
    total, count = 0.0, 0
    for b in range(3):
        for t in range(8):
            if batch.loss_mask[b, t]:
                logits = model(batch.ids[b : b + 1, : t + 1])[0, -1]
                total -= (logits[batch.ids[b, t + 1]] - torch.logsumexp(logits, 0)).item()
                count += 1
    assert gradients(model, [batch])[1] == pytest.approx(total / count, rel=1e-12)


def test_a_batch_in_which_nothing_counts_has_loss_zero_and_moves_nothing():
    model = tiny_model()
    batch = TokenBatch(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool))
    found, loss = gradients(model, [batch])
    assert loss == 0.0
    assert all(bool((gradient == 0).all()) for gradient in found.values())


def batches_at(step: int) -> list[TokenBatch]:
    return [rows(ragged_batch([8, 4, 6, 2], 100 + step), a, b) for a, b in ((0, 2), (2, 4))]


def trained(steps: int, stop: int, dropout: float) -> tuple[GPT, AdamW, list[dict[str, float]]]:
    model = tiny_model(dropout=dropout)
    optimizer = AdamW(model.named_parameters(), OPTIM)
    config = PretrainConfig(steps=steps, optim=OPTIM)
    metrics = []
    for report in train_pretrain(model, batches_at, optimizer, config, seed=3):
        metrics.append({"step": report.step} | report.metrics)
        if report.step == stop:
            break
    return model, optimizer, metrics


@pytest.mark.parametrize("stop", [1, 4, 6])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_stopped_anywhere_and_gone_on_it_ends_bit_identical(stop, dropout):
    through, through_optimizer, _ = trained(7, 7, dropout)
    model, optimizer, _ = trained(7, stop, dropout)
    torch.rand(5)  # whatever else draws random numbers in between must not matter

    fresh = tiny_model(seed=9, dropout=dropout)
    fresh.load_state_dict(model.state_dict())
    fresh_optimizer = AdamW(fresh.named_parameters(), OPTIM)
    fresh_optimizer.load_state_tensors(optimizer.state_tensors())
    config = PretrainConfig(steps=7, optim=OPTIM)
    assert [r.step for r in train_pretrain(fresh, batches_at, fresh_optimizer, config, 3, stop)] == [
        *range(stop + 1, 8)
    ]
    for name, tensor in through.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name
    for name, tensor in through_optimizer.state_tensors().items():
        assert torch.equal(tensor, fresh_optimizer.state_tensors()[name]), name


def test_dropout_follows_the_seed_of_the_step_and_differs_between_steps():
    first, second = trained(3, 3, 0.5)[0], trained(3, 3, 0.5)[0]
    assert torch.equal(first.token_embedding.weight, second.token_embedding.weight)
    assert not torch.equal(first.token_embedding.weight, trained(3, 3, 0.0)[0].token_embedding.weight)


def test_the_metrics_of_a_step():
    _, _, metrics = trained(5, 5, 0.0)
    names = {"step", "loss_nats_per_token", "learning_rate", "grad_norm", "tokens_per_second"}
    assert [set(row) for row in metrics] == [names] * 5
    assert [row["step"] for row in metrics] == [1, 2, 3, 4, 5]
    assert [row["learning_rate"] for row in metrics] == [
        learning_rate_at(step, 5, replace(OPTIM, warmup_steps=1)) for step in range(5)
    ]


def test_a_short_run_spends_at_most_a_quarter_on_warming_up():
    assert with_short_warmup(OptimConfig(warmup_steps=100), 40).warmup_steps == 10
    assert with_short_warmup(OptimConfig(warmup_steps=100), 400) == OptimConfig(warmup_steps=100)


def test_it_learns_a_text_by_heart():
    model = tiny_model()
    ids = torch.randint(0, VOCAB, (4, CONTEXT + 1), generator=torch_generator(0, "text"))
    batch = TokenBatch(ids, torch.ones(4, CONTEXT, dtype=torch.bool))
    optim = OptimConfig(learning_rate=3e-2, warmup_steps=5, weight_decay=0.0)
    config = PretrainConfig(steps=120, optim=optim)
    reports = list(train_pretrain(model, lambda step: [batch], AdamW(model.named_parameters(), optim), config))
    assert reports[0].metrics["loss_nats_per_token"] == pytest.approx(2.398, abs=0.05)  # log 11: it knows nothing yet
    assert reports[-1].metrics["loss_nats_per_token"] < 0.4


def test_each_step_drops_other_numbers():
    """The same weights, the same data, a learning rate of 0: only dropout tells one step from the next."""
    optim = OptimConfig(learning_rate=0.0)
    for dropout, different in ((0.5, 4), (0.0, 1)):
        model = tiny_model(dropout=dropout)
        config = PretrainConfig(steps=4, optim=optim)
        reports = train_pretrain(model, lambda step: batches_at(0), AdamW(model.named_parameters(), optim), config)
        assert len({report.metrics["loss_nats_per_token"] for report in reports}) == different
