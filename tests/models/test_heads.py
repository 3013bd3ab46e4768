"""Reward, value and classifier heads on a trunk."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import Classifier, RewardModel, ValueModel, right_padded

VOCAB = 11
CONFIG = GPTConfig(VOCAB, context=12, layers=2, heads=2, width=8)
EXACT = {"rtol": 1e-10, "atol": 1e-11}


def trunk(seed: int = 0) -> GPT:
    generator = torch.Generator().manual_seed(seed)
    model = GPT(CONFIG, generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def some_ids(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2**31))
def test_scores_are_read_at_the_last_real_token(tokens, left, right, seed):
    ids, junk = some_ids(seed, 2, tokens), some_ids(seed + 1, 2, left + tokens + right)
    padded = torch.cat((junk[:, :left], ids, junk[:, left + tokens :]), dim=1)
    mask = torch.zeros_like(padded, dtype=torch.bool)
    mask[:, left : left + tokens] = True
    generator = torch.Generator().manual_seed(0)
    for model in (RewardModel(trunk(), generator), Classifier(trunk(), ("bad", "good"), generator)):
        assert_close(model(padded, mask), model(ids), **EXACT)
    reward = RewardModel(trunk())
    x, _ = reward.trunk.hidden(ids)
    assert_close(reward(ids), x[:, -1] @ reward.head.weight[0], **EXACT)


def test_a_row_of_padding_only_is_refused():
    with pytest.raises(ValueError, match="no real token"):
        RewardModel(trunk())(some_ids(0, 2, 3), torch.tensor([[True] * 3, [False] * 3]))


def test_changing_only_the_prompt_changes_score_and_values():
    ids = some_ids(0, 1, 8)
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 1) % VOCAB
    reward, value = RewardModel(trunk()), ValueModel(trunk())
    with torch.no_grad():
        value.head.weight.fill_(0.5)
    assert reward(ids).item() != reward(other).item()
    assert (value(ids, last=3) != value(other, last=3)).all()


def test_reward_head_starts_with_the_stated_spread():
    """Std 1/√(D+1) within five standard errors over seeds, bias exactly 0, and the generator decides."""
    config = GPTConfig(VOCAB, context=4, layers=1, heads=1, width=63)
    shared = GPT(config)
    heads = [RewardModel(shared, torch.Generator().manual_seed(seed)).head for seed in range(40)]
    weights = torch.cat([head.weight.detach().flatten() for head in heads])
    assert abs(weights.std().item() * 64**0.5 - 1) < 5 / (2 * weights.numel()) ** 0.5
    assert all((head.bias == 0).all() for head in heads)
    again = RewardModel(shared, torch.Generator().manual_seed(3)).head
    assert torch.equal(again.weight, heads[3].weight)


def test_values_start_at_zero_and_last_slices_them():
    value, ids = ValueModel(trunk()), some_ids(0, 2, 7)
    assert torch.equal(value(ids), torch.zeros(2, 7, dtype=torch.float64))
    with torch.no_grad():
        value.head.weight.fill_(0.5)
    assert value(ids).std() > 0
    assert_close(value(ids, last=3), value(ids)[:, -3:], **EXACT)


def test_normalise_gives_mean_0_and_std_1_and_keeps_the_order():
    model, ids = RewardModel(trunk()), some_ids(0, 50, 6)
    with torch.no_grad():
        model.head.bias.fill_(7.0)
    raw = model(ids).detach()
    for _ in range(2):  # doing it again changes nothing
        model.normalise(model(ids))
        scores = model(ids).detach()
        assert abs(scores.mean().item()) < 1e-10
        assert abs(scores.std(correction=0).item() - 1) < 1e-10
        assert torch.equal(scores.argsort(), raw.argsort())
    fresh = RewardModel(trunk())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(ids), model(ids))


def test_normalise_stays_finite_on_equal_scores_and_refuses_broken_ones():
    model = RewardModel(trunk())
    model.normalise(torch.full((4,), 3.0))
    assert (model.gain.item(), model.bias_shift.item()) == (1.0, -3.0)
    for broken in (torch.tensor([]), torch.tensor([1.0, float("nan")])):
        with pytest.raises(ValueError, match="finite"):
            model.normalise(broken)


def test_from_trunk_leaves_the_model_it_came_from_alone():
    original = trunk()
    for model in (
        RewardModel.from_trunk(original),
        ValueModel.from_trunk(original),
        Classifier.from_trunk(original, ("a", "b", "c")),
    ):
        assert model.trunk is not original
        assert_close(model.trunk(some_ids(0, 1, 4)), original(some_ids(0, 1, 4)), rtol=0, atol=0)
        with torch.no_grad():
            model.trunk.token_embedding.weight.zero_()
        assert original.token_embedding.weight.abs().sum() > 0
    assert Classifier(original, ("a", "b", "c"))(some_ids(0, 2, 4)).shape == (2, 3)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_right_padding_is_told_from_other_padding(rows):
    mask = torch.tensor(rows)
    assert right_padded(mask) == all(row == sorted(row, reverse=True) for row in rows)
    assert right_padded(None)


def test_a_score_does_not_depend_on_whether_its_padding_was_masked():
    """Right-padded rows skip the mask; the same rows with one token of padding on the left do not."""
    model = RewardModel.from_trunk(GPT(GPTConfig(vocab_size=7, context=8, layers=2, heads=2, width=8)).double())
    ids = torch.randint(7, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(6) < torch.tensor([[6], [3], [1]])
    shifted = torch.nn.functional.pad(ids, (1, 0)), torch.nn.functional.pad(mask, (1, 0))
    torch.testing.assert_close(model(ids, mask), model(*shifted), rtol=1e-12, atol=1e-12)
