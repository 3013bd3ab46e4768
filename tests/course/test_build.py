"""What `course build` makes: three trees from one library, and a grader that works where it is unpacked."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from minirlhf import cli
from minirlhf.course import build as module
from minirlhf.course.assignment import TWIST, assignment_names, file_name, load_assignment, module_source
from minirlhf.course.build import build, prove, read_students
from minirlhf.course.handout import PRACTICE
from minirlhf.course.kit import draw_twist, skeleton_of
from minirlhf.errors import UserError
from tests.course.submissions import SECRET, solution, write

A10 = load_assignment("a10")
SCRIPTS = ("setup.sh", "run_autograder")


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "a10"
    build(A10, ("alice@school.org", "bob@school.org"), SECRET, out)
    return out


@pytest.mark.parametrize("name", assignment_names())
def test_every_assignment_can_be_built(name):
    prove(load_assignment(name))


def test_the_trees_are_the_handout_the_library_and_the_grader(built):
    assert {path.name for path in built.iterdir()} == {"student", "solution", "grader", "a10_ppo_gradescope.zip"}
    students = tree(built / "student")
    for student in ("alice@school.org", "bob@school.org"):
        twist = draw_twist(SECRET, student, A10)
        for part in A10.modules:
            assert students.pop(f"{student}/{file_name(part)}").decode() == skeleton_of(A10, part, twist)
        card = json.loads(students.pop(f"{student}/assignment.json"))
        assert (card["student"], card["twist"]) == (student, twist)
        students.pop(f"{student}/README.md")
    assert students == {}
    whole = tree(built / "solution")
    assert whole.pop("TWIST.txt")
    assert {name: text.decode() for name, text in whole.items()} == {
        file_name(part): module_source(part) for part in A10.modules if part != TWIST
    }
    grader = tree(built / "grader")
    assert [name for name in grader if name.endswith(".toml")] == ["minirlhf/shipped_course/assignments/a10_ppo.toml"]
    assert not any(b"MINIRLHF" in text and name.endswith("secret.txt") for name, text in grader.items())
    assert b"'torch==" in grader["setup.sh"] and b"+cpu" not in grader["setup.sh"]


def test_the_archive_is_the_grader_and_the_same_every_time(built, tmp_path):
    archive = built / "a10_ppo_gradescope.zip"
    with zipfile.ZipFile(archive) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == tree(built / "grader")
        runs = {entry.filename for entry in packed.infolist() if entry.external_attr >> 16 & 0o111}
    assert runs == set(SCRIPTS)
    module.write_zip(tmp_path / "again.zip", built / "grader")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Gradescope's scripts are for bash")
def test_the_unpacked_grader_grades_where_gradescope_puts_it(built, tmp_path):
    for name in SCRIPTS:
        subprocess.run(["bash", "-n", built / "grader" / name], check=True)
    with zipfile.ZipFile(built / "a10_ppo_gradescope.zip") as packed:
        packed.extractall(tmp_path / "source")
    write(tmp_path / "submission", solution(draw_twist(SECRET, "alice@school.org", A10), A10))
    users = [{"email": "zoe@school.org"}, {"email": "alice@school.org"}]
    (tmp_path / "submission_metadata.json").write_text(json.dumps({"users": users}), encoding="utf-8")

    def run():
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = ["bash", tmp_path / "source/run_autograder", tmp_path]
        subprocess.run(command, env=kept | {"PYTHON": sys.executable}, cwd=tmp_path, check=True)
        return json.loads((tmp_path / "results/results.json").read_text(encoding="utf-8"))

    result = run()
    assert (result["score"], result["extra_data"]["student"]) == (100, "alice@school.org")
    (tmp_path / "submission/ppo.py").write_text("import os\nos._exit(0)\n", encoding="utf-8")
    assert run()["score"] == 0
    (tmp_path / "submission_metadata.json").unlink()
    result = run()
    assert result["score"] == 0 and "the grader failed" in result["output"]


def test_one_twist_for_all_without_a_list(tmp_path):
    files = module.student_files(A10, (), SECRET)
    assert files["twist.py"] == skeleton_of(A10, TWIST, draw_twist(SECRET, PRACTICE, A10))
    assert json.loads(module.grader_files(A10, False, SECRET)["course.json"]) == {
        "assignment": "a10_ppo", "per_student": False
    }  # fmt: skip


def test_what_does_not_hold_is_not_built(tmp_path, monkeypatch):
    easy = replace(A10, tests=(replace(A10.tests[0], count=0),))  # no case: even the skeleton passes
    with pytest.raises(UserError, match="the skeleton of a10_ppo passes"):
        build(easy, (), SECRET, tmp_path / "easy")
    with monkeypatch.context() as patched:
        patched.setattr(module, "skeleton_of", lambda *_: "import no_such_module\n")
        with pytest.raises(UserError, match="fails otherwise than by NotImplementedError"):
            build(A10, (), SECRET, tmp_path / "unreadable")
    broken = replace(A10, hidden=("objectives/masked.py",))
    with pytest.raises(UserError, match="the solution of a10_ppo fails"):
        build(broken, (), SECRET, tmp_path / "broken")
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_students_is_read_with_care(tmp_path):
    path = tmp_path / "students.txt"
    path.write_text("alice@school.org\n\n  bob-2\n", encoding="utf-8")
    assert read_students(path) == ["alice@school.org", "bob-2"]
    for text, found in (
        ("", "nobody"),
        ("a\na\n", "a name twice"),
        ("Ada@x\nada@x\n", "a name twice"),
        ("../up\n", "../up"),
        (".hidden\n", ".hidden"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="list of students") as caught:
            read_students(path)
        assert found in str(caught.value)
    path.write_bytes(b"\xef\xbb\xbfalice@school.org\r\n")  # as some editors write UTF-8
    assert read_students(path) == ["alice@school.org"]
    path.write_bytes("joão@school.org".encode("latin-1"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        read_students(path)


def test_the_command_says_what_it_made_and_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "secret.txt").write_bytes(SECRET)
    words = ["course", "build", "a03", str(tmp_path / "out"), "--secret", str(tmp_path / "secret.txt")]
    assert cli.main(words) == 0
    assert [line.rpartition(os.sep)[2] for line in capsys.readouterr().out.splitlines()] == [
        "student", "solution", "grader", "a03_attention_gradescope.zip"
    ]  # fmt: skip
    assert cli.main(words) == 2
    assert "never overwritten" in capsys.readouterr().err
