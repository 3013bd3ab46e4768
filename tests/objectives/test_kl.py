import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.kl import exact_kl, k1, k2, k3, next_kl_coef
from minirlhf.objectives.likelihood import log_probs_of, token_log_probs
from minirlhf.reference import kl as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats

ESTIMATORS = {"k1": (k1, reference.k1), "k2": (k2, reference.k2), "k3": (k3, reference.k3)}


@st.composite
def two_rows_of_logits(draw):
    shape = (draw(st.integers(1, 2)), draw(st.integers(2, 6)))
    return draw(floats(shape, 2.0)), draw(floats(shape, 2.0))


@given(two_rows_of_logits(), st.sampled_from([0.7, 1.0, 1.3]), st.data())
def test_exact_kl_by_hand_by_nudging_and_by_autograd(pair, temperature, data):
    logits, ref_logits = pair
    upstream = data.draw(floats(logits.shape[:1]))
    by_hand = reference.exact_kl_grad(upstream, logits, ref_logits, temperature)
    by_nudging = central_difference(lambda z: (upstream * reference.exact_kl(z, ref_logits, temperature)).sum(), logits)

    leaf, ref_leaf = torch.tensor(logits, requires_grad=True), torch.tensor(ref_logits)
    kl = exact_kl(leaf, ref_leaf, temperature)
    (kl * torch.tensor(upstream)).sum().backward()

    assert_allclose(kl.detach(), reference.exact_kl(logits, ref_logits, temperature), rtol=1e-10, atol=1e-13)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-10, atol=1e-12)
    assert (kl >= -1e-14).all()
    witness = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=leaf.detach() / temperature),
        torch.distributions.Categorical(logits=ref_leaf / temperature),
    )
    assert_allclose(kl.detach(), witness, rtol=1e-9, atol=1e-12)


@given(
    st.integers(2, 6).flatmap(lambda n: st.tuples(floats((n,), 2.0), floats((n,), 2.0))),
    st.sampled_from(sorted(ESTIMATORS)),
)
def test_estimators_by_hand_by_nudging_and_by_autograd(pair, name):
    log_probs, ref_log_probs = pair
    estimate, by_definition = ESTIMATORS[name]
    value, by_hand = by_definition(log_probs, ref_log_probs)
    by_nudging = central_difference(lambda p: by_definition(p, ref_log_probs)[0].sum(), log_probs)
    leaf = torch.tensor(log_probs, requires_grad=True)
    estimated = estimate(leaf, torch.tensor(ref_log_probs))
    estimated.sum().backward()
    assert_allclose(estimated.detach(), value, rtol=1e-12, atol=1e-14)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-11, atol=1e-14)


def enumerated(estimate, logits, ref_logits):
    """E over x ~ policy of the estimate and of its gradient through log policy(x), by summing over the vocabulary."""
    leaf = logits.clone().requires_grad_()
    every_token = torch.arange(logits.shape[-1])
    rows = leaf.expand(len(every_token), -1)  # [V V]
    log_probs = token_log_probs(rows, every_token)
    ref_log_probs = token_log_probs(ref_logits.expand(len(every_token), -1), every_token)
    mean = (log_probs.exp().detach() * estimate(log_probs, ref_log_probs)).sum()  # the sampling carries no gradient
    mean.backward()
    return mean.item(), leaf.grad


@given(two_rows_of_logits())
def test_against_the_whole_vocabulary_in_value_and_gradient(pair):
    logits, ref_logits = (torch.tensor(rows[0]) for rows in pair)
    leaf = logits.clone().requires_grad_()
    kl = exact_kl(leaf, ref_logits)
    kl.backward()
    other_leaf = logits.clone().requires_grad_()
    exact_kl(ref_logits, other_leaf).backward()  # KL(reference || policy)

    value, gradient = enumerated(k1, logits, ref_logits)
    assert_allclose(value, kl.item(), rtol=1e-9, atol=1e-13)  # unbiased
    assert_allclose(gradient, 0, atol=1e-13)  # and teaches nothing as a loss

    value, gradient = enumerated(k2, logits, ref_logits)
    assert value >= 0
    assert_allclose(gradient, leaf.grad, rtol=1e-9, atol=1e-13)  # the gradient of the KL

    value, gradient = enumerated(k3, logits, ref_logits)
    assert_allclose(value, kl.item(), rtol=1e-9, atol=1e-13)  # unbiased
    assert_allclose(gradient, other_leaf.grad, rtol=1e-9, atol=1e-13)  # the gradient of the other KL

    def inside_the_reward(log_probs, ref_log_probs):  # k1 as data, times the score function
        return k1(log_probs, ref_log_probs).detach() * log_probs

    assert_allclose(enumerated(inside_the_reward, logits, ref_logits)[1], leaf.grad, rtol=1e-9, atol=1e-13)


def test_k2_is_biased_and_the_direction_is_policy_to_reference():
    """p = (0.9, 0.1), q = (0.5, 0.5): KL(p || q) = 0.368, KL(q || p) = 0.511."""
    logits, ref_logits = torch.tensor([0.9, 0.1], dtype=torch.float64).log(), torch.zeros(2, dtype=torch.float64)
    forward = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert_allclose(exact_kl(logits, ref_logits), forward, rtol=1e-12)
    assert_allclose(enumerated(k1, logits, ref_logits)[0], forward, rtol=1e-12)
    assert_allclose(enumerated(k3, logits, ref_logits)[0], forward, rtol=1e-12)
    biased = (0.9 * math.log(1.8) ** 2 + 0.1 * math.log(0.2) ** 2) / 2
    assert_allclose(enumerated(k2, logits, ref_logits)[0], biased, rtol=1e-12)
    assert abs(biased - forward) > 0.05


@given(floats((5,)), floats((5,)))
def test_k3_is_never_negative_and_swaps_sign_where_k1_does(log_probs, ref_log_probs):
    p, q = torch.tensor(log_probs), torch.tensor(ref_log_probs)
    assert (k3(p, q) >= 0).all() and (k2(p, q) >= 0).all()
    assert torch.equal(k1(p, q), -k1(q, p))


def test_k3_keeps_its_digits_when_the_two_are_close():
    """At distance 1e-6 the value is 5e-13; exp(-d) - 1 + d would keep four of its digits."""
    d = torch.tensor([1e-6, -1e-6], dtype=torch.float64)
    expected = d**2 / 2 - d**3 / 6
    assert_allclose(k3(d, torch.zeros_like(d)), expected, rtol=1e-8)


def test_exact_kl_with_forbidden_tokens():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    reference_too = torch.tensor([[1.0, 0.0, -torch.inf]], dtype=torch.float64)
    only_two = exact_kl(logits[:, :2], reference_too[:, :2])
    kl = exact_kl(logits, reference_too)
    assert_allclose(kl.item(), only_two.item(), rtol=1e-12)
    kl.sum().backward()
    assert logits.grad.isfinite().all()
    allowed = torch.zeros(1, 3, dtype=torch.float64)
    assert exact_kl(logits.detach(), allowed).isfinite().all()
    assert exact_kl(allowed, logits.detach()).item() == math.inf


def test_log_probs_scored_by_themselves_have_no_kl():
    log_probs = log_probs_of(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    for estimate in (k1, k2, k3):
        assert torch.equal(estimate(log_probs, log_probs), torch.zeros(3, 4))


@given(st.floats(0, 1), st.floats(-1, 50), st.floats(0.1, 20), st.integers(0, 64))
def test_the_adaptive_coefficient_equals_the_definition(kl_coef, kl, target, episodes):
    ours = next_kl_coef(kl_coef, kl, target, 1000.0, episodes)
    assert_allclose(ours, reference.next_kl_coef(kl_coef, kl, target, 1000.0, episodes), rtol=1e-12)


@pytest.mark.parametrize(("kl", "error"), [(60.0, 0.2), (6.6, 0.1), (6.0, 0.0), (5.4, -0.1), (0.0, -0.2), (-3.0, -0.2)])
def test_the_adaptive_coefficient_in_closed_form(kl, error):
    """A KL that stays put multiplies the coefficient by 1 + error * episodes / horizon each time."""
    coefficient = 0.2
    for _ in range(20):
        coefficient = next_kl_coef(coefficient, kl, target=6.0, horizon=10000, episodes=512)
    assert_allclose(coefficient, 0.2 * (1 + error * 512 / 10000) ** 20, rtol=1e-10)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        k1(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="differ in shape"):
        exact_kl(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="nan"):
        next_kl_coef(0.1, math.nan, 6.0, 1000, 4)
    for arguments in (
        (0.1, 1.0, 0.0, 1000, 4),
        (0.1, 1.0, 6.0, 0, 4),
        (-0.1, 1.0, 6.0, 1000, 4),
        (0.1, 1.0, 6.0, 3, 4),
    ):
        with pytest.raises(ValueError, match="expected target"):
            next_kl_coef(*arguments)
    assert np.isfinite(next_kl_coef(0.0, 1.0, 6.0, 1000, 4))
