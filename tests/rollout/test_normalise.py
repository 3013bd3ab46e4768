"""A reward model on a known scale: mean 0 and standard deviation 1 over the reference's own answers."""

import pytest
import torch

from minirlhf.errors import UserError
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.rollout.normalise import normalise_reward_model
from tests.helpers.tiny_rl import TOKENIZER, prompt_batch, tiny_generation, tiny_gpt, tiny_reward_model


def normalise(model, sampling=None):
    batches = [prompt_batch(), prompt_batch(("zz", "y", "xyz"))]
    return normalise_reward_model(
        model, tiny_gpt(), batches, TOKENIZER, sampling or SamplingConfig(6), torch.Generator().manual_seed(1)
    )


def test_the_scores_of_the_reference_s_answers_become_standard_and_keep_their_order():
    model, generation = tiny_reward_model(), tiny_generation()
    raw = model(generation.ids, generation.attention_mask)
    scores = normalise(model)
    assert len(scores) == 9
    assert scores.mean().item() == pytest.approx(0, abs=1e-12)
    assert scores.std(correction=0).item() == pytest.approx(1, rel=1e-12)
    after = model(generation.ids, generation.attention_mask)
    assert torch.equal(raw.argsort(), after.argsort())
    assert not torch.allclose(raw, after)


def test_the_scores_returned_are_those_the_model_now_gives_and_twice_is_once():
    model = tiny_reward_model()
    first, gain = normalise(model), model.gain.clone()
    second = normalise(model)
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.gain, gain, rtol=1e-10, atol=0)


def test_cut_distributions_are_refused():
    with pytest.raises(UserError, match="top_p"):
        normalise(tiny_reward_model(), SamplingConfig(6, top_p=0.5))
