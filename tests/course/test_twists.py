"""The twist of a03: its formula is plain attention where nothing is drawn, and its gradients are those one measures."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from minirlhf.course.assignments.a03_attention import cases as attention_cases
from minirlhf.course.assignments.a03_attention import twist as twists
from minirlhf.course.kit import Twist, draw_twist
from minirlhf.reference.attention import eager_attend, eager_attend_grad
from minirlhf.testing.differences import measure_slope
from tests.course.submissions import A03, SECRET

ALL = Twist(cap=1.7, slope=0.3, sink=0.4)


def arrays(seed=0, mask="empty rows"):
    return attention_cases.twist(np.random.default_rng(seed), mask).arrays


def test_nothing_drawn_is_the_reference():
    given = arrays()
    found = twists.attend(Twist(), given)
    for row in range(len(given["q"])):
        q, k, v, visible, dout = (given[name][row] for name in ("q", "k", "v", "visible", "dout"))
        assert_allclose(found["out"][row], eager_attend(q, k, v, visible[0]), rtol=1e-12, atol=1e-13)
        grads = eager_attend_grad(q, k, v, visible[0], dout)
        for name, right in zip("qkv", grads, strict=True):
            assert_allclose(found[f"gradient of {name}"][row], right, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "twist", [ALL, Twist(cap=1.7, slope=0.3), Twist(cap=1.7, sink=0.4), Twist(slope=0.3, sink=0.4)]
)
def test_gradients_by_hand_are_those_one_measures(twist):
    given = arrays(1)
    found = twists.attend(twist, given)

    def loss():
        return float((twists.attend(twist, given)["out"] * given["dout"]).sum()), 1.0

    for name in "qkv":
        array = given[name]
        for place in np.ndindex(array.shape):
            here = array[place]

            def at(x, place=place, array=array):
                array[place] = x
                return loss()

            slope = measure_slope(at, here, loss()[0], 1e-3)
            array[place] = here
            error = abs(slope.value - found[f"gradient of {name}"][place])
            assert slope.smooth and error <= slope.tolerance + 1e-9, (name, place)


def test_each_change_does_what_its_words_say():
    match = np.array([[[[0.0, 5.0], [-5.0, 1.0]]]])
    capped, _ = twists.soft_cap(match, 2.0)
    assert abs(capped).max() < 2.0 and capped[0, 0, 0, 0] == 0.0
    assert_allclose(capped[0, 0, 1, 1], 2 * np.tanh(0.5))
    bias = twists.distance_bias(0.5, (1, 2, 2, 3))  # the two tokens that ask are tokens 1 and 2
    assert bias.tolist() == [[[-0.5, 0, -0.5], [-1, -0.5, 0]], [[-0.25, 0, -0.25], [-0.5, -0.25, 0]]]
    weights = twists.sink_softmax(np.zeros((1, 1, 1, 3)), 0.0)
    assert_allclose(weights, 0.25)
    assert_allclose(twists.sink_softmax(np.full((1, 1, 1, 2), 1e4), 0.0), 0.5)  # nothing overflows
    assert (twists.sink_softmax(np.full((1, 1, 1, 3), -np.inf), 0.0) == 0).all()


def test_the_secret_the_student_and_the_assignment_decide():
    drawn = draw_twist(SECRET, "alice", A03)
    assert drawn == draw_twist(SECRET, "alice", A03)
    assert {tuple(draw_twist(SECRET, f"student {i}", A03)) for i in range(99)} == set(twists.PAIRS)
    assert draw_twist(SECRET, " Alice", A03) == drawn, "addresses are written in more than one way"
    assert draw_twist(b"another secret", "alice", A03) != drawn
    assert draw_twist(SECRET, "alice", replace(A03, name="a10")) != drawn
    assert draw_twist(SECRET, "ab", replace(A03, name="c")) != draw_twist(SECRET, "a", replace(A03, name="bc"))
