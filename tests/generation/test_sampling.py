"""Drawing one token: the right frequencies, exactly the tokens that top-k and top-p keep, and clear refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from minirlhf.errors import UserError
from minirlhf.generation.sampling import (
    SamplingConfig,
    invert_cumulative,
    keep_top_p,
    sample_tokens,
    sampling_log_probs,
)
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.reference import sampling as reference


def some_logits(seed: int, rows: int, vocab: int, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    expected = counts.sum() * probs
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(),
        SamplingConfig(temperature=0.7),
        SamplingConfig(temperature=1.3, top_k=4),
        SamplingConfig(top_p=0.8),
    ],
)
def test_frequencies_agree_with_the_distribution(sampling):
    """20 000 draws with a fixed seed; chi-square below its 99.9 % point (27.9 for 9 degrees, less for fewer)."""
    logits, draws = some_logits(0, 1, 10), 20_000
    probs = sampling_log_probs(logits, sampling).exp()[0].numpy()
    ids, log_probs = sample_tokens(logits.expand(draws, -1), sampling, torch.Generator().manual_seed(1))
    counts = np.bincount(ids.numpy(), minlength=10)
    assert (counts[probs == 0] == 0).all()
    assert chi_square(counts[probs > 0], probs[probs > 0]) < 27.9
    assert_close(log_probs.exp().numpy(), probs[ids.numpy()], rtol=1e-12, atol=0)


def test_plain_distribution_is_softmax_of_logits_over_temperature():
    logits = some_logits(2, 3, 7)
    for temperature in (0.7, 1.0, 1.3):
        want = np.exp(logits.numpy() / temperature)
        want /= want.sum(axis=-1, keepdims=True)
        ours = sampling_log_probs(logits, SamplingConfig(temperature=temperature)).exp().numpy()
        np.testing.assert_allclose(ours, want, rtol=1e-12)


@given(st.integers(0, 2**31), st.integers(2, 12), st.sampled_from([None, 1, 2, 12, 50]))
@settings(max_examples=40, deadline=None)
def test_top_k_keeps_the_k_likeliest_and_their_proportions(seed, vocab, k):
    logits = some_logits(seed, 3, vocab)
    ours = sampling_log_probs(logits, SamplingConfig(top_k=k))
    kept = vocab if k is None else min(k, vocab)
    assert (torch.isfinite(ours).sum(-1) == kept).all()
    smallest_kept = torch.where(torch.isfinite(ours), logits, torch.inf).min(-1).values
    largest_cut = torch.where(torch.isfinite(ours), -torch.inf, logits).max(-1).values
    assert (smallest_kept > largest_cut).all()
    assert_close(ours.exp().sum(-1), torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0)
    inside = torch.isfinite(ours)
    offsets = torch.where(inside, ours - logits, torch.nan)
    assert (offsets.nan_to_num(nan=-1e9).max(-1).values - offsets.nan_to_num(nan=1e9).min(-1).values).max() < 1e-10


@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(0.01, 1.0), st.sampled_from([0.7, 1.0, 1.3]))
@settings(max_examples=50, deadline=None)
def test_top_p_keeps_the_smallest_set(seed, vocab, p, temperature):
    """By brute force: take tokens from the likeliest down until they hold p."""
    logits = some_logits(seed, 1, vocab)
    probs = (logits / temperature).softmax(-1)[0].tolist()
    wanted, held = set(), 0.0
    for token in sorted(range(vocab), key=lambda token: -probs[token]):
        if held >= p:
            break
        wanted.add(token)
        held += probs[token]
    ours = sampling_log_probs(logits, SamplingConfig(top_p=p, temperature=temperature))[0]
    got = {token for token in range(vocab) if torch.isfinite(ours[token])}
    assert got == wanted or p == 1.0
    assert abs(ours.exp().sum().item() - 1) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_top_p_on_the_boundary_keeps_no_token_more(dtype):
    """0.5 and 0.3 hold 0.8; taking a probability off a sum again would leave a little less, and let a third in."""
    probs = torch.tensor([[0.3, 0.1, 0.1, 0.5]], dtype=dtype)
    kept = keep_top_p(probs.log(), probs, 0.8).isfinite()
    assert kept.tolist() == [[True, False, False, True]]
    assert (reference.keep_top_p(np.array([0.3, 0.1, 0.1, 0.5]), 0.8) > 0).tolist() == [True, False, False, True]


def test_top_k_comes_before_top_p():
    """0.4 0.3 0.2 0.1: the two likeliest are 4/7 and 3/7, and the first alone holds a half of them."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    assert sampling_log_probs(logits, SamplingConfig(top_k=2, top_p=0.5)).exp().tolist()[0] == [1.0, 0.0, 0.0, 0.0]


def test_cold_and_greedy_take_the_likeliest():
    logits = some_logits(4, 50, 9).float()
    cold, cold_log_probs = sample_tokens(logits, SamplingConfig(temperature=1e-4), torch.Generator().manual_seed(0))
    greedy, greedy_log_probs = sample_tokens(logits, SamplingConfig(greedy=True, temperature=2.0))
    assert torch.equal(cold, logits.argmax(-1))
    assert torch.equal(greedy, cold)
    assert cold_log_probs.isfinite().all()
    assert torch.equal(greedy_log_probs, torch.zeros(50))


def test_one_uniform_number_is_inverted_exactly():
    log_probs = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]], dtype=torch.float64).log()
    for uniform, token in ((0.0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (1 - 2**-53, 4), (1.0, 4)):
        assert invert_cumulative(log_probs, torch.tensor([uniform], dtype=torch.float64)).item() == token


def test_randomness_must_come_from_somewhere():
    with pytest.raises(ValueError, match="generator"):
        sample_tokens(some_logits(0, 1, 3), SamplingConfig())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": 0.0}, "temperature is too low"),
        ({"temperature": -1.0}, "temperature is too low"),
        ({"temperature": float("nan")}, "not a number"),
        ({"temperature": float("inf")}, "not a number"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must lie"),
        ({"top_p": 1.1}, "top_p must lie"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        SamplingConfig(**options)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("greedy", [False, True])
def test_one_broken_row_among_good_ones_is_refused(broken, greedy):
    logits = some_logits(0, 3, 5)
    logits[1, 2] = broken
    with pytest.raises(NonFiniteError, match="not finite"):
        sample_tokens(logits, SamplingConfig(greedy=greedy), torch.Generator().manual_seed(0))
    logits[1, 2] = -torch.inf  # forbidden is not broken, as long as something is left
    sample_tokens(logits, SamplingConfig(greedy=greedy), torch.Generator().manual_seed(0))
    logits[1] = -torch.inf
    with pytest.raises(NonFiniteError, match="not finite"):
        sample_tokens(logits, SamplingConfig(greedy=greedy), torch.Generator().manual_seed(0))
