"""What holds for every assignment: the solution gets everything, the skeleton nothing, and a mistake is named."""

import hashlib
import time

import numpy as np
import pytest

from minirlhf.course.assignment import TWIST, assignment_names, load_assignment
from minirlhf.course.feedback import compare
from minirlhf.course.grading import draw, expected_of, grade, judge
from minirlhf.course.jobs import call
from minirlhf.course.kit import draw_twist, twist_of
from minirlhf.course.mistakes import mistaken, planted
from minirlhf.course.runner import Outcome, Runner
from tests.course.submissions import SECRET, answers_of, skeleton, solution, twisted, variants_of, write

ALL = [load_assignment(name) for name in assignment_names()]
TWISTED = [each for each in ALL if each.twist]


@pytest.fixture(scope="module")
def runner():
    with Runner() as started:
        yield started


def rows(*columns):
    """Parameters with an id of the assignment and what comes first after it."""
    return [pytest.param(*row, id="-".join([row[0].name, *map(str, row[1:2])])) for row in columns]


@pytest.mark.parametrize(("assignment", "variant"), rows(*((each, name) for each in ALL for name in variants_of(each))))
def test_the_solution_gets_every_point(runner, tmp_path, assignment, variant):
    twist = variants_of(assignment)[variant]
    folder = write(tmp_path, solution(twist, assignment))
    whole = grade(assignment, folder, "somebody", twist, runner, SECRET)
    assert whole.problems == ()
    assert [(each.test.name, each.says) for each in whole.results if not each.passed] == []
    assert whole.earned() == whole.possible() == assignment.total


@pytest.mark.parametrize("assignment", ALL, ids=lambda each: each.name)
def test_the_skeleton_gets_nothing_and_says_what_is_to_be_written(runner, tmp_path, assignment):
    twist = draw_twist(SECRET, "somebody", assignment)
    whole = grade(assignment, write(tmp_path, skeleton(twist, assignment)), "somebody", twist, runner, SECRET)
    assert whole.earned() == 0
    assert whole.problems == ()
    for each in whole.results:
        if each.test.public:
            assert f"not written yet: {assignment.exercise(each.test.exercise).message}" in each.says


@pytest.mark.parametrize("assignment", ALL, ids=lambda each: each.name)
def test_the_public_tests_take_less_than_a_minute(tmp_path, assignment):
    twist = next(iter(variants_of(assignment).values()))
    folder = write(tmp_path, solution(twist, assignment))
    start = time.monotonic()
    with Runner() as fresh:
        grade(assignment, folder, "somebody", twist, fresh, public_only=True)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("assignment", "mistake"), [pytest.param(a, m, id=f"{a.name}-{m.name}") for a in ALL for m in a.mistakes]
)
def test_each_planted_mistake_loses_its_test_and_is_named(assignment, mistake):
    """In this process, by the bank's modules; test_grading sends one through the whole machine."""
    test = next(each for each in assignment.tests if each.name == mistake.test)
    exercise = assignment.exercise(test.exercise)
    assert planted(mistake.name).module == exercise.module
    cases = draw(assignment, test, b"")
    results, error = {}, {}
    for i, case in enumerate(cases):
        try:
            results[i] = call(mistaken(mistake.name), case)
        except Exception as raised:
            error = {"error": type(raised).__name__, "message": str(raised)[:500]}
            break
    outcome = Outcome("ended", results, sha256="same", **error)
    result = judge(assignment, test, exercise, cases, outcome, {}, "same")
    assert not result.passed
    if test.public:
        assert f"it looks as if {mistake.says}" in result.says
    else:
        assert result.says == (f"hint: {test.hint}",)


@pytest.mark.parametrize("assignment", ALL, ids=lambda each: each.name)
def test_every_exercise_of_the_library_has_a_mistake_of_the_bank(assignment):
    met = {next(test.exercise for test in assignment.tests if test.name == each.test) for each in assignment.mistakes}
    assert {each.number for each in assignment.exercises if each.module != TWIST} <= met


@pytest.mark.parametrize(
    ("assignment", "place", "row"),
    rows(*((each, i, row) for each in TWISTED for i, row in enumerate(answers_of(each).WRONG))),
)
def test_mistakes_in_a_twist_lose_and_are_named(runner, assignment, place, row):
    variant, before, after, says = row
    twist = variants_of(assignment)[variant]
    whole = twisted(assignment, twist)
    assert before in whole
    source = whole.replace(before, after).encode()
    failed = []
    for test in assignment.tests:
        exercise = assignment.exercise(test.exercise)
        if exercise.module == TWIST and test.public:
            cases = draw(assignment, test, b"")
            outcome = runner.run(assignment, TWIST, source, cases)
            result = judge(assignment, test, exercise, cases, outcome, twist, hashlib.sha256(source).hexdigest())
            failed += [] if result.passed else [result.says[0]]
    assert bool(failed) == bool(says)
    assert not says or f"it looks as if {says}" in failed


@pytest.mark.parametrize("assignment", TWISTED, ids=lambda each: each.name)
def test_twists_are_many_and_their_words_name_every_number(assignment):
    kit = twist_of(assignment)
    drawn = [draw_twist(SECRET, f"student {i}", assignment) for i in range(300)]
    assert drawn[0] == draw_twist(SECRET, "student 0", assignment)
    assert len({str(each) for each in drawn}) > 200, "two students in a room hardly ever get the same"
    assert set().union(*drawn) == set(kit.NAMES)
    for twist in (*drawn[:10], *variants_of(assignment).values()):
        assert all(f"{value:g}" in " ".join(kit.words(twist)) for value in twist.values())


@pytest.mark.parametrize("assignment", ALL, ids=lambda each: each.name)
def test_no_tolerance_forgives_zeros_or_half_a_percent(assignment):
    """In every test some case tells the right numbers from zeros, and from numbers half a percent too large."""
    twist = next(iter(variants_of(assignment).values()))
    for test in assignment.tests:
        exercise = assignment.exercise(test.exercise)
        noticed = {"zeros": False, "too large": False}
        for case in draw(assignment, test, SECRET):
            with np.errstate(all="ignore"):
                right = expected_of(assignment, exercise, case, twist)
            zeros = {name: np.zeros_like(array) for name, array in right.items()}
            larger = {name: array * 1.005 if array.dtype.kind == "f" else array for name, array in right.items()}
            noticed["zeros"] |= compare(zeros, right) is not None
            noticed["too large"] |= compare(larger, right) is not None
            noticed["too large"] |= not any(array.dtype.kind == "f" for array in right.values())
        assert noticed == {"zeros": True, "too large": True}, test.name


@pytest.mark.parametrize("assignment", ALL, ids=lambda each: each.name)
def test_public_cases_are_everybodys_and_hidden_ones_hang_on_the_secret(assignment):
    def shown(test, secret):
        cases = draw(assignment, test, secret)  # as text, in which NaN is NaN
        return [f"{case.job} { ({name: array.tolist() for name, array in case.arrays.items()}) }" for case in cases]

    for test in assignment.tests:
        mine = shown(test, SECRET)
        assert mine == shown(test, SECRET)
        assert (mine == shown(test, b"another secret, as long")) == test.public, test.name
