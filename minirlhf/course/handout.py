"""What a student gets: the skeletons, a README with the task, and a card that says which assignment and twist it is."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from minirlhf import __version__
from minirlhf.course.assignment import TWIST, Assignment, file_name, load_assignment
from minirlhf.course.kit import Twist, draw_twist, skeleton_of, twist_of
from minirlhf.errors import UserError

CARD = "assignment.json"
PRACTICE = "practice"
"""The student's name when nobody gave one."""


@dataclass(frozen=True)
class Card:
    """Which assignment a folder holds, whose it is, and the numbers of its twist."""

    assignment: Assignment
    student: str
    twist: Twist


def read_secret(path: Path | None) -> bytes:
    """The teacher's secret, without the line's end. No file is the empty secret, which everybody knows."""
    if path is None:
        return b""
    make = 'make it once, and keep it:  python -c "import secrets; print(secrets.token_hex())" > secret.txt'
    if not path.is_file():
        raise UserError("there is no such secret", where=str(path), fix=make)
    secret = path.read_bytes().strip()
    if len(secret) < 16:
        raise UserError("the secret is too short to be one", where=str(path), found=f"{len(secret)} bytes",
                        expected="at least 16", fix=make)  # fmt: skip
    return secret


def handout(assignment: Assignment, student: str, secret: bytes) -> dict[str, str]:
    """file name -> text of everything a student gets."""
    twist = draw_twist(secret, student, assignment)
    files = {file_name(module): skeleton_of(assignment, module, twist) for module in assignment.modules}
    card = {"assignment": assignment.name, "student": student, "twist": twist, "minirlhf": __version__}
    return files | {"README.md": readme(assignment), CARD: json.dumps(card, indent=2, ensure_ascii=False) + "\n"}


def write_handout(files: dict[str, str], folder: Path) -> None:
    """Writes all files or none. Raises UserError if the folder holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            "the folder is not empty, and your work is never overwritten", where=str(folder), fix="name another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, text in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
        fresh.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def read_card(folder: Path) -> Card:
    """The card of a folder that `course new` made."""
    path = folder / CARD
    fix = "check the folder that `minirlhf course new` made, or make one"
    if not path.is_file():
        raise UserError("this folder holds no assignment", where=str(path), fix=fix)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        assignment = load_assignment(card["assignment"])
        twist = {str(name): float(value) for name, value in card["twist"].items()}
        if strange := twist.keys() - set(twist_of(assignment).NAMES if assignment.twist else ()):
            raise ValueError(f"the twist has no {', '.join(sorted(strange))}")
        return Card(assignment, str(card["student"]), twist)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError("the assignment's card is damaged", where=str(path), found=str(error), fix=fix) from error


def readme(assignment: Assignment) -> str:
    """The task as the student reads it."""
    lines = [f"# {assignment.title}", "", f"{assignment.minutes} minutes. It belongs to {assignment.chapter}.", ""]
    lines += [assignment.text.strip(), "", "```bash", "minirlhf course check .", "```", ""]
    lines += ["runs the public tests, offline, and says what to look at; what your code printed stands below a test "
              "that fails. Run it as often as you like.", ""]  # fmt: skip
    for exercise in assignment.exercises:
        where = f"`{exercise.name}` in `{file_name(exercise.module)}`"
        lines += [f"## {exercise.number} {exercise.title}", "", f"Write {where}.", "", exercise.text.strip(), ""]
    lines += ["## What it is worth", "", "Every test gives all of its points or none.", ""]
    lines += ["| exercise | test | points | |", "|---|---|---|---|"]
    lines += [f"| {test.exercise} | {test.name} | {test.points:g} | {'public' if test.public else 'hidden'} |"
              for test in assignment.tests]  # fmt: skip
    public = sum(test.points for test in assignment.tests if test.public)
    lines += ["", f"Public tests: {public:g} points; with the hidden ones: {assignment.total:g}.", ""]
    limits = assignment.limits
    files = ", ".join(f"`{file_name(module)}`" for module in assignment.modules)
    lines += ["## Rules", "", f"Hand in {files}; whatever else you write is not read.", ""]
    lines += [f"A test gets {limits.seconds:g} seconds and {limits.memory_mib} MiB. Your files may import what the "
              "skeleton imports, torch, numpy, einops, math, typing, collections, dataclasses, functools, itertools "
              "and operator.", ""]  # fmt: skip
    if assignment.banned:
        lines += ["What would do the work for you counts 0 for everything:", ""]
    lines += [f"- `{name}`" for name in assignment.banned]
    if TWIST in assignment.modules:
        lines += ["", "The numbers in `twist.py` are yours alone: another student's file answers another question."]
    return "\n".join(lines) + "\n"
