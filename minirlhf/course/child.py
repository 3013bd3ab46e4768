"""The process in which a student's code runs: it gets inputs, writes arrays, and never holds an expected value.

`python -m minirlhf.course.child` waits for folders on its standard input, one a line. Each is handled by a process of
its own: a fork where there is one (torch is imported once), or, with `--once FOLDER`, this very process. In the folder:

    job.json        which module, its source's SHA-256, the calls, limits, banned names     (read)
    source.py       the student's file                                                      (read)
    inputs.safetensors                                                                      (read)
    outputs.safetensors, report.json, log.txt                                               (written)
"""

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import einops
import torch

from minirlhf.course.jobs import call as call_job
from minirlhf.course.jobs import pack_results, play_of, unpack_cases
from minirlhf.course.sandbox import ban, forbid, limit

HIDDEN = ("reference", "testing", "course", "shipped_course")
"""Folders of the package that the code under test cannot read, but for what its own skeleton imports from there."""


class Overlay(importlib.abc.MetaPathFinder):
    """Lays the student's file over one module of the package; every other module is the library's."""

    def __init__(self, loader: "StudentFile"):
        self.loader = loader

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        loader = self.loader
        return importlib.machinery.ModuleSpec(fullname, loader, origin=loader.path) if fullname == loader.name else None


class StudentFile(importlib.machinery.SourceFileLoader):
    """A module made of given bytes; errors name the file as the student knows it."""

    def __init__(self, module: str, source: bytes, shown_as: str):
        super().__init__(module, shown_as)
        self.source = source

    def get_data(self, path: str | bytes) -> bytes:
        return self.source

    def path_stats(self, path: str | bytes) -> Any:
        raise OSError("never compiled to a file")

    def set_data(self, *_: object, **__: object) -> None:
        """Nothing is cached on disk."""


def run(folder: Path) -> None:
    """Handles one folder; what the student's code does wrong ends up in report.json."""
    order = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    source = (folder / "source.py").read_bytes()
    cases = unpack_cases(order["jobs"], (folder / "inputs.safetensors").read_bytes())
    report: dict[str, Any] = {"sha256": hashlib.sha256(source).hexdigest(), "done": 0}
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
    outputs, said = (os.open(folder / name, flags, 0o600) for name in ("outputs.safetensors", "report.json"))
    package = Path(__file__).resolve().parent.parent
    module = f"minirlhf.{order['module']}" if order["module"] != "twist" else "twist"
    hidden = [package / name for name in HIDDEN]
    closed, opened = ([package / name for name in order[word]] for word in ("hidden", "opened"))
    for case in cases:
        if case.job.play:
            play_of(case.job)  # read now, because its folder is closed to the student's code
    answers = [name for name in sys.modules if name == module or name.endswith(".twist")
               or name.startswith(("minirlhf.reference.", "minirlhf.testing."))]  # fmt: skip
    assert not answers, f"a play must not import {answers}"
    limit(order["memory_mib"], order["seconds"], order["output_kib"])
    forbid(hidden, closed, opened, lambda what: _write(said, json.dumps(report | {"forbidden": what})))
    results = {}
    try:
        ban(order["banned"])
        sys.meta_path.insert(0, Overlay(StudentFile(module, source, order["file"])))
        loaded = importlib.import_module(module)
        report["imported"] = True
        for i, case in enumerate(cases):
            results[i] = call_job(loaded, case)
            report["done"] = i + 1
    except BaseException as error:
        report |= {"error": type(error).__name__, "message": str(error)[:500], "line": line_of(error, order["file"])}
    _write(outputs, pack_results(results))
    _write(said, json.dumps(report))


def line_of(error: BaseException, file: str) -> int:
    """The line of the student's file where the error came from, 0 if it never passed through it."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    found, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def _write(descriptor: int, data: str | bytes) -> None:
    view = memoryview(data.encode("utf-8") if isinstance(data, str) else data)
    while view:
        view = view[os.write(descriptor, view) :]


def serve() -> None:
    """Forks a child per folder, ends it when its time is up, and answers with how it ended, one JSON line each."""
    torch.set_num_threads(1)
    einops.rearrange(torch.zeros(1, 1), "a b -> b a")  # what einops loads at its first use
    (torch.zeros(1, requires_grad=True) * 1.0).sum().backward()
    for line in sys.stdin:
        folder = Path(json.loads(line)["folder"])
        seconds = float(json.loads(line)["seconds"])
        child = os.fork()
        if child == 0:
            _become(folder)
        print(json.dumps({"status": _wait(child, seconds)}), flush=True)


def _become(folder: Path) -> None:
    """The forked child: a process group and an output of its own, then the folder's work, then nothing."""
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        run(folder)
        sys.stdout.flush()
        status = 0
    except BaseException:  # a fault of the grader's own: what the student's code raises is in the report
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(child: int, seconds: float) -> str:
    """`ended`, `timeout`, `signal N` or `exit N`. The child's whole group is gone afterwards."""
    deadline, pause, status = time.monotonic() + seconds, 0.001, None
    while status is None and time.monotonic() < deadline:
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        if status is None:
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
        return "timeout"
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return "ended" if os.WEXITSTATUS(status) == 0 else f"exit {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        torch.set_num_threads(1)
        run(Path(sys.argv[2]))
    else:
        serve()
