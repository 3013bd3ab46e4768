"""The bar of the course: thirty submissions of a10 graded in less than ten minutes on two cores, twice the same.

Six of them, one of every kind, unless asked for all: `pytest tests/course/test_class.py --whole-class`.
"""

import time

import pytest

from minirlhf import cli
from minirlhf.course.assignment import load_assignment
from minirlhf.course.kit import draw_twist
from minirlhf.course.mistakes import planted
from tests.course.submissions import SECRET, skeleton, solution, write

A10 = load_assignment("a10")
SECONDS_EACH = 600 / 30


def submission(number):
    """One in six is not written, one in six hangs, the others have some planted mistake each, or none."""
    twist = draw_twist(SECRET, f"student{number:02}", A10)
    if number % 6 == 4:
        return skeleton(twist, A10)
    files = solution(twist, A10)
    if number % 6 == 5:
        return files | {"twist.py": files["twist.py"].replace("torch.no_grad()", "torch.no_grad()\nwhile True: pass\n")}
    if number % 6:
        mistake = planted(A10.mistakes[number].name)
        files[mistake.file.rpartition("/")[2]] = mistake.source()
    return files


@pytest.mark.timeout(1200)
def test_a_class_is_graded_in_minutes_and_twice_the_same(tmp_path, capsys, request):
    students = 30 if request.config.getoption("--whole-class") else 6
    for number in range(students):
        write(tmp_path / f"in/student{number:02}", submission(number))
    (tmp_path / "secret.txt").write_bytes(SECRET)
    seconds, files = [], []
    for out in ("one", "two"):
        start = time.monotonic()
        words = ["course", "grade", str(tmp_path / "in"), "--assignment", "a10", "--out", str(tmp_path / out)]
        assert cli.main([*words, "--secret", str(tmp_path / "secret.txt")]) == 0
        seconds.append(time.monotonic() - start)
        files.append({path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*.*")})
    said = capsys.readouterr().out
    with capsys.disabled():
        print(f"\n{students} submissions of {A10.name}: {seconds[0]:.0f} s, again {seconds[1]:.0f} s")
    assert files[0] == files[1] and len(files[0]) == 2 * students + 2
    assert max(seconds) < SECONDS_EACH * students
    assert said.count("total: 100 of 100 points") == 2 * students // 6
    assert said.count("total: 0 of 100 points") == 2 * students // 6
