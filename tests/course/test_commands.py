"""The commands as a student and a teacher type them, and what they leave behind."""

import csv
import io
import json
import os
import xml.etree.ElementTree as ElementTree

import pytest

from minirlhf import __version__, cli
from minirlhf.course import batch, doctor, similar
from minirlhf.course.kit import draw_twist
from tests.course.submissions import A03, SECRET, skeleton, solution, write


def run(capsys, *words):
    try:
        code = cli.main(["course", *map(str, words)])
    except SystemExit as stopped:
        code = stopped.code
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_bytes(SECRET + b"\n")
    return path


def test_new_then_check_then_solved(tmp_path, capsys, secret):
    folder = tmp_path / "mine"
    code, out, _ = run(capsys, "new", "a03", folder, "--student", "alice", "--secret", secret)
    assert code == 0
    assert f"minirlhf course check {folder}" in out
    assert {path.name for path in folder.iterdir()} == {
        "attention.py", "rope.py", "twist.py", "README.md", "assignment.json"
    }  # fmt: skip
    code, out, _ = run(capsys, "check", folder)
    assert code == 1
    assert "public: 0 of 64 points" in out
    assert "36 more points are given by hidden tests" in out
    write(folder, solution(draw_twist(SECRET, "alice", A03)))
    code, out, _ = run(capsys, "check", folder)
    assert code == 0
    assert "public: 64 of 64 points" in out and "FAIL" not in out
    hidden = [test.name for test in A03.tests if not test.public]
    assert not any(name in out for name in hidden)
    (folder / "rope.py").write_text("my work", encoding="utf-8")
    code, _, err = run(capsys, "new", "a03", folder)
    assert code == 2
    assert "never overwritten" in err
    assert (folder / "rope.py").read_text(encoding="utf-8") == "my work"


def test_wrong_words_are_answered(tmp_path, capsys):
    for words, said in (
        (("new", "a99", tmp_path / "x"), "there is no such assignment"),
        (("check", tmp_path), "this folder holds no assignment"),
        (("grade", tmp_path / "none", "--assignment", "a03", "--out", tmp_path / "out"), "there are no submissions"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 2 and said in err
    for words, said in (
        (("new", "a03", tmp_path / "x", "--secret", tmp_path / "none"), "secrets.token_hex"),
        (("build", "a03", tmp_path / "x", "--students", tmp_path / "none"), "one name a line"),
        (("similar", tmp_path, "--assignment", "a03", "--least", "60"), "a number from 0 to 1"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 2 and said in err and not (tmp_path / "x").exists()
    short = tmp_path / "short.txt"
    short.write_text("123456", encoding="utf-8")
    code, _, err = run(capsys, "new", "a03", tmp_path / "x", "--secret", short)
    assert code == 2 and "too short" in err and not (tmp_path / "x").exists()
    write(tmp_path / "damaged", {"assignment.json": '{"assignment": "a03", "student": "x", "twist": {"cup": 2}}'})
    code, _, err = run(capsys, "check", tmp_path / "damaged")
    assert code == 2 and "card is damaged" in err


def test_a_class_is_graded_twice_the_same_and_never_stopped(tmp_path, capsys, secret):
    folder = tmp_path / "in"
    for student in ("=alice", "bob"):
        write(folder / student, solution(draw_twist(SECRET, student, A03)))
    write(folder / "carol", skeleton(draw_twist(SECRET, "carol", A03)))
    write(folder / "dan", {"rope.py": "while", "<b>": "not read"})
    (folder / "empty").mkdir()
    (folder / "fifo").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fifo/rope.py")
    (folder / "attention.py").write_text("not a submission", encoding="utf-8")
    words = ("grade", folder, "--assignment", "a03", "--secret", secret, "--out")
    code, _, err = run(capsys, *words, folder / "results")
    assert code == 2 and "a folder outside" in err and not (folder / "results").exists()
    for out in ("one", "two"):
        code, _, _ = run(capsys, *words, tmp_path / out)
        assert code == 0
    one, two = ({path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*") if
                 path.is_file()} for out in ("one", "two"))  # fmt: skip
    assert one == two
    assert len(one) == 2 * 6 + 2
    results = {
        name: json.loads(one[path]) for path in one if path.name == "results.json" for name in [path.parent.name]
    }
    assert {name: result["score"] for name, result in results.items()} == {
        "=alice": 100, "bob": 100, "carol": 0, "dan": 0, "empty": 0, "fifo": 0,
    }  # fmt: skip
    bob = results["bob"]
    assert bob["extra_data"]["minirlhf"] == __version__
    assert set(bob["extra_data"]["sha256"]) == {"attention.py", "rope.py", "twist.py"}
    assert sum(test["max_score"] for test in bob["tests"]) == 100
    assert bob["output"].startswith("total: 100 of 100 points")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "one/grades.csv").read_text(encoding="utf-8"))))
    assert [row["student"] for row in rows] == ["'=alice", "bob", "carol", "dan", "empty", "fifo"]
    assert [row["score"] for row in rows] == ["100", "100", "0", "0", "0", "0"]
    suites = ElementTree.parse(tmp_path / "one/grades.xml").getroot()
    assert [suite.attrib["failures"] for suite in suites] == ["0", "0", *[str(len(A03.tests))] * 4]
    page = (tmp_path / "one/dan/results.md").read_text(encoding="utf-8")
    assert "| 3.1 | rotate: every point by its angle | 0/8 | the file cannot be imported" in page


def test_one_twist_for_all_is_graded_as_it_was_built(tmp_path, capsys, secret):
    write(tmp_path / "in/eve", solution(draw_twist(SECRET, "practice", A03)))
    words = ("grade", tmp_path / "in", "--assignment", "a03", "--secret", secret, "--out", tmp_path / "out")
    _, out, _ = run(capsys, *words)
    assert "total: 100" not in out and "not those drawn for eve" in out
    _, out, _ = run(capsys, *words, "--same")
    assert "total: 100 of 100 points" in out and "not those drawn" not in out


def test_hidden_tests_show_a_name_and_a_hint(tmp_path):
    write(tmp_path / "in/eve", skeleton(draw_twist(SECRET, "eve", A03)))
    graded = batch.grade_one(A03, tmp_path / "in/eve", SECRET, tmp_path / "out")
    for each in graded.results:
        if not each.test.public:
            assert each.says == (f"hint: {each.test.hint}",)
    page = (tmp_path / "out/eve/results.json").read_text(encoding="utf-8")
    assert SECRET.decode() not in page


def test_a_fault_of_the_grader_is_written_down_too(tmp_path, monkeypatch):
    write(tmp_path / "in/eve", solution(draw_twist(SECRET, "eve", A03)))
    monkeypatch.setattr(batch, "grade", lambda *_: 1 / 0)
    batch.grade_one(A03, tmp_path / "in/eve", SECRET, tmp_path / "out")
    result = json.loads((tmp_path / "out/eve/results.json").read_text(encoding="utf-8"))
    assert result["score"] == 0 and "the grader failed" in result["output"]


def test_copies_are_found_and_the_starter_is_no_copy(tmp_path, capsys):
    folder = tmp_path / "in"
    for student in ("alice", "bob", "carol", "dan"):
        write(folder / student, skeleton(draw_twist(SECRET, student, A03)))
    code, out, _ = run(capsys, "similar", folder, "--assignment", "a03")
    assert code == 0 and "no two submissions" in out
    whole = solution(draw_twist(SECRET, "alice", A03))
    write(folder / "alice", whole)
    renamed = whole["attention.py"].replace("match", "scores").replace("# [B H T S]", "# mine").replace("qkv", "p")
    write(folder / "bob", {"attention.py": renamed})
    own = """
    width = q.shape[-1]
    rows = []
    for head in range(q.shape[1]):
        other = head * k.shape[1] // q.shape[1]
        logits = (q[:, head] / width**0.5) @ k[:, other].mT
        logits = logits.masked_fill(~visible[:, 0], float("-inf"))
        dark = ~visible[:, 0].any(-1, keepdim=True)
        rows.append(logits.masked_fill(dark, 0.0).softmax(-1).masked_fill(dark, 0.0) @ v[:, other])
    return torch.stack(rows, 1)
"""
    start, end = (whole["attention.py"].index(each) for each in ("    match =", "def per_group"))
    write(
        folder / "carol", {"attention.py": whole["attention.py"][:start] + own + "\n\n" + whole["attention.py"][end:]}
    )
    pairs = similar.alike(A03, batch.submissions_of(folder), 0.9)
    assert [(pair.one, pair.other, pair.file) for pair in pairs] == [("alice", "bob", "attention.py")]


def test_the_doctor_looks_at_everything_and_names_what_is_old(capsys, monkeypatch):
    code, out, _ = run(capsys, "doctor")
    assert code in (0, 1)  # the machine's memory is its own affair
    for word in ("Python", "torch", "numpy", "memory", __version__):
        assert word in out
    assert doctor.judged("1.24.3", (1, 26), "pip install -U numpy") == (
        False, "1.24.3, at least 1.26 is needed: pip install -U numpy"
    )  # fmt: skip
    assert doctor.judged("2.13.0+cpu", (2, 6), "")[0]
    monkeypatch.setattr(doctor, "free_memory_mib", lambda: 100)
    code, out, _ = run(capsys, "doctor")
    assert code == 1 and "LOOK memory" in out
