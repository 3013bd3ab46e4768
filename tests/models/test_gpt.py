"""The decoder: equal to the NumPy one, blind to padding and to the future, and the same with a cache as without."""

import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from minirlhf.errors import UserError
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.speed import set_attend
from minirlhf.nn.attention import eager_attend
from minirlhf.nn.lean_attention import lean_attend
from minirlhf.reference.block import Shape
from minirlhf.reference.gpt import gpt as reference_gpt

VOCAB, CONTEXT = 11, 10
GPT2 = GPTConfig(VOCAB, context=CONTEXT, layers=2, heads=4, width=16)
LLAMA = GPTConfig(
    VOCAB,
    context=CONTEXT,
    layers=2,
    heads=4,
    kv_heads=2,
    width=16,
    positions="rope",
    norm="rms",
    mlp="swiglu",
    bias=False,
    tie_embeddings=False,
)
QWEN3 = dataclasses.replace(LLAMA, qk_norm=True)
SHAPES = {"gpt2": GPT2, "llama": LLAMA, "qwen3": QWEN3}
EXACT = {"rtol": 1e-10, "atol": 1e-11}
shapes = st.sampled_from(sorted(SHAPES))


def make(config: GPTConfig, seed: int = 1, noise: float = 0.3, **options) -> GPT:
    """A float64 decoder with weights large enough that every part of it matters, biases and gains included."""
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config, generator, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


MODELS = {name: make(config) for name, config in SHAPES.items()}


def some_ids(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, CONTEXT])
def test_equals_the_numpy_decoder(name, tokens):
    model, config, ids = MODELS[name], SHAPES[name], some_ids(tokens, 2, tokens)
    weights = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    shape = Shape(config.layers, config.heads, config.key_value_heads, config.positions, config.norm, config.mlp)
    logits = model(ids).detach()
    for row in range(2):
        want = torch.tensor(reference_gpt(weights, shape, ids[row].numpy()))
        assert_close(logits[row], want, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("attend", [eager_attend, lean_attend])
@given(shapes, st.integers(1, CONTEXT), st.integers(1, 3), st.booleans(), st.integers(0, 2**31))
def test_who_is_asked_answers_as_if_all_were(attend, name, tokens, rows, padded, seed):
    """The last block may leave out tokens that nobody asks: values and gradients are those of the whole pass."""
    model, ids = copy.deepcopy(MODELS[name]), some_ids(seed, rows, tokens)
    set_attend(model, attend)
    draws = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, tokens, generator=draws) < 0.7 if padded else None
    places, last = (
        torch.randint(tokens, (rows,), generator=draws),
        int(torch.randint(1, tokens + 1, (), generator=draws)),
    )
    whole = model.hidden(ids, mask)[0]  # [B T D]
    for asked, wanted in ((last, whole[:, tokens - last :]), (places, whole[torch.arange(rows), places][:, None])):
        found = model.hidden(ids, mask, asked=asked)[0]
        assert_close(found, wanted, **EXACT)
        weights = torch.randn(wanted.shape, generator=draws, dtype=torch.float64)
        gradients = [
            torch.autograd.grad((x * weights).sum(), list(model.parameters()), retain_graph=True, allow_unused=True)
            for x in (found, wanted)
        ]
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert_close(one, other, **EXACT)


@given(shapes, st.integers(1, 6), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**31))
def test_padding_with_junk_under_it_changes_no_real_token(name, tokens, left, right, seed):
    model, ids = MODELS[name], some_ids(seed, 2, tokens)
    junk = some_ids(seed + 1, 2, left + tokens + right)
    padded = torch.cat((junk[:, :left], ids, junk[:, left + tokens :]), dim=1)
    mask = torch.zeros_like(padded, dtype=torch.bool)
    mask[:, left : left + tokens] = True
    out = model(padded, mask)
    assert_close(out[:, left : left + tokens], model(ids), **EXACT)
    assert out.isfinite().all()


@pytest.mark.parametrize("name", SHAPES)
def test_rows_with_different_padding_and_holes(name):
    """Each row of a mixed batch says what its real tokens alone would say, with a mask full of holes too."""
    model, ids = MODELS[name], some_ids(5, 4, 9)
    mask = torch.rand(4, 9, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[3] = True
    out = model(ids, mask)
    for row in range(4):
        assert_close(out[row, mask[row]], model(ids[row, mask[row]][None])[0], **EXACT)


@pytest.mark.parametrize("name", SHAPES)
def test_padding_gets_no_gradient_and_gives_no_nan(name):
    model, ids = make(SHAPES[name]), some_ids(0, 2, 7)
    mask = torch.tensor([[False] * 3 + [True] * 4, [False] * 7])
    model(ids, mask).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@given(shapes, st.integers(0, CONTEXT - 1), st.sampled_from([1.0, 1e6]), st.integers(0, 2**31))
def test_the_future_is_invisible(name, changed, scale, seed):
    model = MODELS[name]
    if scale != 1.0:
        model = make(SHAPES[name])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
    ids = some_ids(seed, 1, CONTEXT)
    other = ids.clone()
    other[0, changed] = (other[0, changed] + 1) % VOCAB
    assert torch.equal(model(ids)[:, :changed], model(other)[:, :changed])
    assert not torch.equal(model(ids)[:, changed], model(other)[:, changed])


@given(shapes, st.integers(1, CONTEXT - 1), st.integers(1, 4), st.integers(0, 5), st.integers(0, 2**31))
def test_cached_logits_equal_uncached_ones(name, prefix, piece, left, seed):
    """A prefix at once, then pieces of any size up to the context limit, with and without left-padding."""
    model, ids = MODELS[name], some_ids(seed, 2, left + CONTEXT)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :left] = False  # row 1 is cut to the context below
    if left:
        ids, mask = ids[:1], mask[:1]
    full = model(ids, mask if left else None)
    cache = model.empty_cache(len(ids), left + CONTEXT)
    end, step = 0, left + prefix
    while end < left + CONTEXT:
        start, end = end, min(end + step, left + CONTEXT)
        logits, cache = model.decode(ids[:, start:end], mask[:, :end] if left else None, cache)
        assert_close(logits, full[:, end - 1], **EXACT)
        assert cache.length == end
        step = piece


def test_hidden_with_a_cache_gives_every_position():
    model, ids = MODELS["llama"], some_ids(3, 2, 8)
    want, nothing = model.hidden(ids)
    first, cache = model.hidden(ids[:, :3], None, model.empty_cache(2))
    second, _ = model.hidden(ids[:, 3:], None, cache)
    assert nothing is None
    assert_close(torch.cat((first, second), dim=1), want, **EXACT)


def test_last_slices_the_logits():
    model, ids = MODELS["gpt2"], some_ids(3, 2, 8)
    for last in (1, 3, 8):
        assert_close(model(ids, last=last), model(ids)[:, -last:], **EXACT)


def test_more_than_the_context_is_refused():
    model, ids = MODELS["gpt2"], some_ids(0, 1, CONTEXT + 1)
    with pytest.raises(ValueError, match="do not fit the context"):
        model(ids)
    with pytest.raises(ValueError, match="do not fit the context"):
        model(ids, torch.ones_like(ids, dtype=torch.bool))
    with pytest.raises(ValueError, match="attention_mask has shape"):
        model(ids[:, :4], torch.ones(1, 5, dtype=torch.bool))


@pytest.mark.parametrize("name", SHAPES)
def test_attend_is_an_argument(name):
    calls = []

    def counted(q, k, v, visible):
        calls.append(q.shape)
        return eager_attend(q, k, v, visible)

    model = make(SHAPES[name], attend=counted)
    assert_close(model(some_ids(0, 1, 4)), MODELS[name](some_ids(0, 1, 4)), rtol=0, atol=0)
    assert calls == [(1, 4, 4, 4)] * 2


def test_initial_weights():
    """GPT-2's start: std 0.02, residual projections smaller by √(2 · layers), from the given generator only."""
    config = dataclasses.replace(GPT2, width=128, vocab_size=300, layers=3)
    before = torch.random.get_rng_state()
    first, again, other = (GPT(config, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        if a.dim() == 2:
            std = 0.02 / (6**0.5 if name.endswith("to_out.weight") else 1)
            allowed = 5 / (2 * a.numel()) ** 0.5  # five standard errors of a std, relative
            assert abs(a.std().item() / std - 1) < allowed, name
            assert not torch.equal(a, c)
        else:
            assert (a == (1.0 if name.endswith("weight") else 0.0)).all(), name


def test_zero_init_starts_as_the_embedding_alone():
    """Every block adds nothing at first, and an untied unembedding finds every token equally likely."""
    for name in SHAPES:
        config = dataclasses.replace(SHAPES[name], zero_init=True)
        model, plain = GPT(config), GPT(SHAPES[name])
        zeros = {key for key, parameter in model.named_parameters() if key.endswith("weight") and not parameter.any()}
        silent = {key for key, _ in plain.named_parameters() if key.endswith("to_out.weight")}
        assert zeros == silent | ({"unembedding.weight"} if not config.tie_embeddings else set())
        theirs = dict(plain.named_parameters())
        assert all(torch.equal(p, theirs[key]) for key, p in model.named_parameters() if key not in zeros)
        ids = some_ids(0, 1, 5)
        if not config.tie_embeddings:
            assert_close(model(ids).log_softmax(-1), torch.full((1, 5, VOCAB), -math.log(VOCAB)))


def test_queries_and_keys_of_any_size_match_alike():
    """With qk_norm, scaling the projection of queries and keys changes nothing; without, everything."""
    for name, alike in (("qwen3", True), ("llama", False)):
        model, ids = make(SHAPES[name]), some_ids(1, 2, 6)
        before = model(ids)
        with torch.no_grad():
            for block in model.blocks:
                block.attention.to_qkv.weight[: 16 + 8].mul_(50)  # queries and keys, not values
        assert torch.allclose(model(ids), before, rtol=1e-4, atol=1e-4) == alike


def test_tied_embeddings_share_one_matrix():
    assert sum(p.shape == (VOCAB, 16) for p in GPT(GPT2).parameters()) == 1
    assert sum(p.shape == (VOCAB, 16) for p in GPT(dataclasses.replace(GPT2, tie_embeddings=False)).parameters()) == 2


def test_dropout_only_while_training():
    model = make(dataclasses.replace(GPT2, dropout=0.5))
    ids = some_ids(0, 1, 5)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


@pytest.mark.parametrize("name", SHAPES)
def test_dropout_falls_on_the_embedding_and_on_all_that_joins_the_stream(name):
    model = make(dataclasses.replace(SHAPES[name], dropout=0.5))
    calls = []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda module, given, out: calls.append(module))
    model(some_ids(0, 1, 5))
    assert calls == [model.drop, *(block.drop for block in model.blocks for _ in range(2))]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"heads": 3}, "multiple of the number of heads"),
        ({"kv_heads": 3}, "multiple of kv_heads"),
        ({"kv_heads": 0}, "at least 1"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"positions": "rope", "heads": 16}, "even"),
        ({"positions": "alibi"}, "unknown choice"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        dataclasses.replace(GPT2, **options)
