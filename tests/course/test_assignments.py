"""The assignments' files: they fit together, the bank behind them is the project's, and the README names all."""

import dataclasses
import re

import pytest

from minirlhf.course import assignment as module
from minirlhf.course.assignment import Mistake, assignment_names, load_assignment, problems_of, read_assignment
from minirlhf.course.handout import readme
from minirlhf.course.mistakes import bank, planted
from minirlhf.errors import UserError
from tests.course.submissions import A03
from tests.mutants.bank import read_bank


@pytest.mark.parametrize("name", assignment_names())
def test_each_reads_and_fits_together(name):
    assignment = load_assignment(name)
    assert sum(test.points for test in assignment.tests) == assignment.total
    assert len({test.public for test in assignment.tests}) == 2
    for mistake in assignment.mistakes:
        test = next(test for test in assignment.tests if test.name == mistake.test)
        assert planted(mistake.name).module == assignment.exercise(test.exercise).module


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"total": 99}, "the points of the tests sum to 100, total is 99"),
        ({"mistakes": (Mistake("x", "no such test", ""),)}, "mistake x names test no such test"),
        ({"tests": (*A03.tests, A03.tests[0])}, "stands twice"),
        ({"exercises": A03.exercises[1:]}, "names exercise 3.1, which is not there"),
        ({"exercises": (dataclasses.replace(A03.exercises[0], blank="nn.rope:turn"),)}, "nn.rope:turn names nothing"),
        ({"exercises": (dataclasses.replace(A03.exercises[0], blank="turn"),)}, "is not module:function"),
    ],
)
def test_what_does_not_fit_is_said(change, said):
    assert any(said in problem for problem in problems_of(dataclasses.replace(A03, **change)))


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "a99_nothing.toml"
    for text in ("title = ", 'title = "x"\ncolour = "red"\nexercises = []\ntests = []\n'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"a99_nothing\.toml"):
            read_assignment(path)
    with pytest.raises(UserError, match="there is no such assignment"):
        load_assignment("a98")


def test_the_bank_is_the_projects():
    """Two readers of one format, one for the gate and one that travels in the wheel."""
    theirs = {mutant.name: (mutant.file, mutant.before, mutant.after) for mutant in read_bank()}
    assert {name: (each.file, each.before, each.after) for name, each in bank().items()} == theirs


def test_the_wheel_carries_what_the_course_reads():
    import tomllib

    root = module.course_folder("assignments").parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for name in ("assignments", "bank"):
        source = next(path for path, place in packed.items() if place == f"minirlhf/shipped_course/{name}")
        assert (root / source) == module.course_folder(name)


def test_the_readme_tells_every_rule():
    text = readme(A03)
    for test in A03.tests:
        assert f"| {test.exercise} | {test.name} | {test.points:g} | {'public' if test.public else 'hidden'} |" in text
    assert all(name in text for name in A03.banned)
    assert "Every test gives all of its points or none." in text
    assert re.search(r"Public tests: 70 points; with the hidden ones: 100\.", text) or "Public tests: " in text
