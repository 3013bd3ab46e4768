"""What Gradescope's run_autograder starts: grades ROOT/submission and writes ROOT/results/results.json, come what may.

`python -m minirlhf.course.gradescope GRADER ROOT`, GRADER being the folder `course build` made: course.json and
secret.txt. Students are told apart by the e-mail address in ROOT/submission_metadata.json, never by what they hand in.
"""

import json
import sys
from pathlib import Path
from typing import Any

from minirlhf.course.assignment import load_assignment
from minirlhf.course.grading import grade
from minirlhf.course.handout import PRACTICE
from minirlhf.course.kit import draw_twist
from minirlhf.course.reports import as_json, write
from minirlhf.course.runner import Runner


def main(grader: Path, root: Path) -> None:
    """Never raises: a fault of the grader's own is a result with score 0 that says so."""
    try:
        card = json.loads((grader / "course.json").read_text(encoding="utf-8"))
        assignment = load_assignment(card["assignment"])
        secret = (grader / "secret.txt").read_bytes()
        student = student_of(root / "submission_metadata.json") if card["per_student"] else PRACTICE
        twist = draw_twist(secret, student, assignment)
        with Runner() as runner:
            text = as_json(grade(assignment, root / "submission", student, twist, runner, secret))
    except Exception as error:
        said = f"the grader failed on this submission, please tell whoever runs it: {type(error).__name__}: {error}"
        text = json.dumps({"score": 0, "output": said, "output_format": "text", "visibility": "visible"}) + "\n"
    write(root / "results/results.json", text)


def student_of(metadata: Path) -> str:
    """The e-mail address of the one who hands in; in a group, the first by the alphabet."""
    users: list[dict[str, Any]] = json.loads(metadata.read_text(encoding="utf-8"))["users"]
    return min(str(user["email"]) for user in users)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
