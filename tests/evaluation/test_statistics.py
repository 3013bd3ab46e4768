"""Intervals and win rates: against their definitions, by exact coverage, and by symmetry."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.evaluation.statistics import Z_95, mean_interval, paired_bootstrap, share, wilson_interval, win_rate

scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@given(n=st.integers(1, 500), data=st.data())
def test_the_ends_of_wilsons_interval_solve_its_equation(n, data):
    successes = data.draw(st.integers(0, 2 * n)) / 2
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    for end in (low, high):  # |share - p| = z sqrt(p(1-p)/n), the definition
        assert_allclose((successes / n - end) ** 2, Z_95**2 * end * (1 - end) / n, rtol=1e-7, atol=1e-12)


@given(n=st.integers(1, 200), data=st.data())
def test_wilsons_interval_is_symmetric_and_grows_with_the_successes(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson_interval(k, n)
    assert_allclose(wilson_interval(n - k, n), (1 - high, 1 - low), rtol=1e-9, atol=1e-12)
    if k < n:
        assert wilson_interval(k + 1, n) > (low, high)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.82, 0.97])
def test_wilsons_interval_covers_the_truth_about_95_times_in_100(p):
    n = 200
    covered = 0.0
    for k in range(n + 1):  # every outcome with its exact probability: no simulation, no luck
        low, high = wilson_interval(k, n)
        if low <= p <= high:
            covered += math.comb(n, k) * p**k * (1 - p) ** (n - k)
    assert 0.93 < covered < 0.97


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_mean_interval_is_mean_and_standard_error(values):
    estimate = mean_interval(values)
    half = Z_95 * statistics.stdev(values) / math.sqrt(len(values))
    assert_allclose(estimate.mean, statistics.fmean(values), rtol=1e-9, atol=1e-9)
    assert_allclose(estimate.interval_95, (estimate.mean - half, estimate.mean + half), rtol=1e-9, atol=1e-9)


@given(a=scores, data=st.data())
def test_what_one_side_wins_the_other_loses_and_ties_are_shared(a, data):
    b = data.draw(st.lists(st.integers(-3, 3).map(float), min_size=len(a), max_size=len(a)))
    by_hand = sum(1.0 if x > y else 0.5 if x == y else 0.0 for x, y in zip(a, b, strict=True)) / len(a)
    assert win_rate(a, b).mean == by_hand
    assert_allclose(win_rate(a, b).mean + win_rate(b, a).mean, 1.0, rtol=1e-12)
    assert win_rate(a, a).mean == 0.5


def test_paired_bootstrap_is_seeded_and_agrees_with_the_normal_interval():
    generator = np.random.default_rng(3)
    difficulty = generator.normal(0, 5, 400)  # shared by both answers, so it must cancel
    a, b = difficulty + 0.3 + generator.normal(0, 1, 400), difficulty + generator.normal(0, 1, 400)
    once, again, other = paired_bootstrap(a, b, 1), paired_bootstrap(a, b, 1), paired_bootstrap(a, b, 2)
    assert once == again and once.interval_95 != other.interval_95
    normal = mean_interval(a - b)
    assert_allclose(once.mean, normal.mean, rtol=1e-12)
    # 2000 draws know a 2.5 % quantile to about 0.06 standard errors: 8 % of the half width covers three times that
    assert_allclose(np.subtract(once.interval_95, once.mean), np.subtract(normal.interval_95, normal.mean), rtol=0.1)


def test_what_has_no_answer_is_refused():
    for call in (
        lambda: wilson_interval(1, 0),
        lambda: wilson_interval(3, 2),
        lambda: share(-1, 2),
        lambda: mean_interval([1.0]),
        lambda: mean_interval([1.0, math.nan]),
        lambda: win_rate([], []),
        lambda: win_rate([1.0], [1.0, 2.0]),
        lambda: win_rate([1.0], [math.inf]),
        lambda: paired_bootstrap([1.0], [2.0], 0, draws=0),
        lambda: mean_interval([[1.0, 2.0]]),
    ):
        with pytest.raises((ValueError, ZeroDivisionError)):
            call()
