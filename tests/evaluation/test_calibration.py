"""The reward model's report: by hand on few pairs, and on simulated judges whose faults are known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.evaluation.calibration import _ranks, calibration_error, calibration_table, evaluate_preferences


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def simulated_pairs(seed, length_in_truth=0.0, length_in_model=0.0, n=3000):
    """Labels follow Bradley-Terry on quality + length_in_truth·length; the model scores with its own taste for length.

    Returns scores and lengths of chosen and rejected answers, [n] each.
    """
    generator = np.random.default_rng(seed)
    quality, length = generator.normal(0, 1, (2, n)), generator.integers(5, 60, (2, n))
    truth = quality + length_in_truth * length / 10
    first_wins = generator.random(n) < sigmoid(truth[0] - truth[1])
    scores = quality + length_in_model * length / 10
    order = np.where(first_wins, 0, 1)
    rows = np.arange(n)
    return scores[order, rows], scores[1 - order, rows], length[order, rows], length[1 - order, rows]


def test_four_pairs_by_hand():
    report = evaluate_preferences([2.0, 0.0, 1.0, -3.0], [0.0, 1.0, 1.0, -3.5], [5, 5, 9, 2], [3, 8, 9, 4], bins=2)
    assert report.accuracy.mean == (1 + 0 + 0.5 + 1) / 4
    margins = [2.0, -1.0, 0.0, 0.5]
    assert_allclose(report.loss_nats_per_pair, np.mean([-math.log(sigmoid(m)) for m in margins]), rtol=1e-12)
    low, high = report.calibration  # confidences 0.88, 0.73, 0.5, 0.62: two bins, cut at 0.75
    assert (low.count, high.count) == (3, 1)
    assert_allclose(low.predicted, (sigmoid(1.0) + 0.5 + sigmoid(0.5)) / 3, rtol=1e-12)
    assert_allclose(low.observed, (0 + 0.5 + 1) / 3, rtol=1e-12)
    assert_allclose(high.predicted, sigmoid(2.0), rtol=1e-12)
    expected = (3 * abs(low.observed - low.predicted) + abs(high.observed - high.predicted)) / 4
    assert_allclose(report.calibration_error, expected, rtol=1e-12)
    assert report.length.pairs == 3  # the third pair has answers of one length
    assert_allclose(report.length.labels_prefer_longer.mean, 1 / 3, rtol=1e-12)
    longer = (sigmoid(2.0) + sigmoid(1.0) + sigmoid(-0.5)) / 3  # the second and fourth: the rejected one is longer
    assert_allclose(report.length.model_prefers_longer, longer, rtol=1e-12)
    assert_allclose(report.length.excess.mean, longer - 1 / 3, rtol=1e-12)
    assert sum(report.margin_counts) == 4


@given(margins=st.lists(st.floats(-800, 800), min_size=1, max_size=40), bins=st.integers(1, 12))
def test_the_table_loses_no_pair_and_survives_huge_margins(margins, bins):
    table = calibration_table(np.array(margins), bins)
    assert sum(row.count for row in table) == len(margins)
    for row in table:
        assert row.low - 1e-12 <= row.predicted <= row.high + 1e-12 and 0 <= row.observed <= 1
    assert 0 <= calibration_error(table) <= 1


def test_a_calibrated_judge_has_no_error_and_an_overconfident_one_has():
    chosen, rejected, *_ = simulated_pairs(1)
    assert evaluate_preferences(chosen, rejected).calibration_error < 0.03  # noise: sqrt(.25/600) is 0.02 a bin
    overconfident = evaluate_preferences(5 * chosen, 5 * rejected)
    assert overconfident.calibration_error > 0.15
    assert all(row.observed < row.predicted for row in overconfident.calibration[-2:])


@pytest.mark.parametrize("seed", range(5))
def test_the_length_alarm_fires_on_a_planted_bias_only(seed):
    biased = evaluate_preferences(*simulated_pairs(seed, length_in_model=1.0)).length
    assert biased.length_bias and biased.spearman > 0.5 and abs(biased.label_correlation) < 0.1
    clean = evaluate_preferences(*simulated_pairs(seed)).length
    assert not clean.length_bias
    # where longer truly is better, a model that says so is right
    deserved = evaluate_preferences(*simulated_pairs(seed, length_in_truth=1.0, length_in_model=1.0)).length
    assert not deserved.length_bias and deserved.label_correlation > 0.3 and deserved.spearman > 0.5
    shy = evaluate_preferences(*simulated_pairs(seed, length_in_truth=1.0)).length
    assert not shy.length_bias and shy.excess.mean < 0


def test_swapping_chosen_and_rejected_mirrors_everything():
    a, b, long_a, long_b = simulated_pairs(7, length_in_model=0.5, n=200)
    there, back = evaluate_preferences(a, b, long_a, long_b), evaluate_preferences(b, a, long_b, long_a)
    assert_allclose(there.accuracy.mean + back.accuracy.mean, 1, rtol=1e-12)
    assert_allclose(there.length.spearman, back.length.spearman, rtol=1e-12)
    assert_allclose(there.length.label_correlation, -back.length.label_correlation, rtol=1e-12)


@given(values=st.lists(st.integers(-4, 4), min_size=1, max_size=15))
def test_ranks_share_their_mean_among_equals(values):
    expected = [sum(x < y for x in values) + (sum(x == y for x in values) - 1) / 2 for y in values]
    assert_allclose(_ranks(np.array(values)), expected, rtol=1e-12)


def test_what_has_no_answer_is_refused_or_left_out():
    for chosen, rejected in (([], []), ([math.nan], [0.0]), ([[1.0]], [[0.0]])):
        with pytest.raises(ValueError):
            evaluate_preferences(chosen, rejected)
    same_length = evaluate_preferences([1.0, 2.0], [0.0, 3.0], [4, 4], [4, 4]).length
    assert same_length.excess is None and not same_length.length_bias and same_length.spearman == 0
    assert evaluate_preferences([1.0], [0.0]).length is None
