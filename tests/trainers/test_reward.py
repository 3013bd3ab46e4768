"""The reward trainer: Bradley-Terry over pairs, one epoch, a learning rate that ends at 0, a rule that is learnt."""

import copy
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.batches import batch_indices, preference_batch
from minirlhf.data.tokenize import TokenizedPair
from minirlhf.evaluation.held_out import evaluate_reward_model
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import RewardModel
from minirlhf.records import PreferenceBatch
from minirlhf.seeding import torch_generator
from minirlhf.trainers.optim import AdamW, OptimConfig
from minirlhf.trainers.reward import RewardConfig, pair_accuracy, train_reward

VOCAB, CONTEXT, PAD = 12, 12, 0


def tiny_model(width: int = 8, dropout: float = 0.0) -> RewardModel:
    config = GPTConfig(vocab_size=VOCAB, context=CONTEXT, layers=1, heads=2, width=width, dropout=dropout)
    return RewardModel(GPT(config, torch_generator(4, "trunk")), torch_generator(4, "head")).double()


def random_pairs(lengths: list[tuple[int, int]], seed: int) -> list[TokenizedPair]:
    generator = torch_generator(seed, "pairs")
    return [
        TokenizedPair(*(torch.randint(1, VOCAB, (length,), generator=generator) for length in both)) for both in lengths
    ]


def batch_of(pairs: list[TokenizedPair]) -> PreferenceBatch:
    return preference_batch(pairs, PAD)


def one_step(
    model: RewardModel, micro_batches: list[PreferenceBatch]
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The first step's metrics and the gradients it leaves."""
    model = copy.deepcopy(model)
    config = RewardConfig(optim=OptimConfig(max_grad_norm=float("inf")))
    optimizer = AdamW(model.named_parameters(), config.optim)
    report = next(train_reward(model, lambda step: micro_batches, optimizer, config, steps=1))
    return report.metrics, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=5),
    cut=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_any_split_into_micro_batches_gives_the_gradient_of_the_whole_batch(lengths, cut, seed):
    model, pairs = tiny_model(), random_pairs(lengths, seed)
    cut = min(cut, len(pairs) - 1)
    whole_metrics, whole = one_step(model, [batch_of(pairs)])
    split_metrics, split = one_step(model, [batch_of(pairs[:cut]), batch_of(pairs[cut:])])
    for key in ("loss_nats_per_pair", "accuracy", "margin_mean"):
        assert split_metrics[key] == pytest.approx(whole_metrics[key], rel=1e-11, abs=1e-13)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-10, atol=1e-12)


def test_the_loss_and_the_metrics_are_those_of_the_formula():
    model, pairs = tiny_model(), random_pairs([(3, 5), (7, 2), (4, 4)], 8)
    margins = [float(model(pair.chosen_ids[None]) - model(pair.rejected_ids[None])) for pair in pairs]
    metrics, _ = one_step(model, [batch_of(pairs)])
    assert metrics["loss_nats_per_pair"] == pytest.approx(sum(log(1 + exp(-m)) for m in margins) / 3, rel=1e-12)
    assert metrics["margin_mean"] == pytest.approx(sum(margins) / 3, rel=1e-10)
    assert metrics["accuracy"] == pytest.approx(sum(m > 0 for m in margins) / 3)


def test_swapping_chosen_and_rejected_turns_the_gradient_of_a_pair_it_is_undecided_on():
    model, pairs = tiny_model(), random_pairs([(4, 6)], 2)
    with torch.no_grad():
        model.head.weight.zero_()
    swapped = [TokenizedPair(pair.rejected_ids, pair.chosen_ids) for pair in pairs]
    metrics, gradient = one_step(model, [batch_of(pairs)])
    _, opposite = one_step(model, [batch_of(swapped)])
    assert metrics["loss_nats_per_pair"] == pytest.approx(log(2), rel=1e-12)
    assert metrics["accuracy"] == 0.5  # equal scores count half
    torch.testing.assert_close(gradient["head.weight"], -opposite["head.weight"], rtol=1e-12, atol=1e-15)
    assert float(gradient["head.weight"].abs().max()) > 1e-3


def test_by_default_one_epoch_with_the_learning_rate_going_to_zero():
    config = RewardConfig(batch_size=2)
    assert config.epochs == 1.0
    pairs = random_pairs([(3, 4)] * 9, 5)
    model, seen, rates = tiny_model(), [], []

    def pairs_at(step):
        indices = batch_indices(len(pairs), config.batch_size, 0, step)
        seen.extend(indices)
        return [batch_of([pairs[i] for i in indices])]

    steps = config.steps(len(pairs))
    for report in train_reward(model, pairs_at, AdamW(model.named_parameters(), config.optim), config, steps):
        rates.append(report.metrics["learning_rate"])
    assert steps == 5
    assert sorted(seen[:9]) == list(range(9))  # each pair once; the last batch is filled up
    assert rates[-1] == 0.0
    assert max(rates) > 0


def test_a_planted_rule_is_learnt_on_held_out_pairs():
    """The better answer is the one that holds token 5."""
    generator = torch_generator(0, "rule")

    def pair() -> TokenizedPair:
        chosen, rejected = torch.randint(6, VOCAB, (2, 6), generator=generator)
        chosen[int(torch.randint(0, 6, (1,), generator=generator))] = 5
        return TokenizedPair(chosen, rejected)

    train, held_out = [pair() for _ in range(640)], [pair() for _ in range(200)]
    model = tiny_model(width=16)
    optim = OptimConfig(learning_rate=1e-2, warmup_steps=5, schedule="linear", final_fraction=0.0)
    config = RewardConfig(batch_size=16, optim=optim)

    def pairs_at(step):
        return [batch_of([train[i] for i in batch_indices(640, 16, 1, step)])]

    reports = list(train_reward(model, pairs_at, AdamW(model.named_parameters(), optim), config, config.steps(640)))
    assert len(reports) == 40
    assert evaluate_reward_model(model, [batch_of(held_out)]).accuracy.mean >= 0.9


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_stopped_anywhere_and_gone_on_it_ends_bit_identical(stop):
    pairs = random_pairs([(3, 5), (7, 2), (4, 4), (1, 9)], 3)
    config = RewardConfig()

    def run(model, optimizer, start, end):
        batches = [batch_of(pairs[:2]), batch_of(pairs[2:])]
        for report in train_reward(model, lambda step: batches, optimizer, config, 5, seed=6, start_step=start):
            if report.step == end:
                break

    through, stopped, resumed = (tiny_model(dropout=0.2) for _ in range(3))
    run(through, AdamW(through.named_parameters(), config.optim), 0, 5)
    optimizer = AdamW(stopped.named_parameters(), config.optim)
    run(stopped, optimizer, 0, stop)
    resumed.load_state_dict(stopped.state_dict())
    resumed_optimizer = AdamW(resumed.named_parameters(), config.optim)
    resumed_optimizer.load_state_tensors(optimizer.state_tensors())
    run(resumed, resumed_optimizer, stop, 5)
    assert all(torch.equal(a, resumed.state_dict()[name]) for name, a in through.state_dict().items())


def test_accuracy_counts_a_tie_half():
    assert pair_accuracy(torch.tensor([1.0, 0.0, -1.0, 2.0])) == 0.625
