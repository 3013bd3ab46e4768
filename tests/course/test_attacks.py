"""Planted attacks: each gets 0, results.json is written, and nothing outside the child has changed.

Each is tried twice: as it stands, where reading the file is often enough to refuse it, and with that reading turned
off, so that the sandbox alone must hold.
"""

import dataclasses
import json

import pytest

from minirlhf.course import batch, grading, runner
from minirlhf.course.assignment import Limits, module_source
from minirlhf.course.kit import draw_twist
from tests.course.submissions import A03, SECRET, skeleton, write

QUICK = dataclasses.replace(A03, limits=Limits(seconds=1.0, memory_mib=256, output_kib=1024))
STUB = "def rotate(x, rotation):\n    {body}\n"

AT_IMPORT = {
    "an import error": "import no_such_module",
    "a syntax error": "def rotate(x",
    "null bytes": "x = '\0'",
    "an endless loop": "while True: pass",
    "leaving": "import sys\nsys.exit(0)",
    "leaving at once": "import os\nos._exit(0)",
    "leaving by exception": "raise SystemExit(0)",
    "an interrupt": "raise KeyboardInterrupt",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "killing the family": "import os\nos.kill(os.getppid(), 9)",
    "killing itself": "import signal\nsignal.raise_signal(9)",
    "starting a program": "import subprocess\nsubprocess.run(['touch', 'TARGET'])",
    "a child that lives on": "import os\nif os.fork() == 0:\n    open('TARGET', 'w').write('{}')",
    "a thread that lives on": (
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(60), open('TARGET', 'w'))).start()"
    ),
    "writing the result": "open('TARGET', 'w').write('{\"score\": 100}')",
    "writing the result by path": "import pathlib\npathlib.Path('TARGET').write_text('{\"score\": 100}')",
    "removing the result": "import os\nos.remove('TARGET')",
    "a socket": "import socket\nsocket.create_connection(('127.0.0.1', 9))",
    "taking the hook away": "import sys\nsys.addaudithook(lambda *a: None)\nopen('TARGET', 'w')",
}
IN_THE_CALL = {
    "a memory bomb": "hoard = []\n    while True: hoard.append(x.new_ones(10**7))",
    "a memory bomb of lists": "hoard = [0] * 10**9",
    "endless recursion": "return rotate(x, rotation)",
    "an exception without end": "raise Exception('x' * 10**8)",
    "a flood of output": "while True: print('x' * 10**6)",
    "an object equal to everything": (
        "return type('Same', (), {'__eq__': lambda a, b: True, 'shape': x.shape, 'dtype': x.dtype})()"
    ),
    "a tensor equal to everything": (
        "import torch\n    class Same(torch.Tensor):\n        __eq__ = lambda a, b: True\n"
        "        detach = lambda a: a\n    return x.as_subclass(Same)"
    ),
    "the input as the answer": "return x",
    "nan as the answer": "return x * float('nan')",
    "a result too large": "return x.expand(1000, *x.shape).repeat(1000, 1, 1, 1, 1)",
    "patched torch": (
        "import torch\n    torch.allclose = torch.equal = lambda *a, **k: True\n"
        "    torch.testing.assert_close = lambda *a, **k: None\n    return x"
    ),
    "patched numpy": (
        "import numpy as np\n    np.isclose = np.allclose = lambda a, *_, **k: np.ones_like(a, dtype=bool)\n"
        "    np.testing.assert_allclose = lambda *a, **k: None\n    return x"
    ),
    "patched pytest": "import pytest\n    pytest.fail = lambda *a, **k: None\n    return x",
    "patched grader": (
        "import minirlhf.course.feedback as f\n    f.compare = lambda *a: None\n    return x"
    ),
    "the patched child": (
        "import sys\n    child = sys.modules['__main__']\n    child.call_job = lambda *a: {'out': x}\n    return x"
    ),
    "the library's own file": (
        "import importlib.util\n    spec = importlib.util.spec_from_file_location('own', 'LIBRARY/nn/rope.py')\n"
        "    own = importlib.util.module_from_spec(spec)\n    spec.loader.exec_module(own)\n"
        "    return own.rotate(x, rotation)"
    ),
    "the reference": "from minirlhf.reference import rope\n    return x",
    "reading the assignment": "open('ASSIGNMENTS/a03_attention.toml').read()\n    return x",
    "reading its folder": "open('job.json').read()\n    return x",
    "reading the secret": "open('SECRET').read()\n    return x",
    "the environment": "import os\n    assert any('ecret' in each for each in os.environ.values())\n    return x",
    "a banned call by another name": (
        "import torch.nn.functional as F\n    return getattr(F, 'scaled_dot' + '_product_attention')(x, x, x)"
    ),
    "a banned call bound early": (
        "import torch\n    return torch._C._nn.__dict__['scaled_dot' + '_product_attention'](x, x, x)"
    ),
}  # fmt: skip
ATTACKS = AT_IMPORT | {name: STUB.format(body=body) for name, body in IN_THE_CALL.items()}


@pytest.fixture(scope="module")
def server():
    with runner.Runner() as started:
        yield started


@pytest.mark.parametrize("read_first", [True, False], ids=["read first", "sandbox alone"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gets_nothing_and_the_result_is_written(name, read_first, tmp_path, monkeypatch, server):
    secret, target = tmp_path / "secret.txt", tmp_path / "out/mallory/results.json"
    target.parent.mkdir(parents=True)  # so that only the sandbox stands between an attack and a file of its own there
    secret.write_bytes(SECRET)
    monkeypatch.setenv("MINIRLHF_SECRET", "the secret")
    monkeypatch.setattr(batch, "Runner", lambda: Kept(server))
    monkeypatch.setattr(grading, "shortcuts", grading.shortcuts if read_first else lambda *_: [])
    places = {"TARGET": target.with_name("planted"), "SECRET": secret,
              "LIBRARY": runner.Path(runner.__file__).parents[1],
              "ASSIGNMENTS": grading.Path(runner.__file__).parents[2] / "chapters/assignments"}  # fmt: skip
    source = ATTACKS[name]
    for word, place in places.items():
        source = source.replace(word, str(place))
    submission = write(tmp_path / "in/mallory", skeleton(draw_twist(SECRET, "mallory", A03)))
    (submission / "rope.py").write_text(source, encoding="utf-8")
    quick = dataclasses.replace(QUICK, tests=tuple(each for each in QUICK.tests if each.exercise in ("3.1", "3.2")))
    graded = batch.grade_one(quick, submission, SECRET, tmp_path / "out")
    assert graded.earned() == 0
    written = json.loads(target.read_text(encoding="utf-8"))
    assert written["score"] == 0
    assert len(written["tests"]) == len(quick.tests)
    assert not any("grader failed" in problem for problem in graded.problems)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        ["secret.txt", "results.json", "results.md", "attention.py", "rope.py", "twist.py"]
    )
    after = server.run(A03, "nn.attention", b"fine = 1", [])
    assert after.imported, "the next submission is graded as if nothing had happened"


class Kept:
    """A runner that is not stopped: starting one takes a second, and its children are new each time anyway."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        return self.server

    def __exit__(self, *_):
        return None


def test_reading_a_file_finds_the_banned_and_the_far_reaching():
    found = grading.shortcuts(
        A03, "nn.rope",
        b"import os\nimport torch.nn.functional as F\nfrom minirlhf.nn.lean_attention import lean_attend\n"
        b"def rotate(x, rotation):\n    open('a')\n    getattr(F, 'multi_head_attention_forward')\n"
        b"    return F.scaled_dot_product_attention(x, x, x)\n",
        grading.skeleton_of(A03, "nn.rope", {}),
    )  # fmt: skip
    for said in (
        "rope.py, line 1: the import of os is not allowed",
        "rope.py, line 3: the import of minirlhf.nn.lean_attention.lean_attend is not allowed",
        "rope.py, line 5: open has no place in an exercise",
        "rope.py, line 6: torch.nn.functional.multi_head_attention_forward is not allowed",
        "line 7: torch",
    ):
        assert any(said in each for each in found), (said, found)


def test_reading_a_file_lets_honest_work_be():
    for module, source in {
        "nn.rope": module_source("nn.rope"),
        "nn.attention": module_source("nn.attention")
        + "\nimport math, functools\nimport numpy as np\ninput = vars = 'plain words are no reach'\n",
    }.items():
        assert grading.shortcuts(A03, module, source.encode(), grading.skeleton_of(A03, module, {})) == []


def test_banned_calls_are_refused_while_they_run(server):
    source = (
        b"import torch\nfrom torch.nn.functional import scaled_dot_product_attention as sdpa\n"
        b"def rotate(x, rotation):\n    return sdpa(x, x, x)\n"
    )
    cases = grading.draw(A03, A03.tests[0], b"")
    outcome = server.run(A03, "nn.rope", source, cases)
    assert (outcome.error, outcome.line) == ("Banned", 4)
    assert "scaled_dot_product_attention is not allowed" in outcome.message


def test_without_fork_each_test_has_a_process_of_its_own(monkeypatch, tmp_path):
    monkeypatch.delattr(runner.os, "fork")
    with runner.Runner() as single:
        cases = grading.draw(A03, A03.tests[0], b"")
        outcome = single.run(A03, "nn.rope", module_source("nn.rope").encode(), cases)
        assert outcome.status == "ended" and len(outcome.results) == len(cases)
        assert single.run(A03, "nn.rope", b"raise SystemExit(0)", cases).error == "SystemExit"
