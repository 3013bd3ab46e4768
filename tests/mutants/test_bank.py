"""The bank itself: every planted mistake can be planted, is a mistake of its own, and the gate judges rightly."""

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.bank import KINDS, ROOMS, read_bank, read_room

ROOT = Path(__file__).resolve().parents[2]
BANK = read_bank()


def source_of(mutant) -> str:
    return (ROOT / "minirlhf" / mutant.file).read_text(encoding="utf-8")


def of_room(room):
    return [mutant for mutant in BANK if mutant.room == room]


def test_the_bank_is_large_and_no_room_is_forgotten():
    sizes = Counter(mutant.room for mutant in BANK)
    assert sizes.keys() == set(ROOMS)
    assert sum(sizes.values()) >= 120
    assert min(sizes.values()) >= 20


def test_names_are_unique_and_short_enough_for_the_table():
    assert [name for name, times in Counter(mutant.name for mutant in BANK).items() if times > 1] == []
    assert [mutant.name for mutant in BANK if len(mutant.name) > 48] == []


def test_the_kinds_are_known_and_the_named_tests_exist():
    assert sorted({mutant.kind for mutant in BANK} - set(KINDS)) == []
    named = {name for mutant in BANK for name in mutant.tests}
    assert sorted(name for name in named if not (ROOT / "tests" / name).is_file()) == []
    assert all(mutant.tests for mutant in BANK)


@pytest.mark.parametrize("room", ROOMS)
def test_each_mistake_fits_its_file_once_and_leaves_other_code_that_parses(room):
    problems, seen = [], {}
    for mutant in of_room(room):
        source = source_of(mutant)
        if source.count(mutant.before) != 1:
            problems.append(f"{mutant.name}: its text stands {source.count(mutant.before)} times in {mutant.file}")
            continue
        try:
            tree = ast.dump(ast.parse(mutant.applied_to(source)))
        except SyntaxError as error:
            problems.append(f"{mutant.name}: {error}")
            continue
        if tree == ast.dump(ast.parse(source)):
            problems.append(f"{mutant.name} changes no code")
        twin = seen.setdefault((mutant.file, tree), mutant.name)
        if twin != mutant.name:
            problems.append(f"{mutant.name} is {twin} again")
    assert not problems, "\n".join(problems)


def test_a_text_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="stands 2 times"):
        BANK[0].applied_to(source_of(BANK[0]) + BANK[0].before)


def test_a_block_that_is_no_mutant_is_refused_with_its_line(tmp_path):
    path = tmp_path / "nn.txt"
    path.write_text("=== nn/a.py\ntests: nn/test_a.py\n\nname without kind\n- a\n+ b\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"nn\.txt:7"):
        list(read_room(path))


SMALL_BANK = """
=== nn/add.py
tests: nn/test_add.py

caught (sign): a test looks at the sign
- x + y
+ x - y

caught-elsewhere (constant): only a test of another room looks
- LIMIT = 3
+ LIMIT = 4

missed (constant): nobody looks
- UNWATCHED = 1
+ UNWATCHED = 2

no-proof (constant): an undefined name is no wrong answer
- UNWATCHED = 1
+ UNWATCHED = undefined

endless (boundary): a loop that never ends
- while x > LIMIT:
+ while x > 0 or True:
"""

JUDGE = """
import json, sys
from pathlib import Path
from tests.mutants.bank import read_room
from tests.mutants.run import Verdict, judge
here = Path(sys.argv[1])
for news in judge(here / "checkout", list(read_room(here / "bank.txt")), workers=2, grace=2.0):
    print(json.dumps([news.name, news.by, news.how] if isinstance(news, Verdict) else news))
"""


def test_the_gate_tells_caught_from_missed_on_a_package_of_ten_lines(tmp_path):
    files = {
        "bank.txt": SMALL_BANK,
        "checkout/pyproject.toml": "[tool.pytest.ini_options]\n",
        "checkout/minirlhf/__init__.py": "",
        "checkout/minirlhf/nn/__init__.py": "",
        "checkout/minirlhf/nn/add.py": (
            "LIMIT = 3\nUNWATCHED = 1\n\n\ndef add(x, y):\n    return x + y\n\n\n"
            "def shrink(x):\n    while x > LIMIT:\n        x -= 1\n    return x\n"
        ),
        "checkout/tests/__init__.py": "",
        "checkout/tests/nn/__init__.py": "",
        "checkout/tests/nn/test_add.py": (
            "from minirlhf.nn.add import add, shrink\n\n\ndef test_red_anyway():\n    assert add(0, 0) == 1\n\n\n"
            "def test_add():\n    assert add(2, 1) == 3\n\n\ndef test_shrink():\n    assert shrink(9) < 9\n"
        ),
        "checkout/tests/data/test_limit.py": (
            "from minirlhf.nn.add import shrink\n\n\ndef test_limit():\n    assert shrink(9) == 3\n"
        ),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    command = [sys.executable, "-c", JUDGE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    news = [json.loads(line) for line in done.stdout.splitlines()]
    red = "tests/nn/test_add.py::test_red_anyway"
    assert news[0] == f"{red} (tests/nn/test_add.py)"
    verdicts = {name: (by, how) for name, by, how in filter(lambda each: isinstance(each, list), news)}
    assert verdicts.pop("no-proof")[0] == ""
    assert verdicts == {
        "caught": ("tests/nn/test_add.py::test_add", "AssertionError"),
        "caught-elsewhere": ("tests/data/test_limit.py::test_limit", "AssertionError"),
        "missed": ("", ""),
        "endless": ("tests/nn/test_add.py::test_shrink", "never ended"),
    }
    assert (tmp_path / "checkout/minirlhf/nn/add.py").read_text(encoding="utf-8") == files[
        "checkout/minirlhf/nn/add.py"
    ]
