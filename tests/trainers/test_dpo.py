"""The DPO trainer: it starts at log 2, learns a planted rule, its gradient is the formula's, it resumes bit for bit."""

import copy
import dataclasses
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.batches import answer_batches, batch_indices
from minirlhf.data.tokenize import TokenizedPair
from minirlhf.errors import UserError
from minirlhf.objectives.dpo import dpo
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.objectives.ipo import ipo
from minirlhf.reports.glossary import GLOSSARY
from minirlhf.trainers.dpo import DPOConfig, answer_log_probs, dpo_backward, train_dpo
from minirlhf.trainers.optim import AdamW, OptimConfig
from tests.helpers.tiny_rl import TOKENIZER, assert_same, fingerprint, gradients, nudged, tiny_gpt

F64 = torch.float64
METRICS = {
    "objective",
    "loss_nats_per_pair",
    "accuracy",
    "margin_mean",
    "chosen_reward_mean",
    "rejected_reward_mean",
    "log_ratio_nats_per_response",
    "grad_norm",
    "learning_rate",
    "pairs_per_second",
}
LOSSES = {"dpo": dpo, "cdpo": partial(dpo, label_smoothing=0.2), "ipo": ipo}


def random_pairs(lengths, seed=0):
    """Pairs of byte tokens: (prompt, chosen, rejected) lengths each."""
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for prompt, chosen, rejected in lengths:
        first, *answers = (torch.randint(97, 120, (n,), generator=generator) for n in (prompt, chosen, rejected))
        pairs.append(TokenizedPair(*(torch.cat([first, each]) for each in answers), "", prompt))
    return pairs


def batches_of(pairs, *cuts):
    groups = [pairs[a:b] for a, b in zip((0, *cuts), (*cuts, len(pairs)), strict=True)]
    return [answer_batches(group, TOKENIZER.pad_id) for group in groups if group]


LENGTHS = [(3, 5, 2), (1, 4, 4), (6, 1, 8), (2, 7, 3), (4, 2, 2)]


def one_backward(pairs, *cuts, beta=0.3, pair_loss=dpo, policy=None):
    policy = policy or tiny_gpt()
    metrics = dpo_backward(policy, nudged(tiny_gpt(), 4), batches_of(pairs, *cuts), beta, pair_loss)
    return metrics, gradients(policy)


def test_the_first_loss_is_log_two_and_nothing_is_preferred_yet():
    policy = tiny_gpt(dropout=0.5).train()  # the trainer turns dropout off, or the two would differ
    optimizer = AdamW(policy.named_parameters(), OptimConfig())
    report = next(
        train_dpo(policy, copy.deepcopy(policy), lambda k: batches_of(random_pairs(LENGTHS)), optimizer, DPOConfig(), 1)
    )
    assert report.metrics.keys() == METRICS <= GLOSSARY.keys()
    assert report.metrics["loss_nats_per_pair"] == report.metrics["objective"] == pytest.approx(math.log(2), rel=1e-15)
    assert report.metrics["accuracy"] == 0.5
    for name in ("margin_mean", "chosen_reward_mean", "rejected_reward_mean", "log_ratio_nats_per_response"):
        assert report.metrics[name] == 0
    assert report.metrics["grad_norm"] > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_metrics_and_gradient_are_those_of_the_formula_written_out(name):
    """Answer by answer, without padding, from the logits."""
    pairs, beta = random_pairs(LENGTHS), 0.3
    metrics, found = one_backward(pairs, beta=beta, pair_loss=LOSSES[name])
    policy, reference = tiny_gpt(), nudged(tiny_gpt(), 4)

    def summed(model, ids, prompt):
        log_softmax = model(ids[None, :-1])[0].log_softmax(-1)
        return sum(log_softmax[t - 1, ids[t]] for t in range(prompt, len(ids)))

    objective, chosen_rewards, rejected_rewards, ratios = 0.0, [], [], []
    for pair in pairs:
        with torch.no_grad():
            theirs = [summed(reference, ids, pair.prompt_tokens) for ids in (pair.chosen_ids, pair.rejected_ids)]
        ours = [summed(policy, ids, pair.prompt_tokens) for ids in (pair.chosen_ids, pair.rejected_ids)]
        c, r = (mine - other for mine, other in zip(ours, theirs, strict=True))
        as_labelled = torch.log1p(torch.exp(-beta * (c - r)))
        turned = torch.log1p(torch.exp(beta * (c - r)))
        losses = {
            "dpo": as_labelled,
            "cdpo": 0.8 * as_labelled + 0.2 * turned,
            "ipo": (c - r - 1 / (2 * beta)) ** 2,
        }
        objective = objective + losses[name] / len(pairs)
        chosen_rewards.append(beta * c.item())
        rejected_rewards.append(beta * r.item())
        ratios += [c.item(), r.item()]
    objective.backward()
    assert_same(found, gradients(policy))
    margins = [c - r for c, r in zip(chosen_rewards, rejected_rewards, strict=True)]
    expected = {
        "objective": objective.item(),
        "loss_nats_per_pair": sum(math.log1p(math.exp(-m)) for m in margins) / len(pairs),
        "accuracy": sum(m > 0 for m in margins) / len(pairs),
        "margin_mean": sum(margins) / len(pairs),
        "chosen_reward_mean": sum(chosen_rewards) / len(pairs),
        "rejected_reward_mean": sum(rejected_rewards) / len(pairs),
        "log_ratio_nats_per_response": sum(ratios) / len(ratios),
    }
    assert metrics == pytest.approx(expected, rel=1e-10, abs=1e-13)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=5),
    cut=st.integers(1, 4),
    name=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 1000),
)
def test_any_split_into_micro_batches_gives_the_metrics_and_the_gradient_of_the_whole(lengths, cut, name, seed):
    pairs = random_pairs(lengths, seed)
    whole_metrics, whole = one_backward(pairs, pair_loss=LOSSES[name])
    split_metrics, split = one_backward(pairs, min(cut, len(pairs) - 1), pair_loss=LOSSES[name])
    assert split_metrics == pytest.approx(whole_metrics, rel=1e-10, abs=1e-12)
    assert_same(split, whole)


def test_what_the_prompt_says_counts_only_as_context():
    """Padding is never seen, and no gradient comes from predicting the prompt."""
    pairs = random_pairs([(6, 2, 3)])
    _, alone = one_backward(pairs)
    policy = tiny_gpt()
    for batch in answer_batches(pairs, TOKENIZER.pad_id):
        assert batch.loss_mask[0, :5].sum() == 0 and batch.loss_mask[0, 5:].all()
        log_probs = answer_log_probs(policy, batch.ids, batch.loss_mask)
        assert log_probs.shape == (1,)
    wide = [dataclasses.replace(batch, ids=torch.cat([batch.ids, torch.full((1, 4), 7)], dim=1),
                                loss_mask=torch.cat([batch.loss_mask, torch.zeros(1, 4, dtype=torch.bool)], dim=1))
            for batch in answer_batches(pairs, TOKENIZER.pad_id)]  # fmt: skip
    policy = tiny_gpt()
    dpo_backward(policy, nudged(tiny_gpt(), 4), [tuple(wide)], 0.3)
    assert_same(gradients(policy), alone)


def learning_run(pair_loss=dpo, turned=False, steps=40):
    """The chosen answer holds the letter e, the rejected one does not; returns the reports and the policy."""
    generator = torch.Generator().manual_seed(0)

    def pair():
        prompt, chosen, rejected = (torch.randint(97, 101, (n,), generator=generator) for n in (3, 4, 4))
        chosen[torch.randint(0, 4, (1,), generator=generator)] = ord("e")
        answers = (rejected, chosen) if turned else (chosen, rejected)
        return TokenizedPair(*(torch.cat([prompt, each]) for each in answers), "", 3)

    pairs = [pair() for _ in range(320)]
    policy = tiny_gpt(width=16)
    config = DPOConfig(beta=0.3, optim=OptimConfig(1e-2, weight_decay=0.0, warmup_steps=2))

    def pairs_at(step):
        return batches_of([pairs[i] for i in batch_indices(len(pairs), 32, 1, step)], 10)

    optimizer = AdamW(policy.named_parameters(), config.optim)
    return list(train_dpo(policy, copy.deepcopy(policy), pairs_at, optimizer, config, steps, pair_loss)), policy


def odds_of_e(policy):
    """After some prompt, against the other letters of the answers; all of them may become less likely together."""
    probabilities = policy(torch.tensor([[97, 98, 99]]))[0, -1].softmax(-1)
    return (probabilities[101] / probabilities[97:101].sum()).item()


@pytest.mark.parametrize("name", LOSSES)
def test_a_planted_rule_is_learnt(name):
    reports, policy = learning_run(LOSSES[name])
    first, last = reports[0].metrics, reports[-1].metrics
    assert last["objective"] < 0.75 * first["objective"]
    assert last["accuracy"] > 0.9
    assert last["chosen_reward_mean"] > last["rejected_reward_mean"]
    assert odds_of_e(policy) > 2 * odds_of_e(tiny_gpt(width=16))  # the policy itself now writes what was preferred


def test_pairs_turned_round_teach_the_opposite():
    _, policy = learning_run(turned=True)
    assert odds_of_e(policy) < odds_of_e(tiny_gpt(width=16)) / 2


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_stopped_anywhere_and_gone_on_it_ends_bit_identical(stop):
    pairs = random_pairs(LENGTHS, 3)
    config = DPOConfig(optim=OptimConfig(1e-2, warmup_steps=2))
    reference = tiny_gpt()

    def run(policy, optimizer, start, end):
        for report in train_dpo(
            policy, reference, lambda k: batches_of(pairs, 2), optimizer, config, 5, start_step=start
        ):
            if report.step == end:
                break

    through, stopped, resumed = (tiny_gpt() for _ in range(3))
    run(through, AdamW(through.named_parameters(), config.optim), 0, 5)
    optimizer = AdamW(stopped.named_parameters(), config.optim)
    run(stopped, optimizer, 0, stop)
    resumed.load_state_dict(stopped.state_dict())
    resumed_optimizer = AdamW(resumed.named_parameters(), config.optim)
    resumed_optimizer.load_state_tensors(optimizer.state_tensors())
    run(resumed, resumed_optimizer, stop, 5)
    assert fingerprint(resumed) == fingerprint(through) != fingerprint(stopped)


def test_the_reference_stays_and_must_be_another_network():
    policy, reference = tiny_gpt(), tiny_gpt()
    before = fingerprint(reference)
    config = DPOConfig()
    arguments = (lambda k: batches_of(random_pairs(LENGTHS)), AdamW(policy.named_parameters(), config.optim), config, 2)
    list(train_dpo(policy, reference, *arguments))
    assert fingerprint(reference) == before != fingerprint(policy)
    with pytest.raises(ValueError, match="the reference shares"):
        next(train_dpo(policy, policy, *arguments))


def test_a_broken_weight_is_named_before_anything_moves():
    policy = tiny_gpt()
    with torch.no_grad():
        policy.blocks[0].mlp_norm.weight[0] = math.nan
    optimizer = AdamW(policy.named_parameters(), OptimConfig())
    before = fingerprint(policy)
    with pytest.raises(NonFiniteError, match="chosen_log_probs"):
        next(train_dpo(policy, tiny_gpt(), lambda k: batches_of(random_pairs(LENGTHS)), optimizer, DPOConfig(), 1))
    assert fingerprint(policy) == before


def test_steps_and_settings():
    assert DPOConfig(batch_size=4, epochs=1.5).steps(9) == 4
    assert DPOConfig(batch_size=400).steps(9) == 1
    for bad in ({"beta": 0.0}, {"epochs": -1.0}, {"batch_size": 0}, {"micro_batch_size": 0}):
        with pytest.raises(UserError, match="out of range"):
            DPOConfig(**bad)
