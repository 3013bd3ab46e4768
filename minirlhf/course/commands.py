"""The command `course`: new, check, grade, build, similar, doctor."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from minirlhf.course import batch, build, doctor, similar
from minirlhf.course.assignment import load_assignment
from minirlhf.course.grading import Graded, grade
from minirlhf.course.handout import PRACTICE, handout, read_card, read_secret, write_handout
from minirlhf.course.reports import text, total_line
from minirlhf.course.runner import Runner
from minirlhf.errors import UserError


@dataclass(frozen=True)
class New:
    """Make a folder to work in: the library's own files with the exercises cut out, and what is asked."""

    assignment: tyro.conf.Positional[str]  # its number, for example a03; an unknown one is answered with all
    folder: tyro.conf.Positional[Path]  # the folder to make; one that holds something is left alone
    student: str = PRACTICE  # whose it is: a student's twist depends on it
    secret: Path | None = None  # the teacher's file with at least 16 bytes; without it everybody can reckon the twist


@dataclass(frozen=True)
class Check:
    """Run the public tests on your work and say what to look at. Offline; ends with 1 while points are missing."""

    folder: tyro.conf.Positional[Path] = Path(".")  # the folder that `course new` made


@dataclass(frozen=True)
class Grade:
    """Grade a folder of submissions, each in a folder named as the student was for `new` or `build`. No submission
    stops the others."""

    folder: tyro.conf.Positional[Path]  # one folder a student, with the files handed in
    assignment: str  # its number, for example a03
    out: Path  # where results.json of each student goes, and grades.csv, grades.xml; made if need be
    secret: Path | None = None  # the same file as for `course new` and `course build`
    same: bool = False  # everybody was given the same twist: `course build` without --students, `new` without --student
    jobs: int = 2  # submissions graded at the same time


@dataclass(frozen=True)
class Build:
    """Make all a teacher needs: what students get, the solution, and the grader, also as a zip for Gradescope."""

    assignment: tyro.conf.Positional[str]  # its number, for example a03
    out: tyro.conf.Positional[Path]  # the folder to make; one that holds something is left alone
    secret: Path | None = None  # a file with at least 16 bytes; without it everybody can reckon hidden tests and twists
    students: Path | None = None  # a file with an e-mail address a line: a twist for each; else one for all (--same)


@dataclass(frozen=True)
class Similar:
    """List pairs of submissions that are alike, what everybody was given left out. A list to read, not a verdict."""

    folder: tyro.conf.Positional[Path]  # one folder a student
    assignment: str  # its number, for example a03
    least: float = 0.6  # pairs below this share of common runs of tokens are not listed


@dataclass(frozen=True)
class Doctor:
    """Look at Python, torch, numpy and memory before the course begins."""


NO_SECRET = "no --secret: everybody can reckon the hidden tests and the twists"

Course = (
    Annotated[New, tyro.conf.subcommand("new")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Grade, tyro.conf.subcommand("grade")]
    | Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Similar, tyro.conf.subcommand("similar")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def run_course(command: Any) -> Any:
    """Does what the command says, and returns what it printed about."""
    return RUN[type(command)](command)


def new(command: New) -> None:
    assignment = load_assignment(command.assignment)
    write_handout(handout(assignment, command.student, read_secret(command.secret)), command.folder)
    print(f"{assignment.title}: read {command.folder / 'README.md'}")
    print(f"then, as often as you like:  minirlhf course check {command.folder}")


def check(command: Check) -> Graded:
    card = read_card(command.folder)
    with Runner() as runner:
        graded = grade(card.assignment, command.folder, card.student, card.twist, runner, public_only=True)
    print(text(graded, public_only=True))
    hidden = card.assignment.total - graded.possible()
    if hidden:
        print(f"{hidden:g} more points are given by hidden tests when you hand in")
    if graded.earned() < graded.possible():
        raise SystemExit(1)
    return graded


def run_grade(command: Grade) -> list[Graded]:
    assignment, secret = load_assignment(command.assignment), read_secret(command.secret)
    submissions = batch.submissions_of(command.folder)
    if command.out.resolve().is_relative_to(command.folder.resolve()):
        raise UserError(
            "results among the submissions would be taken for submissions the next time",
            found=f"--out {command.out}",
            expected=f"a folder outside {command.folder}",
        )
    if not secret:
        print(NO_SECRET, file=sys.stderr)
    if command.jobs < 1:
        raise UserError("nothing can be graded", found=f"--jobs {command.jobs}", expected="at least 1")
    all_graded = []
    with ThreadPoolExecutor(command.jobs) as pool:
        for graded in pool.map(
            lambda each: batch.grade_one(assignment, each, secret, command.out, command.same), submissions
        ):
            print(f"{graded.student:<24} {total_line(graded)}", flush=True)
            for said in (*graded.problems, *graded.notes):
                print(f"{'':24} {said}", flush=True)
            all_graded.append(graded)
    batch.write_summary(all_graded, command.out)
    print(f"results  {command.out}")
    return all_graded


def run_build(command: Build) -> list[Path]:
    secret, students = read_secret(command.secret), build.read_students(command.students)
    if not secret:
        print(NO_SECRET, file=sys.stderr)
    parts = build.build(load_assignment(command.assignment), students, secret, command.out)
    for part in parts:
        print(part)
    return parts


def run_similar(command: Similar) -> list[similar.Pair]:
    if not 0 <= command.least <= 1:
        raise UserError("no share", found=f"--least {command.least:g}", expected="a number from 0 to 1, such as 0.6")
    assignment = load_assignment(command.assignment)
    pairs = similar.alike(assignment, batch.submissions_of(command.folder), command.least)
    for pair in pairs:
        print(f"{pair.share:6.0%}  {pair.one}  {pair.other}  ({pair.file})")
    if not pairs:
        print(f"no two submissions share {command.least:.0%} or more of what they wrote themselves")
    return pairs


def run_doctor(command: Doctor) -> list[doctor.Finding]:
    findings = doctor.examine()
    for finding in findings:
        print(f"{'ok  ' if finding.fine else 'LOOK'} {finding.what:<10} {finding.says}")
    if not all(finding.fine for finding in findings):
        raise SystemExit(1)
    return findings


RUN: dict[type, Callable[..., Any]] = {
    New: new, Check: check, Grade: run_grade, Build: run_build, Similar: run_similar, Doctor: run_doctor
}  # fmt: skip
