"""The measured slope is within its tolerance of the true one, and a kink within reach is seen wherever it lies."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from minirlhf.testing import proved
from minirlhf.testing.differences import STEPS, five_points, measure_slope

CAP = 1e-4


@proved(
    st.sampled_from(
        [
            (math.sin, math.cos),
            (math.exp, math.exp),
            (lambda x: x**5 - 3 * x, lambda x: 5 * x**4 - 3),
            (lambda x: math.log(x * x + 1), lambda x: 2 * x / (x * x + 1)),
            (lambda x: math.tanh(20 * x), lambda x: 20 / math.cosh(20 * x) ** 2),
            (lambda x: math.sqrt(x * x + 1e-6), lambda x: x / math.sqrt(x * x + 1e-6)),
            (lambda x: 1e6 + math.cos(x), lambda x: -math.sin(x)),
        ]
    ),
    st.floats(-8, 8),
    share=5,
)
def test_the_true_slope_lies_within_the_tolerance_and_the_tolerance_is_small(case, x):
    function, derivative = case
    sizes = []

    def at(x):
        sizes.append(abs(function(x)))
        return function(x), sizes[-1]

    slope = measure_slope(at, x, function(x), CAP)
    assert slope.smooth
    assert abs(slope.value - derivative(x)) <= slope.tolerance
    assert slope.tolerance <= CAP * abs(slope.value) + 3e-7 * max(1.0, *sizes)


@pytest.mark.parametrize("reach", [*np.linspace(0, 1.95, 40).round(3).tolist(), 2 / 3])
@pytest.mark.parametrize("jump", [1.0, -1e-2])
def test_a_kink_within_reach_is_seen(reach, jump):
    """f = x with a bend of its slope at a distance of `reach` steps from 0, on either side."""
    h = STEPS[0]
    for kink in (reach * h, -reach * h):
        slope = five_points(lambda x, k=kink: (x + jump * max(x - k, 0), 0.0), 0.0, jump * max(-kink, 0), h, CAP)
        assert not slope.smooth


def test_beyond_its_reach_a_kink_does_no_harm_and_an_edge_is_no_smooth_place():
    h = STEPS[0]
    assert five_points(lambda x: (abs(x), 0.0), 2.1 * h, 2.1 * h, h, CAP).smooth
    assert measure_slope(lambda x: (abs(x), 0.0), 1e-5, 1e-5, CAP).value == pytest.approx(1, rel=1e-9)
    assert not five_points(lambda x: (math.inf if x > 1.5 * h else x, 0.0), 0.0, 0.0, h, CAP).smooth
    assert not five_points(lambda x: (math.nan if x < 0 else x, 0.0), 0.0, 0.0, h, CAP).smooth
