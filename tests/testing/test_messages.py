"""Inputs as code, and numbers that can be told apart."""

import ast
import math

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirlhf.testing import floats, proved, shapes
from minirlhf.testing.arguments import argument_names, name_of
from minirlhf.testing.messages import as_code, assignments, element, failure, readable, worst_difference


def read_back(code):
    """The array that `np.array(LIST)` or `np.full(SHAPE, NUMBER)` makes, without running it."""
    call = ast.parse(code, mode="eval").body
    made = {"array": np.array, "full": np.full, "zeros": np.zeros}[call.func.attr]
    numbers = {"nan": math.nan, "inf": math.inf}

    def value(node):
        if isinstance(node, ast.List):
            return [value(part) for part in node.elts]
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        return numbers[node.attr] if isinstance(node, ast.Attribute) else ast.literal_eval(node)

    return made(*map(value, call.args), **{k.arg: getattr(np, k.value.attr) for k in call.keywords})


@proved(shapes(max_dims=3, max_side=3).flatmap(lambda shape: st.one_of(
    floats(shape, 1e300), hnp.arrays(np.float32, shape), hnp.arrays(np.float64, shape), hnp.arrays(np.int64, shape),
    hnp.arrays(np.bool_, shape), hnp.arrays(np.int8, shape),
)))  # fmt: skip
def test_pasted_code_makes_the_array_again_bit_for_bit(array):
    again = read_back(as_code(array))
    assert again.dtype == array.dtype and again.shape == array.shape
    assert np.array_equal(again, array, equal_nan=array.dtype.kind == "f")
    if array.dtype.kind == "f":
        real = ~np.isnan(array)
        assert (np.signbit(again)[real] == np.signbit(array)[real]).all()
    (line,) = ast.parse("\n".join(assignments({"x": array}))).body
    assert np.array_equal(read_back(ast.unparse(line.value)), array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (np.zeros((9, 9)), "np.full((9, 9), 0.0)"),
        (np.array([0.0] * 8 + [-0.0]), "np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.0])"),
        (np.zeros((0, 3), dtype=bool), "np.zeros((0, 3), dtype=np.bool_)"),
        (np.array(0.1), "np.array(0.1)"),
        (np.float64(0.5), "0.5"),
        (math.inf, "np.inf"),
        ((1, None, "a"), "(1, None, 'a')"),
        ([True], "[True]"),
        ((np.array([1]),), "(np.array([1]),)"),
        (object(), "...  # of type object"),
        (np.arange(300.0), "...  # float64 (300,), too many numbers to print: 0.0, 1.0, 2.0, ..."),
    ],
    ids=[
        "zeros",
        "a_negative_zero",
        "empty",
        "number",
        "scalar",
        "infinity",
        "tuple",
        "list",
        "array_in_tuple",
        "object",
        "long",
    ],
)
def test_as_code(value, code):
    assert as_code(value) == code


def test_long_lines_are_wrapped_where_python_allows():
    lines = assignments({"x": np.linspace(-1, 1, 100).reshape(10, 10)})
    assert len(lines) > 9 and max(map(len, lines)) <= 100 and all("], [" not in line for line in lines)
    ast.parse("\n".join(lines))


def test_numbers_are_long_enough_to_be_told_apart():
    assert readable(0.5, -0.5) == ["0.5", "-0.5"]
    assert readable(1 / 3, 1 / 3 + 1e-9) == ["0.333333333", "0.333333334"]
    assert readable(math.nan, 1.0) == ["nan", "1"]
    assert element("x", ()) == "x" and element("x", (0, 2)) == "x[0, 2]"


def test_the_worst_difference():
    got, want = np.array([1.0, np.inf, 2.0, 5.0]), np.array([1.0, np.inf, 2.5, 5.1])
    assert worst_difference(got, want, 1e-10, 0.0) == (2, (2,))
    assert worst_difference(want, want, 0.0, 0.0) is None
    assert worst_difference(np.array([1.0, np.nan]), np.array([9.0, np.nan]), 0.0, 0.0) == (2, (1,))
    assert worst_difference(np.array([True, False]), np.array([True, True]), 0.0, 0.0) == (1, (1,))


def test_names():
    class Model:
        def __call__(self, x):
            return x

    def loss(x, /, y, *rest, z=1):
        return x

    assert argument_names(loss, 4) == ("x", "y", "rest_0", "rest_1")
    assert argument_names(lambda x: x, 2) == ("x", "argument_1")
    assert argument_names(Model(), 1) == ("x",)
    assert argument_names(max, 2) == ("argument_0", "argument_1")
    assert (name_of(loss), name_of(Model()), name_of(lambda: 0)) == ("loss", "Model", "the function")


def test_a_failure_lines_up():
    text = str(failure("f: wrong", {"got": "1", "expected": "-1"}, ["a note"], {"x": np.array([1.0])}))
    assert text == "f: wrong\n  got        1\n  expected  -1\n  a note\n  arguments:\n    x = np.array([1.0])"
