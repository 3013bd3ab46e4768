"""Generating: the cache changes nothing, neither do the neighbours in the batch, and the records are true."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from minirlhf.errors import UserError
from minirlhf.generation.generate import generate, stream
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.records import PromptBatch

VOCAB, CONTEXT, PAD = 12, 20, 11
GPT2 = GPTConfig(VOCAB, context=CONTEXT, layers=2, heads=2, width=16, dropout=0.5)
LLAMA = dataclasses.replace(GPT2, kv_heads=1, positions="rope", norm="rms", mlp="swiglu", bias=False)


def make(config: GPTConfig) -> GPT:
    generator = torch.Generator().manual_seed(1)
    model = GPT(config, generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


MODELS = {"gpt2": make(GPT2), "llama": make(LLAMA)}
models = st.sampled_from(sorted(MODELS))


def left_padded(prompts: list[list[int]]) -> PromptBatch:
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return PromptBatch(ids, mask, ("",) * len(prompts))


def some_prompts(seed: int, rows: int, longest: int = 6) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows,), generator=generator).tolist()
    return [torch.randint(VOCAB - 1, (length,), generator=generator).tolist() for length in lengths]


def answers(generation) -> list[list[int]]:
    tokens = generation.response_mask.shape[1]
    response = generation.ids[:, generation.ids.shape[1] - tokens :]
    return [response[row, generation.response_mask[row]].tolist() for row in range(len(response))]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_text_is_the_same_without_a_cache(name, seed):
    model, prompts = MODELS[name].eval(), some_prompts(seed, 3)
    out = answers(generate(model, left_padded(prompts), SamplingConfig(8, greedy=True), (3,), PAD, rng()))
    for prompt, answer in zip(prompts, out, strict=True):
        written = list(prompt)
        while len(written) < len(prompt) + 8 and (len(written) == len(prompt) or written[-1] != 3):
            written.append(int(model(torch.tensor([written]))[0, -1].argmax()))
        assert answer == written[len(prompt) :]


@given(models, st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([0.7, 1.0, 1.3]))
@settings(max_examples=30, deadline=None)
def test_recorded_log_probs_equal_those_of_a_full_forward(name, seed, rows, temperature):
    """With dropout configured and the model in training mode: generating switches it off and on again."""
    model = MODELS[name].train()
    made = generate(
        model, left_padded(some_prompts(seed, rows)), SamplingConfig(9, temperature), (3, 4), PAD, rng(seed)
    )
    assert model.training
    tokens = made.response_mask.shape[1]
    logits = model.eval()(made.ids[:, :-1], made.attention_mask[:, :-1], last=tokens)
    want = (logits / temperature).log_softmax(-1).gather(-1, made.ids[:, -tokens:, None])[..., 0]
    assert_close(made.log_probs, want.masked_fill(~made.response_mask, 0.0), rtol=1e-9, atol=1e-11)
    assert not made.log_probs.requires_grad


@given(models, st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_an_answer_does_not_depend_on_when_the_others_end(name, seed, rows, stops):
    """Many stop tokens: rows end at different times and leave the batch; no stop tokens: all stay to the end."""
    model, prompts = MODELS[name], left_padded(some_prompts(seed, rows))
    stop_ids = tuple(range(stops))
    together = answers(generate(model, prompts, SamplingConfig(10), (), PAD, rng(seed)))
    ending = generate(model, prompts, SamplingConfig(10), stop_ids, PAD, rng(seed))
    for whole, answer, ended in zip(together, answers(ending), ending.ended.tolist(), strict=True):
        cut = next((place + 1 for place, token in enumerate(whole) if token in stop_ids), len(whole))
        assert answer == whole[:cut]
        assert ended == any(token in stop_ids for token in whole)


def test_the_first_rows_of_a_batch_answer_as_they_would_alone():
    model, prompts = MODELS["llama"], some_prompts(7, 6)
    many = answers(generate(model, left_padded(prompts), SamplingConfig(10), (1,), PAD, rng(5)))
    few = answers(generate(model, left_padded(prompts[:2]), SamplingConfig(10), (1,), PAD, rng(5)))
    assert many[:2] == few


@given(st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_record_is_consistent(seed, rows):
    prompts = left_padded(some_prompts(seed, rows))
    made = generate(MODELS["gpt2"], prompts, SamplingConfig(10), (2, 5), PAD, rng(seed))
    tokens, before = made.response_mask.shape[1], prompts.ids.shape[1]
    assert torch.equal(made.ids[:, :before], prompts.ids)
    assert torch.equal(made.attention_mask, torch.cat((prompts.attention_mask, made.response_mask), dim=1))
    assert made.response_mask.any(dim=0).all()  # no column of padding only
    assert made.response_mask[:, 0].all()
    assert (made.response_mask.long().diff(dim=1) <= 0).all()  # no holes
    response = made.ids[:, before:]
    assert (response[~made.response_mask] == PAD).all()
    assert (made.log_probs[~made.response_mask] == 0).all()
    for answer, ended in zip(answers(made), made.ended.tolist(), strict=True):
        assert not any(token in (2, 5) for token in answer[:-1])
        assert ended == (answer[-1] in (2, 5))
        assert ended or len(answer) == tokens == 10


def test_same_seed_same_answers():
    prompts = left_padded(some_prompts(0, 4))
    first, again, other = (generate(MODELS["gpt2"], prompts, SamplingConfig(10), (), PAD, rng(s)) for s in (0, 0, 1))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.log_probs, again.log_probs)
    assert not torch.equal(first.ids, other.ids)


def test_banned_tokens_are_never_drawn_and_the_log_probs_know_it():
    prompts, banned = left_padded(some_prompts(0, 8)), (0, 1, 2, PAD)
    made = generate(MODELS["gpt2"], prompts, SamplingConfig(10, temperature=3.0), (), PAD, rng(), banned)
    assert not set(banned) & {token for answer in answers(made) for token in answer}
    logits = MODELS["gpt2"].eval()(made.ids[:, :-1], made.attention_mask[:, :-1], last=10)
    logits[..., list(banned)] = -torch.inf
    want = (logits / 3.0).log_softmax(-1).gather(-1, made.ids[:, -10:, None])[..., 0]
    assert_close(made.log_probs, want, rtol=1e-9, atol=1e-11)


def test_generated_ids_can_be_trained_on():
    made = generate(MODELS["gpt2"], left_padded(some_prompts(0, 2)), SamplingConfig(4), (), PAD, rng())
    MODELS["gpt2"](made.ids, made.attention_mask).sum().backward()


@pytest.mark.parametrize("name", MODELS)
def test_prompt_and_answer_fill_the_context_and_no_more(name):
    prompts = left_padded([[1] * (CONTEXT - 5), [2]])
    made = generate(MODELS[name], prompts, SamplingConfig(5), (), PAD, rng())
    assert made.ids.shape == (2, CONTEXT)
    with pytest.raises(UserError, match="do not fit the model's context") as error:
        generate(MODELS[name], prompts, SamplingConfig(6), (), PAD, rng())
    assert f"a prompt of {CONTEXT - 5} tokens" in error.value.found
    with pytest.raises(UserError, match="no tokens"):
        generate(
            MODELS[name],
            PromptBatch(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.bool), ("",)),
            SamplingConfig(1),
            (),
            PAD,
            rng(),
        )


@pytest.mark.parametrize("name", MODELS)
def test_stream_says_the_same_as_generate(name):
    model, prompt = MODELS[name].train(), [4, 7, 1]
    sampling = SamplingConfig(9, temperature=1.3, top_k=5)
    for seed in range(6):
        whole = answers(generate(model, left_padded([prompt]), sampling, (0, 1), PAD, rng(seed)))[0]
        spoken = list(stream(model, prompt, sampling, (0, 1), rng(seed)))
        assert spoken == [token for token in whole if token not in (0, 1)]
    assert model.training


def test_stream_ends_where_the_context_ends():
    spoken = list(stream(MODELS["gpt2"], [1] * (CONTEXT - 3), SamplingConfig(50), (), rng()))
    assert len(spoken) == 3
    with pytest.raises(UserError, match="do not fit"):  # at once, not at the first token
        stream(MODELS["gpt2"], [1] * CONTEXT, SamplingConfig(50), (), rng())
