"""What belongs to one assignment beside its file: the module that draws its inputs, and the one with its twist.

The file names both; they are found by that name in this folder, and what they offer is written down here.
"""

import hashlib
import hmac
import importlib
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from minirlhf.course.assignment import TWIST, Assignment, CourseTest, module_source
from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.skeleton import cut

Twist = dict[str, float]
"""The drawn numbers of a student's twist, by name; empty where an assignment has none."""


class TwistKit(Protocol):
    """A twist: a part of an assignment whose answer stands nowhere in the package. All of it is in one module.

    NAMES     every number that can be drawn
    CODE      the student's twist.py below its docstring: imports, and functions whose body is `...`
    draw      32 bytes -> the numbers
    words     what is to be done, a sentence a change, with the numbers
    expected  what is right for a case: `out` …, `gradient of NAME`, reckoned in NumPy without the library's torch code
    mistaken  (what it looks as if, what would come out) for mistakes one makes with it
    """

    NAMES: Sequence[str]
    CODE: str

    def draw(self, drawn: bytes) -> Twist: ...
    def words(self, twist: Twist) -> list[str]: ...
    def expected(self, twist: Twist, case: Case) -> Arrays: ...
    def mistaken(self, twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]: ...


def cases_of(assignment: Assignment) -> Mapping[str, Callable[..., Case]]:
    """The name a test's `cases` has in the assignment's file -> what draws one case from a generator."""
    module: Any = importlib.import_module(f"minirlhf.course.assignments.{assignment.cases}")
    found: Mapping[str, Callable[..., Case]] = module.CASES
    return found


def twist_of(assignment: Assignment) -> TwistKit:
    kit: Any = importlib.import_module(f"minirlhf.course.assignments.{assignment.twist}")
    twist: TwistKit = kit
    return twist


def key(secret: bytes, student: str, assignment: str, purpose: str) -> bytes:
    """32 bytes that only the holder of the secret can reckon."""
    return hmac.new(secret, "\0".join((student, assignment, purpose)).encode("utf-8"), hashlib.sha256).digest()


def seed_of(secret: bytes, student: str, assignment: str, purpose: str) -> int:
    return int.from_bytes(key(secret, student, assignment, purpose)[:8], "little")


def draw_twist(secret: bytes, student: str, assignment: Assignment) -> Twist:
    """This student's twist: HMAC-SHA256(secret, student, assignment) decides it. Ada@… and ada@… are one student."""
    if not assignment.twist:
        return {}
    return twist_of(assignment).draw(key(secret, student.strip().casefold(), assignment.name, "twist"))


def draw(assignment: Assignment, test: CourseTest, secret: bytes) -> list[Case]:
    """The test's cases: the same for everybody, and for hidden tests known only with the secret."""
    rng = np.random.default_rng(seed_of(b"" if test.public else secret, "", assignment.name, test.name))
    return [cases_of(assignment)[test.cases](rng, **test.settings) for _ in range(test.count)]


def skeleton_of(assignment: Assignment, module: str, twist: Twist) -> str:
    """The file a student starts from."""
    source = module_source(module) if module != TWIST else twist_source(assignment, twist)
    return cut(source, assignment.blanks(module), where=module)


def twist_source(assignment: Assignment, twist: Twist) -> str:
    """twist.py before the exercises are cut: its task in words, then the kit's code."""
    kit = twist_of(assignment)
    titles = [f"Exercise {each.number}: {each.title}." for each in assignment.exercises if each.module == TWIST]
    steps = [textwrap.fill(f"{i}. {step}", 112, subsequent_indent="   ")
             for i, step in enumerate(kit.words(twist), start=1)]  # fmt: skip
    return (
        f'"""{" ".join(titles)} This variant is yours alone.\n\n' + "\n".join(steps) + f'\n"""\n\n{kit.CODE.strip()}\n'
    )
