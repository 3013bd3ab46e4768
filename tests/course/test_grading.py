"""The solution gets everything, the skeleton nothing, and every planted mistake loses where it should, in words."""

import hashlib

import numpy as np
import pytest

from minirlhf.course.assignment import file_name, load_assignment, module_source
from minirlhf.course.feedback import compare
from minirlhf.course.grading import draw, expected_of, grade, judge
from minirlhf.course.kit import Twist
from minirlhf.course.reports import as_json, markdown, table
from minirlhf.course.runner import Outcome, Runner
from minirlhf.course.skeleton import cut
from tests.course.submissions import A03, SECRET, skeleton, solution, variants_of, write

TWIST_OF = variants_of(A03)


@pytest.fixture(scope="module")
def runner():
    with Runner() as started:
        yield started


def graded(runner, folder, files, twist=TWIST_OF["both"], **options):
    return grade(A03, write(folder, files), "somebody", twist, runner, SECRET, **options)


def named(results, name):
    return next(each for each in results if each.test.name == name)


def test_a_planted_mistake_in_a_submission_costs_its_points_and_is_named(runner, tmp_path):
    files = solution(TWIST_OF["both"])
    files["attention.py"] = files["attention.py"].replace("q * q.shape[-1] ** -0.5", "q")
    whole = graded(runner, tmp_path, files)
    says = named(whole.results, "attend: everything is visible").says
    assert says[0] == "it looks as if the matches were not divided by the square root of the head width K"
    assert says[1].startswith("in case 1 of 4: eager_attend(q [2 2 ")
    assert "out[0, 0, 0, 0]: got " in says[2] and " expected " in says[2]
    lost = {each.test.exercise for each in whole.results if not each.passed}
    assert lost == {"3.3"}, "a mistake in one exercise costs nothing in another"
    assert named(whole.results, "attend: rows that see nothing").says == (
        f"hint: {named(whole.results, 'attend: rows that see nothing').test.hint}",
    )


def test_the_twist_of_another_student_gets_nothing_for_it(runner, tmp_path):
    files = solution(Twist(cap=2.4, slope=0.25))
    whole = graded(runner, tmp_path, files, TWIST_OF["both"])
    assert [each.test.exercise for each in whole.results if not each.passed] == ["3.5", "3.5"]


WRONG = {
    "zeros": ("rope.py", "return torch.cat(", "return 0 * torch.cat(", "rotate: every point by its angle"),
    "float32": ("rope.py", "second = x.chunk", "second = x.float().chunk", "rotate: every point by its angle"),
    "rounded": ("rope.py", "return torch.cat(", "return 1.00000001 * torch.cat(", "rotate: every point by its angle"),
    "detached": ("attention.py", "k.mT)  # [B H T S]", "k.mT).detach()", "attend: gradients"),
    "shape": ("rope.py", "second * cos + first * sin), dim=-1)", "second * cos + first * sin), dim=-2)",
              "rotate: every point by its angle"),
    "none": ("rope.py", "return torch.cat(", "torch.cat(", "rotate: every point by its angle"),
    "off by one": ("attention.py", "dim=1)\n        if self", "dim=1)\n        q = q.roll(1, 1)\n        if self",
                   "layer: heads apart and together"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_plain_wrong_answers_lose_at_the_intended_test(runner, tmp_path, name):
    file, before, after, loses = WRONG[name]
    files = solution(TWIST_OF["both"])
    assert files[file].count(before) == 1
    files[file] = files[file].replace(before, after)
    result = named(graded(runner, tmp_path, files, public_only=True).results, loses)
    assert not result.passed
    expected = {
        "float32": "as close as float32 comes", "detached": "no gradient reaches", "shape": "got shape",
        "none": "returned NoneType, expected a tensor", "zeros": "got 0, expected", "rounded": "as close as float32",
        "off by one": "out[0, 0, 0]: got",
    }  # fmt: skip
    assert any(expected[name] in said for said in result.says), result.says


def test_the_file_that_ran_is_the_students(runner, tmp_path):
    files = solution(TWIST_OF["both"])
    whole = graded(runner, tmp_path, files, public_only=True)
    for name, text in files.items():
        assert whole.sha256[name] == hashlib.sha256(text.encode()).hexdigest()
    outcome = runner.run(A03, "nn.rope", files["rope.py"].encode(), [])
    assert outcome.sha256 == whole.sha256["rope.py"]
    test = A03.tests[0]
    cases = draw(A03, test, b"")
    right = {i: expected_of(A03, A03.exercise(test.exercise), case, {}) for i, case in enumerate(cases)}
    assert judge(A03, test, A03.exercise("3.1"), cases, Outcome("ended", right, sha256="x"), {}, "x").passed
    assert not judge(A03, test, A03.exercise("3.1"), cases, Outcome("ended", right, sha256="y"), {}, "x").passed


def test_missing_files_broken_files_and_links_cost_only_what_hangs_on_them(runner, tmp_path):
    files = solution(TWIST_OF["both"])
    del files["rope.py"]
    files["twist.py"] = "def twisted_attend(q, k, v, visible:\n"
    whole = graded(runner, tmp_path / "inner", files)
    whole = grade(A03, tmp_path, "somebody", TWIST_OF["both"], runner, SECRET)  # one folder deeper is found too
    lost = {each.test.exercise: each.says for each in whole.results if not each.passed}
    assert lost.keys() == {"3.1", "3.5"}
    assert lost["3.1"] == ("rope.py is missing",)
    assert "SyntaxError" in lost["3.5"][0] and "twist.py, line 1" in lost["3.5"][0]
    (tmp_path / "inner/rope.py").symlink_to(tmp_path / "inner/attention.py")
    whole = grade(A03, tmp_path, "somebody", TWIST_OF["both"], runner, SECRET)
    assert whole.results[0].says == ("rope.py is a link, not a file",)


def test_the_first_difference_is_told_in_numbers():
    right = np.arange(6.0).reshape(2, 3)
    wrong = right.copy()
    wrong[0, 2] = 7
    said = compare({"out": wrong}, {"out": right})
    assert said is not None
    assert said.says == "out[0, 2]: got 7, expected 2 (the first of 1 of 6 numbers that differ)"
    wrong[1] = np.nan
    said = compare({"out": wrong}, {"out": right})
    assert said is not None and "3 are NaN" in said.says
    assert compare({"out": right}, {"out": right}) is None
    missing = compare({}, {"out": right})
    assert missing is not None and missing.says == "out: nothing came back, expected float64 [2, 3]"


def test_one_value_for_several_is_said_to_be_one():
    said = compare({"out": np.zeros(2)}, {"out 0": np.zeros(2), "out 1": np.zeros(2), "out 1[a]": np.zeros(2)})
    assert said is not None and said.says == "out: one value came back, expected 2 (out 0 and so on)"


def test_what_is_not_written_yet_is_said_without_a_hint(runner, tmp_path):
    whole = graded(runner, tmp_path, skeleton(TWIST_OF["both"]))
    test = named(whole.results, "rotate: every point by its angle").test
    assert named(whole.results, test.name).says == (f"not written yet: {A03.exercise(test.exercise).message}",)


def test_what_a_wrong_answer_printed_is_shown(runner, tmp_path):
    files = solution(TWIST_OF["both"])
    files["rope.py"] = files["rope.py"].replace("return torch.cat(", "print('look here'); return 0 * torch.cat(")
    says = named(graded(runner, tmp_path, files).results, "rotate: every point by its angle").says
    assert any(said.startswith("it printed: look here") for said in says)


def test_files_that_cannot_be_imported_or_lack_the_function_are_noted(runner, tmp_path):
    files = solution(TWIST_OF["both"]) | {"rope.py": "def rotate((x):\n    return x\n"}
    files["attention.py"] += "\n\nmy_attend = eager_attend\ndel eager_attend\n"
    whole = graded(runner, tmp_path, files)
    assert len(whole.notes) == 1 and whole.notes[0].startswith("rope.py cannot be imported: SyntaxError")
    assert whole.notes[0].count("rope.py, line 1") == 1, "the line is said once"
    says = named(whole.results, "attend: everything is visible").says
    assert "attention.py has no eager_attend: was it renamed or taken out?" in says
    (tmp_path / "rope.py").unlink()
    assert graded(runner, tmp_path, {}).notes == ("rope.py is missing",)


def test_a_twist_that_is_not_this_students_is_noted_and_a_reformatted_one_is_not(runner, tmp_path):
    files = solution(Twist(cap=2.4, slope=0.25))
    whole = graded(runner, tmp_path, files, TWIST_OF["both"])
    assert len(whole.notes) == 1 and "not those drawn for somebody" in whole.notes[0]
    for report in (markdown(whole), table([whole]), as_json(whole)):
        assert "not those drawn for somebody" in report
    assert graded(runner, tmp_path, files, Twist(cap=2.4, slope=0.25)).notes == ()
    blank = skeleton(TWIST_OF["both"])
    blank["twist.py"] = blank["twist.py"].replace("\n1. ", "\n\n   1.  ", 1)
    assert graded(runner, tmp_path, blank).notes == ()


def test_what_must_not_change_in_place_is_watched(runner, tmp_path):
    a05 = load_assignment("a05")
    twist = next(iter(variants_of(a05).values()))
    files = solution(twist, a05)
    before = "velocity = momentum * velocity + gradient"
    assert files["optimizers.py"].count(before) == 1
    files["optimizers.py"] = files["optimizers.py"].replace(before, "velocity *= momentum; velocity += gradient")
    says = named(grade(a05, write(tmp_path, files), "somebody", twist, runner).results, "momentum: one step").says
    assert "out['changed in place']: got 'state', expected 'nothing'" in [said.replace(" (text)", "") for said in says]


def test_the_skeletons_of_one_module_do_not_drag_others_down(runner, tmp_path):
    """Exercises 3.1 and 3.3 unwritten, the layer of 3.4 written: its points are given, on the library's own parts."""
    files = solution(TWIST_OF["both"]) | {"rope.py": skeleton(TWIST_OF["both"])["rope.py"]}
    files[file_name("nn.attention")] = cut(module_source("nn.attention"), {"eager_attend": "Exercise 3.3"})
    whole = graded(runner, tmp_path, files)
    assert {each.test.exercise for each in whole.results if not each.passed} == {"3.1", "3.3"}
    assert whole.twist == {"cap": 2.3, "slope": 0.25}
