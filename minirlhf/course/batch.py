"""A folder of submissions: each graded on its own, its results written whatever happens, and one table of all."""

from collections.abc import Sequence
from pathlib import Path

from minirlhf.course.assignment import Assignment
from minirlhf.course.grading import Graded, Result, grade
from minirlhf.course.handout import PRACTICE
from minirlhf.course.kit import draw_twist
from minirlhf.course.reports import as_json, junit, markdown, table, write
from minirlhf.course.runner import Runner
from minirlhf.errors import UserError


def submissions_of(folder: Path) -> list[Path]:
    """The folders in it, by name; those that begin with a dot are not submissions, nor are links."""
    if not folder.is_dir():
        raise UserError("there are no submissions", where=str(folder), expected="a folder with one folder a student")
    found = sorted(each for each in folder.iterdir()
                   if each.is_dir() and not each.is_symlink() and not each.name.startswith("."))  # fmt: skip
    if not found:
        raise UserError(
            "there are no submissions", where=str(folder), expected="one folder a student, named after them"
        )
    return found


def grade_one(assignment: Assignment, submission: Path, secret: bytes, out: Path, same: bool = False) -> Graded:
    """Grades a submission and writes OUT/STUDENT/results.json and results.md. Never raises for what it holds.

    The twist is drawn from the secret and the student's name (same: from no name, as `course build` does without a
    list of students); what the submission says about itself is not read.
    """
    student = submission.name
    twist = draw_twist(secret, PRACTICE if same else student, assignment)
    try:
        with Runner() as runner:
            graded = grade(assignment, submission, student, twist, runner, secret)
    except Exception as error:  # a fault of the grader's own: say so, give nothing, and go on with the others
        said = f"the grader failed on this submission, please tell whoever runs it: {type(error).__name__}: {error}"
        failed = tuple(Result(test, False, ("not run",)) for test in assignment.tests)
        graded = Graded(student, assignment, twist, failed, (said,))
    write(out / student / "results.json", as_json(graded))
    write(out / student / "results.md", markdown(graded))
    return graded


def write_summary(all_graded: Sequence[Graded], out: Path) -> None:
    """OUT/grades.csv and OUT/grades.xml (JUnit)."""
    write(out / "grades.csv", table(all_graded))
    write(out / "grades.xml", junit(all_graded))
