"""What torch draws from, and what it draws, is what the definition says."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.generation import sampling
from minirlhf.reference import sampling as by_hand
from minirlhf.reference.softmax import softmax
from minirlhf.testing import central_difference, floats

rows = st.integers(1, 9).flatmap(lambda vocab: floats((vocab,), limit=5.0))
temperatures = st.sampled_from([0.3, 1.0, 1.7])


@given(rows, temperatures, st.none() | st.integers(1, 10), st.none() | st.floats(0.05, 1.0))
def test_the_distribution_drawn_from(z, temperature, top_k, top_p):
    assume(np.diff(np.sort(z)).min(initial=1.0) > 1e-9)  # of logits that rounding makes equal torch may keep another
    ours = sampling.sampling_log_probs(
        torch.tensor(z[None]), sampling.SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    )
    kept = z if top_k is None else by_hand.keep_top_k(z, top_k)
    held = np.sort(softmax(kept / temperature))[::-1].cumsum()
    assume(top_p is None or np.abs(held - top_p).min() > 1e-9)  # where rounding decides who is in
    probs = by_hand.sampling_probs(z, temperature, top_k, top_p)
    assert_allclose(ours.exp()[0].numpy(), probs, rtol=1e-10, atol=1e-14)
    assert_allclose(probs.sum(), 1)


@given(rows, st.floats(0, 1, exclude_max=True))
def test_the_draw(z, uniform):
    probs = by_hand.sampling_probs(z, top_p=0.9)
    assume(np.abs(probs.cumsum() - uniform).min() > 1e-12)
    ours = sampling.invert_cumulative(torch.tensor(probs[None]).log(), torch.tensor([uniform], dtype=torch.float64))
    token = by_hand.invert_cumulative(probs, uniform)
    assert ours.item() == token
    assert probs[:token].sum() <= uniform < probs[: token + 1].sum()


def test_a_number_near_one_takes_the_last_token_that_has_a_chance():
    assert by_hand.invert_cumulative(np.array([0.5, 0.5, 0.0]), 1.0) == 1


@given(rows, st.floats(0.3, 3.0))
def test_entropy_grows_with_the_temperature_as_derived(z, temperature):
    def entropy(t):
        p = by_hand.sampling_probs(z, float(t))
        return -(p * np.log(p)).sum()

    p = by_hand.sampling_probs(z, temperature)
    variance = (p * (z - (p * z).sum()) ** 2).sum()
    slope = central_difference(entropy, np.array(temperature))
    assert_allclose(slope, variance / temperature**3, rtol=1e-5, atol=1e-7)
