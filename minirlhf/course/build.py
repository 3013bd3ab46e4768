"""Everything a teacher needs of one assignment, cut from the one library: what students get, the solution, the grader.

    OUT/student/…         the skeletons, README and card; a folder a student where a list of students is given
    OUT/solution/…        the same modules whole, as they stand in the library
    OUT/grader/…          this very version of minirlhf with the assignment and the secret, and Gradescope's two scripts
    OUT/a03_attention_gradescope.zip    the grader again, to upload; the same bytes whenever the same is built

Nothing is built of an assignment whose solution loses a point or whose skeleton gains one.
"""

import importlib.metadata
import json
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from minirlhf.course.assignment import TWIST, Assignment, assignment_names, course_folder, file_name, module_source
from minirlhf.course.grading import grade
from minirlhf.course.handout import PRACTICE, handout, write_handout
from minirlhf.course.kit import draw_twist, skeleton_of
from minirlhf.course.runner import Runner
from minirlhf.errors import UserError

SETUP = """#!/usr/bin/env bash
# Gradescope runs this once, when the grader is made: a Python of its own, with what minirlhf needs.
set -e
apt-get update
apt-get install -y python3-pip
python3 -m pip install uv || python3 -m pip install --break-system-packages uv
uv venv --python {python} /autograder/venv
uv pip install --python /autograder/venv/bin/python --extra-index-url https://download.pytorch.org/whl/cpu \\
    --index-strategy unsafe-best-match {packages}
"""
RUN = """#!/usr/bin/env bash
# Gradescope runs this for every submission; ROOT/results/results.json is written whatever happens.
root="${1:-/autograder}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PYTHONPATH="$here" "${PYTHON:-/autograder/venv/bin/python}" -m minirlhf.course.gradescope "$here" "$root"
"""
SOLUTION_NOTE = """twist.py is not here: its answer stands nowhere in minirlhf. The grader reckons what is right by
the formula in minirlhf/course/assignments/{kit}.py, whose first lines say what it is.
"""


def build(assignment: Assignment, students: Sequence[str], secret: bytes, out: Path) -> list[Path]:
    """Writes OUT, which must be empty, and returns its parts. Raises UserError if the assignment does not hold."""
    prove(assignment)
    files = {f"student/{name}": text for name, text in student_files(assignment, students, secret).items()}
    files |= {f"solution/{name}": text for name, text in solution_files(assignment).items()}
    files |= {f"grader/{name}": text for name, text in grader_files(assignment, bool(students), secret).items()}
    write_handout(files, out)
    for name in ("setup.sh", "run_autograder"):
        (out / "grader" / name).chmod(0o755)
    archive = out / f"{assignment.name}_gradescope.zip"
    write_zip(archive, out / "grader")
    return [out / "student", out / "solution", out / "grader", archive]


def prove(assignment: Assignment) -> None:
    """Raises UserError unless the library gets every point outside the twist and the skeleton none at all."""
    twist = draw_twist(b"", PRACTICE, assignment)
    skeletons = {file_name(module): skeleton_of(assignment, module, twist) for module in assignment.modules}
    with tempfile.TemporaryDirectory() as name, Runner() as runner:
        for what, files in (("solution", solution_files(assignment)), ("skeleton", skeletons)):
            folder = Path(name) / what
            write_handout(files, folder)
            for result in grade(assignment, folder, PRACTICE, twist, runner).results:
                solved = what == "solution" and assignment.exercise(result.test.exercise).module != TWIST
                if result.passed != solved:
                    found = "passes" if result.passed else "; ".join(("fails", *result.says))
                    raise UserError(f"the {what} of {assignment.name} {found}", where=result.test.name)
                if (
                    what == "skeleton"
                    and result.test.public
                    and not any("not written yet" in said for said in result.says)
                ):
                    fails = "; ".join(result.says)
                    raise UserError(f"the skeleton of {assignment.name} fails otherwise than by NotImplementedError",
                                    where=result.test.name, found=fails)  # fmt: skip


def student_files(assignment: Assignment, students: Sequence[str], secret: bytes) -> dict[str, str]:
    """The handout, or STUDENT/… for each student."""
    if not students:
        return handout(assignment, PRACTICE, secret)
    return {f"{student}/{name}": text for student in students
            for name, text in handout(assignment, student, secret).items()}  # fmt: skip


def solution_files(assignment: Assignment) -> dict[str, str]:
    """The library's modules as they stand, and a word on the twist."""
    files = {file_name(module): module_source(module) for module in assignment.modules if module != TWIST}
    note = SOLUTION_NOTE.format(kit=assignment.twist.replace(".", "/"))
    return files | ({"TWIST.txt": note} if assignment.twist else {})


def grader_files(assignment: Assignment, per_student: bool, secret: bytes) -> dict[str, str]:
    """minirlhf with this assignment only, Gradescope's scripts, the secret, and how students are told apart."""
    package = Path(__file__).resolve().parent.parent
    files = {f"minirlhf/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")
             if "shipped_course" not in path.parts}  # fmt: skip
    task = assignment_names()[assignment.name.partition("_")[0]]
    files[f"minirlhf/shipped_course/assignments/{task.name}"] = task
    files |= {f"minirlhf/shipped_course/bank/{path.name}": path for path in course_folder("bank").glob("*.txt")}
    card = {"assignment": assignment.name, "per_student": per_student}
    texts = {
        "setup.sh": SETUP.format(python=">=3.11", packages=" ".join(requirements())),
        "run_autograder": RUN,
        "course.json": json.dumps(card, indent=2) + "\n",
        "secret.txt": secret.decode("utf-8", errors="surrogateescape"),
    }
    return texts | {name: path.read_text(encoding="utf-8") for name, path in sorted(files.items())}


def requirements() -> list[str]:
    """What minirlhf needs, in the versions that are installed here, quoted for a shell."""
    found = []
    for line in importlib.metadata.requires("minirlhf") or ():
        if "extra ==" not in line:
            name = re.split(r"[^A-Za-z0-9_.-]", line)[0]
            found.append(f"'{name}=={importlib.metadata.version(name).partition('+')[0]}'")
    return sorted(found)


def read_students(path: Path | None) -> list[str]:
    """One a line, as Gradescope knows them (their e-mail address); the folder of each has the same name."""
    if path is None:
        return []
    unfit, expected = "the list of students cannot be used", "one name a line: letters, digits and .@+-_, each once"
    if not path.is_file():
        raise UserError(unfit, where=str(path), found="no such file", expected=expected)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise UserError(unfit, where=str(path), found=str(error), fix="save it as UTF-8") from error
    found = [line.strip() for line in lines if line.strip()]
    strange = [name for name in found if not re.fullmatch(r"\w[\w.@+-]*", name)]
    if not found or strange or len({name.casefold() for name in found}) < len(found):  # one student, as kit.py has it
        what = f"{strange[0]!r}" if strange else "a name twice" if found else "nobody"
        raise UserError(unfit, where=str(path), found=what, expected=expected)
    return found


def write_zip(path: Path, folder: Path) -> None:
    """The folder's files, sorted, with times of no meaning and with who may run them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            mode = 0o755 if entry.filename in ("setup.sh", "run_autograder") else 0o644
            entry.external_attr, entry.compress_type, entry.create_system = mode << 16, zipfile.ZIP_DEFLATED, 3
            archive.writestr(entry, file.read_bytes())
