"""An assignment: one TOML file that says what is blanked, how it is tested, and what each test is worth."""

import ast
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirlhf.course.skeleton import functions_of
from minirlhf.errors import UserError

TWIST = "twist"
"""The module of the part whose answer stands nowhere in the library; a student's file twist.py."""


@dataclass(frozen=True)
class Exercise:
    """One thing to write: `blank` is `module:function` or `module:Class.method` below minirlhf, or `twist:function`."""

    number: str
    blank: str
    title: str
    text: str

    @property
    def module(self) -> str:
        return self.blank.partition(":")[0]

    @property
    def name(self) -> str:
        return self.blank.partition(":")[2]

    @property
    def message(self) -> str:
        return f"Exercise {self.number}: {self.title}"


@dataclass(frozen=True)
class CourseTest:
    """All or nothing: `points` if every one of `count` cases drawn by `cases` comes out right."""

    name: str
    exercise: str
    points: float
    public: bool
    cases: str
    hint: str
    count: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mistake:
    """A planted mistake of the bank, the test where it must lose points, and what to tell a student who makes it."""

    name: str
    test: str
    says: str


@dataclass(frozen=True)
class Limits:
    """What one test may use. Memory counts from what Python and torch need themselves."""

    seconds: float = 10.0
    memory_mib: int = 512
    output_kib: int = 1024


@dataclass(frozen=True)
class Assignment:
    """What the file says, checked. The points of all tests sum to `total`.

    banned   full names of functions and classes that would do the work; a submission that names or calls one gets 0
    hidden   files below minirlhf that hold an answer beside the blanked ones
    imports  modules a submission may import beside the usual ones
    cases    the module of minirlhf/course that draws the inputs
    twist    the module of minirlhf/course with the part that is drawn for each student; "" if there is none
    """

    name: str
    title: str
    chapter: str
    minutes: str
    text: str
    total: float
    cases: str
    twist: str
    banned: tuple[str, ...]
    hidden: tuple[str, ...]
    imports: tuple[str, ...]
    limits: Limits
    exercises: tuple[Exercise, ...]
    tests: tuple[CourseTest, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules a student hands in, in the order of the exercises."""
        return tuple(dict.fromkeys(exercise.module for exercise in self.exercises))

    def exercise(self, number: str) -> Exercise:
        return next(each for each in self.exercises if each.number == number)

    def blanks(self, module: str) -> dict[str, str]:
        """name -> message of the NotImplementedError, for `skeleton.cut`."""
        return {each.name: each.message for each in self.exercises if each.module == module}


def file_name(module: str) -> str:
    """The student's file of a module: `nn.attention` is handed in as attention.py."""
    return f"{module.rpartition('.')[2]}.py"


def module_path(module: str) -> Path:
    """The library's file of a module, `nn.attention` -> .../minirlhf/nn/attention.py. Nothing is imported."""
    path = Path(__file__).resolve().parent.parent.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        raise UserError(f"there is no module minirlhf.{module}", where=str(path))
    return path


def module_source(module: str) -> str:
    return module_path(module).read_text(encoding="utf-8")


def course_folder(name: str) -> Path:
    """`assignments` or `bank`: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent.parent
    checkout = {"assignments": package.parent / "chapters/assignments", "bank": package.parent / "tests/mutants/bank"}
    for folder in (package / "shipped_course" / name, checkout[name]):
        if folder.is_dir():
            return folder
    raise UserError(f"the course's {name} are missing", where=str(checkout[name]), fix="install minirlhf again")


def assignment_names() -> dict[str, Path]:
    """`a03` -> its file, in order."""
    return {path.stem.partition("_")[0]: path for path in sorted(course_folder("assignments").glob("a*.toml"))}


def load_assignment(name: str) -> Assignment:
    """By its number, a03, or its file's name, a03_attention. Raises UserError if there is no such assignment."""
    known = assignment_names()
    path = known.get(name.partition("_")[0])
    if path is None or name not in (path.stem, path.stem.partition("_")[0]):
        raise UserError(
            "there is no such assignment", found=name, expected=", ".join(path.stem for path in known.values())
        )
    return read_assignment(path)


def read_assignment(path: Path) -> Assignment:
    """Reads and checks a file. Raises UserError that names the file and what is wrong in it."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        content |= {name: tuple(content.get(name, ())) for name in ("banned", "hidden", "imports")}
        content.setdefault("twist", "")
        content["limits"] = Limits(**content.get("limits", {}))
        content["exercises"] = tuple(Exercise(**each) for each in content["exercises"])
        content["tests"] = tuple(CourseTest(**each) for each in content["tests"])
        content["mistakes"] = tuple(Mistake(name, **each) for name, each in content.get("mistakes", {}).items())
        assignment = Assignment(name=path.stem, **content)
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise UserError("this is no assignment", where=str(path), found=f"{type(error).__name__}: {error}") from error
    for problem in problems_of(assignment):
        raise UserError(f"the assignment does not fit together: {problem}", where=str(path))
    return assignment


def problems_of(assignment: Assignment) -> list[str]:
    """What does not fit: points, numbers, blanks, mistakes."""
    found = []
    if (points := sum(test.points for test in assignment.tests)) != assignment.total:
        found.append(f"the points of the tests sum to {points:g}, total is {assignment.total:g}")
    numbers = [each.number for each in assignment.exercises]
    names = [test.name for test in assignment.tests]
    found += [f"{what} {name} stands twice" for what, all_of in (("exercise", numbers), ("test", names))
              for name in sorted({each for each in all_of if all_of.count(each) > 1})]  # fmt: skip
    found += [f"test {test.name} names exercise {test.exercise}, which is not there" for test in assignment.tests
              if test.exercise not in numbers]  # fmt: skip
    found += [f"exercise {number} has no test" for number in numbers
              if number not in {test.exercise for test in assignment.tests}]  # fmt: skip
    found += [f"mistake {each.name} names test {each.test}, which is not there" for each in assignment.mistakes
              if each.test not in names]  # fmt: skip
    files = [file_name(module) for module in assignment.modules]
    found += [f"two modules would both be handed in as {name}" for name in sorted(set(files)) if files.count(name) > 1]
    folder = Path(__file__).parent / "assignments"
    paths = [f"{name.replace('.', '/')}.py" for name in (assignment.cases, assignment.twist) if name]
    found += [f"there is no minirlhf/course/assignments/{path}" for path in paths if not (folder / path).is_file()]
    if (TWIST in assignment.modules) != bool(assignment.twist):
        found.append("a twist needs both an exercise with a blank `twist:…` and a module named by `twist`")
    for exercise in assignment.exercises:
        if not re.fullmatch(r"[a-z0-9_.]+:\w+(\.\w+)?", exercise.blank):
            found.append(f"the blank {exercise.blank} is not module:function or module:Class.method")
        elif exercise.module != TWIST and exercise.name not in functions_of(ast.parse(module_source(exercise.module))):
            found.append(f"the blank {exercise.blank} names nothing in minirlhf.{exercise.module}")
    return found


def allowed_imports(assignment: Assignment) -> frozenset[str]:
    """Top-level modules a student may import beside those of minirlhf that the skeleton imports itself."""
    return frozenset({"math", "typing", "collections", "dataclasses", "functools", "itertools", "operator"}
                     | {"torch", "numpy", "einops"} | set(assignment.imports))  # fmt: skip
