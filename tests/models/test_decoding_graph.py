"""What a CUDA graph would replay is what decoding does without one; the graph itself needs a GPU."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.decoding_graph import replaying
from minirlhf.models.speed import compile_decoding
from minirlhf.records import PromptBatch
from tests.models.test_gpt import CONTEXT, MODELS, VOCAB, shapes


def without_a_graph(work):
    """A recorder that does the work again each time: from the same memory, into the same memory."""
    out = work().clone()
    recorded.append(work)
    return lambda: out.copy_(work()), out


recorded: list = []


@given(shapes, st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
def test_replaying_writes_what_decoding_writes(name, rows, prompt_tokens, padded, seed):
    """Also as rows leave, which copies the cache, and whatever stands in memory that is not written yet."""
    model, replayed = MODELS[name], copy.deepcopy(MODELS[name])
    replayed.read_one = replaying(without_a_graph)
    recorded.clear()
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (rows, prompt_tokens), generator=draws)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, : prompt_tokens - 1] = not padded
    prompts = PromptBatch(ids, mask, ("",) * rows)
    answers = [
        generate(each, prompts, SamplingConfig(CONTEXT - prompt_tokens), (3, 4), 0, torch.Generator().manual_seed(seed))
        for each in (model, replayed)
    ]
    assert torch.equal(answers[0].ids, answers[1].ids)
    torch.testing.assert_close(answers[1].log_probs, answers[0].log_probs, rtol=1e-10, atol=1e-11)
    assert len(recorded) <= 4, "recorded for every token anew"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_cuda_graph_writes_what_decoding_writes():
    model = copy.deepcopy(MODELS["qwen3"]).cuda()
    graphed = copy.deepcopy(model)
    compile_decoding(graphed)
    ids = torch.randint(VOCAB, (3, 4), generator=torch.Generator().manual_seed(0)).cuda()
    prompts = PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), ("",) * 3)
    draws = [torch.Generator("cuda").manual_seed(1) for _ in range(2)]
    one, other = (
        generate(each, prompts, SamplingConfig(6), (), 0, generator)
        for each, generator in zip((model, graphed), draws, strict=True)
    )
    assert torch.equal(one.ids, other.ids)
