import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.utils._python_dispatch import TorchDispatchMode

from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.objectives.likelihood import (
    answer_log_probs,
    chunked_cross_entropy,
    log_probs_of,
    response_log_probs,
    sequence_cross_entropy,
    sequence_log_probs,
    token_log_probs,
    token_log_probs_and_entropy,
)
from minirlhf.reference import likelihood as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats, logit_cases

temperatures = st.sampled_from([0.7, 1.0, 1.3])


@given(logit_cases(), temperatures, st.data())
def test_token_log_probs_by_hand_by_nudging_and_by_autograd(case, temperature, data):
    logits, targets, _ = case
    upstream = data.draw(floats(targets.shape))
    by_hand = reference.token_log_probs_grad(upstream, logits, targets, temperature)
    by_nudging = central_difference(
        lambda z: (upstream * reference.token_log_probs(z, targets, temperature)).sum(), logits
    )

    leaf = torch.tensor(logits, requires_grad=True)
    log_probs = token_log_probs(leaf, torch.tensor(targets), temperature)
    (log_probs * torch.tensor(upstream)).sum().backward()

    assert_allclose(log_probs.detach(), reference.token_log_probs(logits, targets, temperature), rtol=1e-12, atol=1e-13)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-11, atol=1e-13)
    assert_allclose(by_hand.sum(-1), 0, atol=1e-12)  # adding a constant to all logits changes nothing


@given(logit_cases(), temperatures, st.data())
def test_entropy_by_hand_by_nudging_and_by_autograd(case, temperature, data):
    logits, targets, _ = case
    upstream = data.draw(floats(targets.shape))
    by_hand = reference.entropy_grad(upstream, logits, temperature)
    by_nudging = central_difference(lambda z: (upstream * reference.entropy(z, temperature)).sum(), logits)

    leaf = torch.tensor(logits, requires_grad=True)
    log_probs, entropy = token_log_probs_and_entropy(leaf, torch.tensor(targets), temperature)
    (entropy * torch.tensor(upstream)).sum().backward()

    assert torch.equal(log_probs, token_log_probs(leaf, torch.tensor(targets), temperature))
    assert_allclose(entropy.detach(), reference.entropy(logits, temperature), rtol=1e-11, atol=1e-12)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-10, atol=1e-12)


@given(logit_cases(), st.floats(0.1, 10))
def test_temperature_commutes_with_scaling_the_logits(case, temperature):
    logits, targets, _ = (torch.tensor(array) for array in case)
    hot = token_log_probs_and_entropy(logits, targets, temperature)
    scaled = token_log_probs_and_entropy(logits / temperature, targets)
    assert torch.equal(hot[0], scaled[0]) and torch.equal(hot[1], scaled[1])
    assert_allclose(log_probs_of(logits, temperature).exp().sum(-1), 1, rtol=1e-12)


def test_an_independent_witness_and_the_uniform_distribution():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(3, 5, 7, generator=generator), torch.randint(7, (3, 5), generator=generator)
    witness = torch.distributions.Categorical(logits=logits.double() / 1.3)
    log_probs, entropy = token_log_probs_and_entropy(logits.double(), targets, 1.3)
    assert_allclose(log_probs, witness.log_prob(targets), rtol=1e-12)
    assert_allclose(entropy, witness.entropy(), rtol=1e-12)
    assert_allclose(token_log_probs_and_entropy(torch.zeros(2, 7), targets[:2, 0])[1], math.log(7), rtol=1e-6)


def test_huge_logits_and_forbidden_tokens_stay_finite():
    logits = torch.tensor([[1e5, 0.0, -1e5], [1.0, 2.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    log_probs, entropy = token_log_probs_and_entropy(logits, torch.tensor([0, 1]))
    two_left = torch.log_softmax(torch.tensor([1.0, 2.0], dtype=torch.float64), -1)
    assert_allclose(log_probs.tolist(), [0, two_left[1]], rtol=1e-12)
    assert_allclose(entropy.tolist(), [0, -(two_left.exp() * two_left).sum()], rtol=1e-12, atol=1e-300)
    (log_probs.sum() + 3 * entropy.sum()).backward()  # a factor above 1 must not carry what is finite over the edge
    assert logits.grad.isfinite().all() and logits.grad[1, 2] == 0


class CountDivisions(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_temperature_one_and_an_unasked_entropy_cost_nothing():
    logits, targets = torch.randn(2, 3, 5), torch.zeros(2, 3, dtype=torch.int64)
    with CountDivisions() as plain:
        token_log_probs(logits, targets)
    with CountDivisions() as hot:
        token_log_probs(logits, targets, 2.0)
    assert sorted(plain.calls) == ["_log_softmax", "gather", "squeeze", "unsqueeze"]
    assert "div" in hot.calls


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_normalised_in_float32(dtype):
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    log_probs = log_probs_of(logits)
    assert log_probs.dtype == torch.float32
    assert_allclose(log_probs.exp().sum(-1), 1, rtol=1e-5)


def causal_toy(ids, attention_mask=None, last=None):
    """Logits that depend on every real token so far, and on its place: enough to notice any shift."""
    real = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask
    place = real.cumsum(1).double()
    so_far = ((ids + 1) * place * real).cumsum(1)
    logits = torch.sin(so_far[..., None] * torch.arange(1, 8, dtype=torch.float64))  # [B T 7]
    return logits if last is None else logits[:, -last:]


def one_token_at_a_time(ids, row, position, temperature, attention_mask=None):
    seen = ids[row : row + 1, :position]
    mask = None if attention_mask is None else attention_mask[row : row + 1, :position]
    logits = causal_toy(seen, mask)[0, -1].numpy()
    return reference.token_log_probs(logits, np.array(int(ids[row, position])), temperature)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), temperatures, st.integers(0, 2**31))
def test_shifting_equals_a_loop_over_single_tokens(rows, prompt, response, temperature, seed):
    """Also for prompts and responses of one token, and for left-padded prompts."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(7, (rows, prompt + response), generator=generator)
    padding = torch.randint(prompt, (rows, 1), generator=generator)
    attention_mask = torch.arange(prompt + response)[None] >= padding  # at least one prompt token is real

    whole = sequence_log_probs(causal_toy, ids, None, temperature)
    masked = sequence_log_probs(causal_toy, ids, attention_mask, temperature)
    log_probs, entropy = response_log_probs(causal_toy, ids, attention_mask, response, temperature)

    assert log_probs.shape == entropy.shape == (rows, response)
    assert torch.equal(log_probs, masked[:, -response:])
    for row in range(rows):
        for position in range(1, prompt + response):
            expected = one_token_at_a_time(ids, row, position, temperature)
            assert_allclose(whole[row, position - 1], expected, rtol=1e-9)
        for position in range(prompt, prompt + response):
            expected = one_token_at_a_time(ids, row, position, temperature, attention_mask)
            assert_allclose(log_probs[row, position - prompt], expected, rtol=1e-9)


def test_what_does_not_fit_is_refused():
    logits, targets = torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.int64)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            token_log_probs(logits, targets, temperature)
    with pytest.raises(ValueError, match="floating point"):
        token_log_probs(logits.long(), targets)
    with pytest.raises(ValueError, match="int64"):
        token_log_probs(logits, targets.int())
    with pytest.raises(ValueError, match="shape"):
        token_log_probs(logits, targets[:, :2])
    with pytest.raises(ValueError, match="at least 2 tokens"):
        sequence_log_probs(causal_toy, targets[:, :1])
    with pytest.raises(ValueError, match="attention_mask"):
        sequence_log_probs(causal_toy, targets, torch.ones(2, 2, dtype=torch.bool))
    for response_tokens in (0, 3):
        with pytest.raises(ValueError, match="response_tokens"):
            response_log_probs(causal_toy, targets, torch.ones(2, 3, dtype=torch.bool), response_tokens)
    with pytest.raises(ValueError, match="attention_mask"):
        response_log_probs(causal_toy, targets, torch.ones(2, 2, dtype=torch.bool), 1)


@st.composite
def chunked_cases(draw):
    """x [N D], weight [V D], targets [N] in float64, a temperature and a size of chunk; also without any target."""
    rows, width, vocabulary = draw(st.integers(0, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    return x, weight, targets, draw(st.sampled_from([0.5, 1.0, 2.0])), draw(st.integers(1, 10))


@given(chunked_cases())
def test_cross_entropy_by_chunks_equals_all_logits_at_once(case):
    x, weight, targets, temperature, chunk = case
    mine, theirs = ([a.clone().requires_grad_() for a in (x, weight)] for _ in range(2))
    total = chunked_cross_entropy(*mine, targets, temperature, chunk)
    wanted = -token_log_probs(theirs[0] @ theirs[1].T, targets, temperature).sum()
    (3 * total).backward()
    (3 * wanted).backward()
    torch.testing.assert_close(total, wanted, rtol=1e-12, atol=1e-12)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(chunked_cross_entropy(x, weight, targets, temperature, chunk), total)


def test_a_sequence_counts_where_its_mask_says_so():
    """The loss of a model, and the gradient of all its weights, by the waist and by chunks of the counted tokens."""
    model = GPT(GPTConfig(vocab_size=7, context=6, layers=1, heads=2, width=4)).double()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(7, (3, 6), generator=generator)
    mask = torch.rand(3, 5, generator=generator) < 0.5
    waist = -(sequence_log_probs(model, ids) * mask).sum()
    wanted = torch.autograd.grad(waist, list(model.parameters()))
    total = sequence_cross_entropy(model, ids, mask)
    torch.testing.assert_close(total, waist, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad(total, list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_an_answer_is_the_sum_of_its_tokens_by_the_waist_too():
    model = GPT(GPTConfig(vocab_size=7, context=6, layers=1, heads=2, width=4)).double()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(7, (4, 6), generator=generator)
    mask, upstream = torch.rand(4, 5, generator=generator) < 0.5, torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    mask[3] = False  # nothing counts
    waist = (sequence_log_probs(model, ids) * mask).sum(dim=1)
    wanted = torch.autograd.grad(waist @ upstream, list(model.parameters()))
    answers = answer_log_probs(model, ids, mask)
    torch.testing.assert_close(answers, waist, rtol=1e-12, atol=1e-12)
    assert answers[3] == 0
    for one, other in zip(torch.autograd.grad(answers @ upstream, list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
