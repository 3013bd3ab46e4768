"""Grading one submission: every test in a child of its own, compared here, with what to say about each.

A test is worth its points or nothing. Expected values are reckoned after the child has ended.
"""

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minirlhf import __version__
from minirlhf.course.assignment import TWIST, Assignment, CourseTest, Exercise, file_name
from minirlhf.course.feedback import called, compare, same
from minirlhf.course.jobs import Arrays, Case, call
from minirlhf.course.kit import Twist, draw, skeleton_of, twist_of
from minirlhf.course.mistakes import library, mistaken, planted
from minirlhf.course.runner import Outcome, Runner
from minirlhf.course.shortcuts import LARGEST, shortcuts


@dataclass(frozen=True)
class Result:
    """One test: what it was worth, and what there is to say, the most important first."""

    test: CourseTest
    passed: bool
    says: tuple[str, ...] = ()

    @property
    def earned(self) -> float:
        return self.test.points if self.passed else 0.0


@dataclass(frozen=True)
class Graded:
    """A submission's results. problems: why everything counts 0, if it does; notes: what whoever grades should know.

    sha256: of each file that was graded.
    """

    student: str
    assignment: Assignment
    twist: Twist
    results: tuple[Result, ...]
    problems: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__
    notes: tuple[str, ...] = ()

    def earned(self, public_only: bool = False) -> float:
        return sum(each.earned for each in self.results if each.test.public or not public_only)

    def possible(self, public_only: bool = False) -> float:
        return sum(each.test.points for each in self.results if each.test.public or not public_only)


def grade(
    assignment: Assignment,
    folder: Path,
    student: str,
    twist: Twist,
    runner: Runner,
    secret: bytes = b"",
    public_only: bool = False,
) -> Graded:
    """Grades the files of a folder. Never raises for what they hold."""
    sources, missing = read_files(assignment, folder)
    problems: list[str] = []
    for module, source in sources.items():
        problems += shortcuts(assignment, module, source, skeleton_of(assignment, module, twist))
    tests = [test for test in assignment.tests if test.public or not public_only]
    hashes = {file_name(module): hashlib.sha256(source).hexdigest() for module, source in sources.items()}
    if problems:
        results = [Result(test, False, ("not run: see above",)) for test in tests]
        return Graded(student, assignment, twist, tuple(results), tuple(problems), hashes)
    broken, notes = dict(missing), list(missing.values())
    for module, source in sources.items():
        outcome = runner.run(assignment, module, source, [])
        if not outcome.imported or outcome.status != "ended":
            why = "; ".join(trouble(outcome, assignment, module))
            broken[module] = f"the file cannot be imported: {why}"
            notes.append(f"{file_name(module)} cannot be imported: {why}")
    results = []
    for test in tests:
        exercise = assignment.exercise(test.exercise)
        if exercise.module in broken:
            results.append(Result(test, False, (broken[exercise.module],)))
            continue
        cases = draw(assignment, test, secret)
        outcome = runner.run(assignment, exercise.module, sources[exercise.module], cases)
        results.append(judge(assignment, test, exercise, cases, outcome, twist, hashes[file_name(exercise.module)]))
    lost = any(not each.passed and assignment.exercise(each.test.exercise).module == TWIST for each in results)
    if lost and TWIST in sources and begins_otherwise(sources[TWIST], skeleton_of(assignment, TWIST, twist)):
        notes.append(f"the first lines of twist.py are not those drawn for {student}: another student's file, "
                     "another secret, or a name written differently than when it was handed out?")  # fmt: skip
    return Graded(student, assignment, twist, tuple(results), (), hashes, notes=tuple(notes))


def begins_otherwise(source: bytes, skeleton: str) -> bool:
    """Is the file's docstring, which names the drawn numbers, another one than the skeleton's? Layout aside."""
    try:
        mine, given = (ast.get_docstring(ast.parse(each)) or "" for each in (source, skeleton))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(mine) and mine.split() != given.split()


def read_files(assignment: Assignment, folder: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """(module -> its bytes, module -> why it cannot be read). One folder deeper will do; links are not followed."""
    places = [folder, *(sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
                        if folder.is_dir() else [])]  # fmt: skip
    sources, missing = {}, {}
    for module in assignment.modules:
        name = file_name(module)
        found = [place / name for place in places if (place / name).is_file() or (place / name).is_symlink()]
        if not found:
            missing[module] = f"{name} is missing"
        elif found[0].is_symlink():
            missing[module] = f"{name} is a link, not a file"
        else:
            try:
                with open(found[0], "rb") as file:
                    sources[module] = file.read(LARGEST + 1)
            except OSError as error:
                missing[module] = f"{name} cannot be read: {error.strerror}"
    return sources, missing


def expected_of(assignment: Assignment, exercise: Exercise, case: Case, twist: Twist) -> Arrays:
    """What is right: the library's own results, or the twist's formula."""
    if exercise.module == TWIST:
        return twist_of(assignment).expected(twist, case)
    return call(library(exercise.module), case)


def judge(
    assignment: Assignment,
    test: CourseTest,
    exercise: Exercise,
    cases: Sequence[Case],
    outcome: Outcome,
    twist: Twist,
    sha256: str,
) -> Result:
    """Compares case by case and stops at the first that differs. Hidden tests say their hint and no more."""
    with np.errstate(all="ignore"):
        for i, case in enumerate(cases):
            if i not in outcome.results:
                if is_blank(outcome, assignment):  # nothing to look at, and no hint before anything was tried
                    says = trouble(outcome, assignment, exercise.module)
                    return Result(test, False, tuple(says)) if test.public else _failed(test, says)
                says = [
                    f"in case {i + 1} of {len(cases)}: {called(case)}",
                    *trouble(outcome, assignment, exercise.module),
                ]
                says += explain_error(assignment, test, exercise, case, outcome)
                return _failed(test, says)
            expected = expected_of(assignment, exercise, case, twist)
            difference = compare(outcome.results[i], expected)
            if difference is not None:
                likely = looks_as_if(assignment, exercise, case, outcome.results[i], expected, twist)
                says = [f"it looks as if {likely}"] if likely else []
                says += [f"in case {i + 1} of {len(cases)}: {called(case)}", difference.says, *printed(outcome)]
                return _failed(test, says)
    if outcome.sha256 != sha256 or outcome.status != "ended":
        return _failed(test, trouble(outcome, assignment, exercise.module))
    return Result(test, True)


def _failed(test: CourseTest, says: Sequence[str]) -> Result:
    return Result(test, False, (*says, f"hint: {test.hint}") if test.public else (f"hint: {test.hint}",))


def is_blank(outcome: Outcome, assignment: Assignment) -> bool:
    """Did it end where an exercise is still to be written, this one or one that it calls?"""
    return outcome.error == "NotImplementedError" and outcome.message in {each.message for each in assignment.exercises}


def printed(outcome: Outcome) -> list[str]:
    said = outcome.printed.strip()
    return [f"it printed: {said[:300]}"] if said else []


def trouble(outcome: Outcome, assignment: Assignment, module: str) -> list[str]:
    """Why nothing came back, and what was printed meanwhile."""
    limits = assignment.limits
    place = f"({file_name(module)}, line {outcome.line})"
    where = f" {place}" if outcome.line and place not in outcome.message else ""  # a SyntaxError says it itself
    absent = re.fullmatch(r"module '[\w.]+' has no attribute '(\w+)'", outcome.message) if not outcome.line else None
    if outcome.forbidden:
        says = [f"it was stopped, because the code {outcome.forbidden}"]
    elif outcome.status == "timeout":
        says = [f"no answer within {limits.seconds:g} seconds"]
    elif outcome.error == "NotImplementedError":
        says = [f"not written yet: {outcome.message}"]
    elif absent:
        says = [f"{file_name(module)} has no {absent[1]}: was it renamed or taken out?"]
    elif outcome.error == "SystemExit":
        says = [f"the code ended the program instead of returning{where}"]
    elif outcome.error == "MemoryError" or "allocate memory" in outcome.message:
        says = [f"more than {limits.memory_mib} MiB of memory were asked for{where}"]
    elif outcome.error:
        says = [f"{outcome.error}: {outcome.message}{where}"]
    else:
        says = [f"the process ended without a result ({outcome.status})"]
    return [*says, *printed(outcome)]


def explain_error(
    assignment: Assignment, test: CourseTest, exercise: Exercise, case: Case, outcome: Outcome
) -> list[str]:
    """A planted mistake that fails with the same exception on the same case, in words."""
    if not outcome.error or exercise.module == TWIST:
        return []
    for mistake in assignment.mistakes:
        if mistake.test == test.name and planted(mistake.name).module == exercise.module:
            try:
                call(mistaken(mistake.name), case)
            except Exception as error:
                if type(error).__name__ == outcome.error and str(error)[:500] == outcome.message:
                    return [f"it looks as if {mistake.says}"]
    return []


def looks_as_if(
    assignment: Assignment, exercise: Exercise, case: Case, got: Arrays, expected: Arrays, twist: Twist
) -> str:
    """The planted mistake that gives exactly this wrong result, in words; "" if none does."""
    if exercise.module == TWIST:
        mistakes = twist_of(assignment).mistaken(twist, case)
        return next((says for says, arrays in mistakes if same(got, arrays, expected)), "")
    for mistake in assignment.mistakes:
        if planted(mistake.name).module == exercise.module:
            try:
                wrong = call(mistaken(mistake.name), case)
            except Exception:  # a planted mistake need not survive every case
                continue
            if same(got, wrong, expected):
                return mistake.says
    return ""
