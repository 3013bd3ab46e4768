"""What a call can take and give: NumPy as well as torch, texts, dicts, generators, arrays changed in place."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from minirlhf.course.feedback import called, compare
from minirlhf.course.jobs import Case, Job, WrongResult, call, pack_cases, pack_results, unpack_cases, unpack_results
from minirlhf.course.results import flatten
from minirlhf.course.runner import Runner, needed
from tests.course.submissions import A03


class Module:
    """Stands for a module under test."""

    @staticmethod
    def whole(x, pair, numbers, table, text, generator):
        assert isinstance(pair, tuple) and isinstance(numbers, list)
        return {"sum": x.sum() + sum(numbers), "table": table, "text": text, "pair": pair, "draw": generator.random(2)}

    @staticmethod
    def in_place(x):
        x *= 2


TABLE = {"items": [[[{"value": 1}, {"value": 2}], {"value": 3}]]}
ARGUMENTS = ["x", ["x", {"value": 1}], {"list": [{"value": 2}]}, TABLE, {"bytes": "é\x00"}, {"generator": 7}]


def test_everything_travels_and_comes_back():
    case = Case(Job("whole", ARGUMENTS, numpy=True), {"x": np.arange(3.0)})
    (arrived,) = unpack_cases(*pack_cases([case]))
    found = call(Module, arrived)
    back = unpack_results(pack_results({0: found}))[0]
    assert compare(back, found) is None
    assert back["out['sum']"] == 5 and back["out['table'][(1, 2)]"] == 3
    assert back["out['text'] (bytes)"].tobytes() == "é\0".encode("latin-1")
    assert back["out['draw']"].tolist() == np.random.default_rng(7).random(2).tolist()
    assert "generator seeded with 7" in called(case) and "{(1, 2): 3}" in called(case)


def test_what_works_in_place_returns_nothing():
    found = call(Module, Case(Job("in_place", ["x"], changed=["x"]), {"x": np.ones(2)}))
    assert {name: array.tolist() for name, array in found.items()} == {"x afterwards": [2, 2]}
    with pytest.raises(WrongResult, match="returned NoneType"):
        call(Module, Case(Job("in_place", ["x"]), {"x": np.ones(2)}))


def test_a_number_keeps_having_no_axis():
    (case,) = unpack_cases(*pack_cases([Case(Job("f", ["x"]), {"x": np.array(2.0)})]))
    assert case.arrays["x"].shape == ()


@dataclass
class Pair:
    left: int
    right: None = None


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (1.5, ["out"]),
        ([1, 2], ["out"]),
        ([], ["length of out"]),
        (["a", [1]], ["length of out", "out 0 (text)", "out 1"]),
        ({3, 1}, ["out"]),
        (Pair(1), ["out.left", "out.right (None)"]),
        ((torch.ones(1), None), ["length of out", "out 0", "out 1 (None)"]),
    ],
)
def test_results_have_names(value, names):
    found = {}
    assert flatten(found, "out", value)
    assert list(found) == names


@pytest.mark.parametrize("value", [object(), [object()], {"x": object()}, 10**30, np.array(["a"]), 1j])
def test_what_nobody_can_compare_is_refused(value):
    assert not flatten({}, "out", value)


def test_differences_of_texts_counts_and_kinds_are_told():
    def of(value):
        found = {}
        flatten(found, "out", value)
        return found

    for got, right, says in (
        ("ab", "abc", "got 'ab', expected 'abc'"),
        (b"a", "a", "nothing came back"),
        (1.23456789, 1.23456788, "got 1.23456789, expected 1.23456788"),
        ([1, 2], [1, 3], "out[1]: got 2, expected 3"),
        ([1], [1, 3], "got shape [1], expected [2]"),
        ({"a": 1, "b": 2}, {"a": 1}, "length of out: got 2, expected 1"),
        ([1.0, 2.0], [1, 2], "got float64, expected int64"),
        (True, 1.0, "got bool"),
        (np.float32(1), 1.0, "got float32"),
    ):
        difference = compare(of(got), of(right))
        assert difference is not None and says in difference.says, (got, right)
    assert compare(of(1), of(1.0)) is None
    assert compare(of(1) | {"more": np.ones(1)}, of(1)) is not None


def test_a_file_of_the_numpy_reference_can_be_the_students():
    """Its own imports are readable, the answers beside it are not."""
    assert needed("reference.ppo") == ["reference/__init__.py"]
    assert "reference/softmax.py" in needed("reference.cross_entropy")
    case = Case(Job("cross_entropy", ["logits", "targets", "mask"], numpy=True),
                {"logits": np.ones((2, 3)), "targets": np.array([0, 1]), "mask": np.array([True, True])})  # fmt: skip
    head = "from minirlhf.reference.softmax import log_softmax\n"
    good = head + "def cross_entropy(z, t, m):\n    return -float(log_softmax(z)[m, t[m]].mean())\n"
    peek = "def cross_entropy(z, t, m):\n    import minirlhf.reference.{}\n    return 0.0\n"
    with Runner() as runner:
        told = Case(Job("shape_rewards", play="a10_ppo.twist:gae"), {})
        outcome = runner.run(A03, "objectives.advantages", b"", [told])
        assert "a play must not import" in outcome.printed and not outcome.results
        outcome = runner.run(A03, "reference.cross_entropy", good.encode(), [case])
        assert outcome.error == "" and abs(outcome.results[0]["out"] - np.log(3)) < 1e-12
        for other in ("dpo", "fused_attention"):
            outcome = runner.run(A03, "reference.cross_entropy", peek.format(other).encode(), [case])
            assert outcome.error == "PermissionError", other
