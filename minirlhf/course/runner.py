"""Runs cases on a student's file in a child process, and tells what came back. Student code never runs in here."""

import ast
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType

from minirlhf.course.assignment import TWIST, Assignment, file_name, module_source
from minirlhf.course.jobs import Arrays, Case, pack_cases, unpack_results
from minirlhf.course.kit import twist_of
from minirlhf.course.shortcuts import imported

PACKAGE = Path(__file__).resolve().parent.parent
MOST_OUTPUT = 2000
"""Characters of what the student's code printed that are kept."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    status   "ended", "timeout", "signal N", "exit N" or "crash"
    results  case -> arrays, for the cases that came through
    error    the type of the exception that stopped it, its message, and its line in the student's file (0: elsewhere)
    printed  the beginning of what it printed
    sha256   of the file that really ran
    """

    status: str
    results: dict[int, Arrays] = field(default_factory=dict)
    error: str = ""
    message: str = ""
    line: int = 0
    imported: bool = False
    forbidden: str = ""
    printed: str = ""
    sha256: str = ""


class Runner:
    """Starts children. Where processes fork, one clean process imports torch once and forks a child per request."""

    def __init__(self) -> None:
        self.server: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, assignment: Assignment, module: str, source: bytes, cases: Sequence[Case]) -> Outcome:
        """Imports the source as the module and runs the cases (none: only the import)."""
        with tempfile.TemporaryDirectory(prefix="minirlhf-course-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            jobs, arrays = pack_cases(cases)
            hidden = [*assignment.hidden, *([] if module == TWIST else [f"{module.replace('.', '/')}.py"])]
            opened = needed(module if module != TWIST else "", twist_of(assignment).CODE if module == TWIST else "")
            order = {"module": module, "file": file_name(module), "jobs": jobs, "hidden": hidden, "opened": opened,
                     "banned": assignment.banned, **vars(assignment.limits)}  # fmt: skip
            (folder / "job.json").write_text(json.dumps(order), encoding="utf-8")
            (folder / "source.py").write_bytes(source)
            (folder / "inputs.safetensors").write_bytes(arrays)
            status = self.start(folder, assignment.limits.seconds)
            return read_outcome(folder, status, hashlib.sha256(source).hexdigest(), assignment.limits.output_kib)

    def start(self, folder: Path, seconds: float) -> str:
        """The child's status."""
        if not hasattr(os, "fork"):
            return once(folder, seconds)
        if self.server is None or self.server.poll() is not None:
            self.server = serve(folder)
        assert self.server.stdin is not None and self.server.stdout is not None
        try:
            self.server.stdin.write(json.dumps({"folder": str(folder), "seconds": seconds}) + "\n")
            self.server.stdin.flush()
            return str(json.loads(self.server.stdout.readline())["status"])
        except (OSError, ValueError):
            self.stop()
            return "crash"

    def stop(self) -> None:
        if self.server is not None:
            with contextlib.suppress(OSError):
                self.server.kill()
            for stream in (self.server.stdin, self.server.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self.server.wait()
        self.server = None


@cache
def needed(module: str, source: str = "") -> list[str]:
    """The files below minirlhf that a module of it imports, and what those import, itself left out."""
    found: set[str] = set()
    waiting = [(module, source or module_source(module))]
    while waiting:
        name, source = waiting.pop()
        found |= {f"{'/'.join(name.split('.')[:i])}/__init__.py" for i in range(1, name.count(".") + 1)}
        for what, part in imported(ast.parse(source)):
            for full in (what, f"{what}.{part}"):
                path = full.removeprefix("minirlhf.").replace(".", "/") + ".py"
                if full.startswith("minirlhf.") and path not in found and (PACKAGE / path).is_file():
                    found.add(path)
                    waiting.append((full.removeprefix("minirlhf."), (PACKAGE / path).read_text(encoding="utf-8")))
    return sorted(found - {f"{module.replace('.', '/')}.py"})


def environment() -> dict[str, str]:
    """What a child knows of the world: where Python and this very package are, and no secret."""
    kept = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR", "TEMP")
    package = str(Path(__file__).resolve().parents[2])
    own = {"PYTHONPATH": package, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0",
           "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}  # fmt: skip
    return {name: os.environ[name] for name in kept if name in os.environ} | own


def serve(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "minirlhf.course.child"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
        env=environment(), cwd=folder.parent,
    )  # fmt: skip


def once(folder: Path, seconds: float) -> str:
    """A process of its own for one folder; torch is imported each time, which gets 30 seconds more."""
    command = [sys.executable, "-m", "minirlhf.course.child", "--once", str(folder)]
    with open(folder / "log.txt", "wb") as log:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), cwd=folder,
                timeout=seconds + 30, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "timeout"
    return "ended" if done.returncode == 0 else f"exit {done.returncode}"


def read_outcome(folder: Path, status: str, sha256: str, output_kib: int) -> Outcome:
    """What lies in the folder afterwards. The report is only words: points depend on the arrays alone."""
    with contextlib.suppress(OSError):
        printed = bounded(folder / "log.txt", MOST_OUTPUT).decode("utf-8", errors="replace")
    report = {}
    with contextlib.suppress(OSError, ValueError):
        report = json.loads(bounded(folder / "report.json", 10_000).decode("utf-8", errors="replace"))
    if not isinstance(report, dict):
        report = {}
    results: dict[int, Arrays] = {}
    with contextlib.suppress(OSError, ValueError):
        results = unpack_results(bounded(folder / "outputs.safetensors", output_kib * 1024))
    line = report.get("line", 0)
    return Outcome(
        status=status, results=results, error=str(report.get("error", "")), message=str(report.get("message", "")),
        line=line if isinstance(line, int) else 0, imported=bool(report.get("imported")),
        forbidden=str(report.get("forbidden", "")), printed=locals().get("printed", ""), sha256=sha256,
    )  # fmt: skip


def bounded(path: Path, most: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(most)


@contextlib.contextmanager
def runners(count: int) -> Iterator[list[Runner]]:
    """So many runners, stopped at the end."""
    made = [Runner() for _ in range(count)]
    try:
        yield made
    finally:
        for runner in made:
            runner.stop()
