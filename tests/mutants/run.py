"""Plants every mistake of the bank, one at a time, and looks for the test that turns red.

    python -m tests.mutants.run [--room nn ...] [--only NAME ...] [--workers N] [--nearest] [--json FILE]

The checkout is copied to a temporary folder, once for each worker, and only the copies are changed. This process
imports torch, pytest and hypothesis once; for each mutant it forks a child that runs pytest on its worker's copy:
first the tests named beside the mutant, then the folder of its room, then all the others, the quickest first. So it
needs a system that can fork.

A mutant is caught when a test fails, or never ends, that passes without it. A broken import, an undefined name or a
child that dies proves nothing: the mutant counts as missed. Hypothesis draws the same cases as always, but wastes no
time on shrinking what fails. Exit code 1 unless all are caught and all tests were green before.
"""

import argparse
import compileall
import importlib
import json
import os
import py_compile
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.mutants.bank import ROOMS, Mutant, read_bank
from tests.mutants.child import run_pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".ci", "dist", "build", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis"
)
IMPORTED_ONCE = (
    "numpy.testing", "torch", "einops", "regex", "safetensors.torch", "pytest", "_pytest.assertion.rewrite",
    "hypothesis.extra.numpy", "hypothesis.internal.conjecture.engine",
)  # fmt: skip
SLOWER = 6.0  # how many times the time it takes without a mutant a run may take, beyond the grace, before it hangs


@dataclass(frozen=True)
class Job:
    """Test files to run, on a copy with this mutant in it or on a clean one."""

    files: tuple[str, ...]
    mutant: Mutant | None
    limit: float


@dataclass(frozen=True)
class Outcome:
    """What pytest said. red: test -> the exception's name; green: test -> seconds; broken: files not collected."""

    red: dict[str, str] = field(default_factory=dict)
    green: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    trouble: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """by is the test that caught the mutant, how its exception or "never ended"; empty where nothing did."""

    name: str
    room: str
    file: str
    kind: str
    caught: bool
    by: str
    how: str
    seconds: float


def run_jobs(
    jobs: Iterable[Job], trees: Sequence[Path], green: Mapping[str, float] | None
) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs, one child per tree at a time, on these tests; yields each as it ends."""
    waiting, free = list(jobs)[::-1], list(trees)
    running: dict[int, tuple[Job, Path, float, str]] = {}
    while waiting or running:
        while waiting and free:
            job, tree = waiting.pop(), free.pop()
            source = ""
            if job.mutant is not None:
                path = tree / "minirlhf" / job.mutant.file
                source = path.read_text(encoding="utf-8")
                path.write_text(job.mutant.applied_to(source), encoding="utf-8")
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                run_pytest(tree, job.files, green)  # never returns
            running[pid] = (job, tree, time.monotonic(), source)
        time.sleep(0.01)
        for pid, (job, tree, started, source) in list(running.items()):
            seconds = time.monotonic() - started
            hangs = seconds > job.limit
            if hangs:
                os.killpg(pid, 9)
            ended, status = os.waitpid(pid, 0 if hangs else os.WNOHANG)
            if not ended:
                continue
            del running[pid]
            if job.mutant is not None:
                (tree / "minirlhf" / job.mutant.file).write_text(source, encoding="utf-8")
            free.append(tree)
            yield job, outcome_of(tree, hangs, status, seconds)


def outcome_of(tree: Path, hangs: bool, status: int, seconds: float) -> Outcome:
    report = tree.parent / f"{tree.name}.json"
    if hangs:
        begun = tree.parent / f"{tree.name}.begun"
        name = begun.read_text(encoding="utf-8") if begun.exists() else ""
        trouble = "" if name else "hung before any test"
        return Outcome({name: "never ended"} if name else {}, trouble=trouble, seconds=seconds)
    if status or not report.exists():
        return Outcome(trouble=f"the child died with status {status}", seconds=seconds)
    content = json.loads(report.read_text(encoding="utf-8"))
    return Outcome(**content, seconds=seconds)


def stage_files(mutant: Mutant, every: Sequence[str], stage: int) -> tuple[str, ...]:
    """Where to look at stage 0 (the tests named beside it), 1 (its room's folder) and 2 (everything else)."""
    nearest = tuple(f"tests/{name}" for name in mutant.tests)
    room = tuple(name for name in every if name.startswith(f"tests/{mutant.room}/") and name not in nearest)
    rest = tuple(name for name in every if name not in nearest and name not in room)
    return (nearest, room, rest)[stage]


def left_behind(root: Path) -> Callable[[str, list[str]], set[str]]:
    """What copytree leaves out. `runs` only in the root, where commands write: the package has a room runs/."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        return NOT_COPIED(folder, names) | ({"runs"} if Path(folder) == root else set())

    return ignored


def judge(
    root: Path, mutants: Sequence[Mutant], workers: int, stages: int = 3, grace: float = 20.0
) -> Iterator[Verdict | str]:
    """A verdict for each mutant, as it falls; and as text whatever was red before any mistake was planted."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trees = [Path(scratch) / f"copy{number}" for number in range(workers)]
        shutil.copytree(root, trees[0], ignore=left_behind(root), symlinks=True)
        # Compiled files are trusted by the hash of their source, not by its date: two mutants a second would fool that.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(trees[0] / "minirlhf", quiet=2, invalidation_mode=checked)
        for tree in trees[1:]:
            shutil.copytree(trees[0], tree, symlinks=True)
        found = sorted(path.relative_to(trees[0]).as_posix() for path in (trees[0] / "tests").rglob("test_*.py"))
        every = [name for name in found if not name.startswith("tests/mutants/")]

        clean: dict[str, float] = {}  # test file -> seconds it takes without a mutant
        green: dict[str, float] = {}  # test -> the same
        spent = dict.fromkeys(mutants, 0.0)
        trouble = dict.fromkeys(mutants, "")
        for stage in range(stages):
            wanted = {mutant: stage_files(mutant, every, stage) for mutant in spent}
            new = sorted({name for files in wanted.values() for name in files} - clean.keys())
            for job, outcome in run_jobs([Job((name,), None, 1800.0) for name in new], trees, None):
                (name,) = job.files
                clean[name] = outcome.seconds
                green |= outcome.green
                complaints = [*outcome.red, *outcome.broken, *filter(None, [outcome.trouble])]
                yield from (f"{complaint} ({name})" for complaint in complaints)
            jobs = [
                Job(files, mutant, grace + SLOWER * sum(clean[name] for name in files))
                for mutant, files in wanted.items()
                if files
            ]
            for job, outcome in run_jobs(jobs, trees, green):
                mutant = job.mutant
                assert mutant is not None
                spent[mutant] += outcome.seconds
                trouble[mutant] = outcome.trouble or ", ".join(outcome.broken)
                for test, how in outcome.red.items():
                    if mutant in spent:
                        yield verdict(mutant, True, test, how, spent.pop(mutant))
        for mutant, seconds in spent.items():
            yield verdict(mutant, False, "", trouble[mutant], seconds)


def verdict(mutant: Mutant, caught: bool, by: str, how: str, seconds: float) -> Verdict:
    return Verdict(mutant.name, mutant.room, mutant.file, mutant.kind, caught, by, how, round(seconds, 2))


def row(verdict: Verdict) -> str:
    by = verdict.by.removeprefix("tests/") if verdict.caught else "MISSED"
    how = f" [{verdict.how}]" if verdict.how not in ("", "AssertionError") else ""
    return f"{verdict.name:<40} {verdict.file:<28} {verdict.seconds:5.1f} s  {by}{how}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these mutants, by name or by a part of it"
    )
    parser.add_argument("--room", nargs="+", default=[], choices=ROOMS, help="the mutants of these rooms")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="how many at once (default: one a core)"
    )
    parser.add_argument("--nearest", action="store_true", help="only the tests named beside each mutant")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts there as well")
    options = parser.parse_args(arguments)
    mutants = [
        mutant
        for mutant in read_bank()
        if (not options.room or mutant.room in options.room)
        and (not options.only or any(part in mutant.name for part in options.only))
    ]
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes
    for name in IMPORTED_ONCE:
        importlib.import_module(name)

    started = time.monotonic()
    verdicts: list[Verdict] = []
    red: list[str] = []
    print(f"{len(mutants)} mutants, {options.workers} at a time; first the tests without any", flush=True)
    for news in judge(ROOT, mutants, options.workers, 1 if options.nearest else 3):
        if isinstance(news, str):
            red.append(news)
            print(f"RED WITHOUT A MUTANT: {news}", flush=True)
        else:
            verdicts.append(news)
            print(row(news), flush=True)
    seconds = time.monotonic() - started
    missed = [verdict for verdict in verdicts if not verdict.caught]
    by_name = {mutant.name: mutant for mutant in mutants}
    for verdict in missed:
        mutant = by_name[verdict.name]
        print(f"\nmissed: {mutant.name} in minirlhf/{mutant.file}: {mutant.description}")
        print("\n".join([*(f"  - {line}" for line in mutant.before.splitlines())]))
        print("\n".join([*(f"  + {line}" for line in mutant.after.splitlines())]))
    if options.json:
        content = {"seconds": round(seconds, 1), "red": red, "mutants": [asdict(verdict) for verdict in verdicts]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    times = os.times()
    busy = times.user + times.system + times.children_user + times.children_system
    print(f"\n{seconds / 60:.1f} minutes, {busy / 60:.1f} of processor time")
    print(f"{len(verdicts) - len(missed)}/{len(verdicts)} caught", flush=True)
    return 1 if missed or red or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
