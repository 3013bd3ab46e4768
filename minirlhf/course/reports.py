"""Results on paper: Gradescope's results.json, a Markdown page, a CSV row and JUnit, all of one submission's grading.

Nothing in them depends on the time or the machine, so grading twice gives the same bytes.
"""

import csv
import io
import json
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minirlhf.course.grading import Graded, Result


def gradescope(graded: Graded) -> dict[str, Any]:
    """The results.json of Gradescope's autograder specification; scores are of all tests, public and hidden."""
    return {
        "score": graded.earned(),
        "output": "\n".join([total_line(graded), *graded.problems, *graded.notes]),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [
            {
                "name": each.test.name,
                "number": each.test.exercise,
                "score": each.earned,
                "max_score": each.test.points,
                "status": "passed" if each.passed else "failed",
                "visibility": "visible",
                "output": "\n".join(each.says) or "passed",
                "tags": ["public" if each.test.public else "hidden"],
            }
            for each in graded.results
        ],
        "extra_data": {
            "student": graded.student,
            "assignment": graded.assignment.name,
            "minirlhf": graded.version,
            "sha256": dict(graded.sha256),
            "twist": dict(graded.twist),
        },
    }


def total_line(graded: Graded, public_only: bool = False) -> str:
    """`total: 76 of 100 points`, or `public: …`."""
    word = "public" if public_only else "total"
    return f"{word}: {graded.earned(public_only):g} of {graded.possible(public_only):g} points"


def text(graded: Graded, public_only: bool = False) -> str:
    """For a terminal: a line a test, and below the failed ones what to look at."""
    lines = [*graded.problems, *([""] if graded.problems else [])]
    for each in graded.results:
        lines.append(f"{'ok  ' if each.passed else 'FAIL'} {points(each):>7}  {each.test.exercise}  {each.test.name}")
        lines += [f"{'':14}{line}" for said in each.says for line in said.splitlines()]
    return "\n".join([*lines, "", total_line(graded, public_only)])


def points(result: Result) -> str:
    return f"{result.earned:g}/{result.test.points:g}"


def markdown(graded: Graded) -> str:
    """The same as a page."""
    lines = [f"# {graded.assignment.title}: {graded.student}", "", f"**{total_line(graded)}**", ""]
    lines += [f"- {cell(said)}" for said in (*graded.problems, *graded.notes)]
    lines += ["", "| exercise | test | points | what to look at |", "|---|---|---|---|"]
    for each in graded.results:
        says = "<br>".join(cell(said) for said in each.says) or "passed"
        lines.append(f"| {each.test.exercise} | {each.test.name} | {points(each)} | {says} |")
    hashes = ", ".join(f"{name} {digest[:16]}" for name, digest in graded.sha256.items())
    return "\n".join([*lines, "", f"minirlhf {graded.version}; graded: {hashes or 'no file'}", ""])


def cell(said: str) -> str:
    """Text of a student's making, harmless in a table: no mark-up, no new cell, no new line."""
    for letter, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'"), ("\r", ""), ("\n", " ")):
        said = said.replace(letter, harmless)
    return said


def table(all_graded: Sequence[Graded]) -> str:
    """CSV, a row a submission: total, public points, then every test."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if all_graded:
        tests = [test.name for test in all_graded[0].assignment.tests]
        writer.writerow(["student", "score", "max_score", "public_score", "problems", "notes", *tests])
    for graded in all_graded:
        row = [safe(graded.student), f"{graded.earned():g}", f"{graded.possible():g}", f"{graded.earned(True):g}"]
        row += [safe("; ".join(said)) for said in (graded.problems, graded.notes)]
        writer.writerow([*row, *(f"{each.earned:g}" for each in graded.results)])
    return out.getvalue()


def safe(value: str) -> str:
    """No cell that a spreadsheet would run as a formula."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t")) else value


def junit(all_graded: Sequence[Graded]) -> str:
    """JUnit XML, a test suite a submission."""
    root = ElementTree.Element("testsuites")
    for graded in all_graded:
        failed = sum(not each.passed for each in graded.results)
        suite = ElementTree.SubElement(
            root, "testsuite", name=xml_safe(graded.student), tests=str(len(graded.results)), failures=str(failed)
        )
        for each in graded.results:
            case = ElementTree.SubElement(suite, "testcase", classname=graded.assignment.name, name=each.test.name)
            if not each.passed:
                said = xml_safe("\n".join((*graded.problems, *each.says)))
                ElementTree.SubElement(case, "failure", message=f"{points(each)} points").text = said
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def xml_safe(value: str) -> str:
    """Without the control characters XML has no place for."""
    return "".join(
        letter
        for letter in value
        if letter in "\n\t" or (ord(letter) >= 32 and ord(letter) not in range(0xD800, 0xE000))
    )


def write(path: Path, content: str) -> None:
    """Writes a file in one piece, over whatever lay there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(content)
    os.chmod(name, 0o644)
    os.replace(name, path)


def as_json(graded: Graded) -> str:
    return json.dumps(gradescope(graded), indent=2, ensure_ascii=False) + "\n"
