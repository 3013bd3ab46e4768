"""Submissions to grade: the solution, the skeleton, and solutions with something changed."""

import importlib
from collections.abc import Mapping
from pathlib import Path

from minirlhf.course.assignment import TWIST, file_name, load_assignment, module_source
from minirlhf.course.kit import Twist, skeleton_of

A03 = load_assignment("a03")
SECRET = b"a secret of more than sixteen bytes"


def answers_of(assignment):
    """What tests/course/answers says of an assignment with a twist: VARIANTS, solve, WRONG."""
    return importlib.import_module(f"tests.course.answers.{assignment.name.partition('_')[0]}")


def variants_of(assignment) -> Mapping[str, Twist]:
    return answers_of(assignment).VARIANTS if assignment.twist else {"": {}}


def twisted(assignment, twist: Twist) -> str:
    """A solution of twist.py: the skeleton with the lines of the answers in it."""
    text = skeleton_of(assignment, TWIST, twist)
    for name, lines in answers_of(assignment).solve(twist).items():
        message = next(each.message for each in assignment.exercises if each.blank == f"{TWIST}:{name}")
        blank = f'    raise NotImplementedError("{message}")\n'
        assert text.count(blank) == 1
        text = text.replace(blank, "".join(f"    {line}\n" for line in lines))
    return text


def solution(twist: Twist, assignment=A03) -> dict[str, str]:
    """file name -> text of what gets every point."""
    library = {file_name(module): module_source(module) for module in assignment.modules if module != TWIST}
    return library | ({"twist.py": twisted(assignment, twist)} if assignment.twist else {})


def skeleton(twist: Twist, assignment=A03) -> dict[str, str]:
    return {file_name(module): skeleton_of(assignment, module, twist) for module in assignment.modules}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
