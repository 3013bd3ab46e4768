"""What every benchmark here shares: fresh processes that take turns, medians, bars, growth, one JSON file per idea.

A benchmark is a module of this folder with
- worker functions: they do some work in a process of their own and return what they measured, a dict of numbers;
- `main()`: names the jobs, lets them take turns with `interleave`, and hands everything to `write`.

    python -m benchmarks.train                  every round, written to benchmarks/results/train.json
    python -m benchmarks.train --quick          one short round of everything, written to runs/bench

A host is noisy, so only figures of one run are compared: every round runs each job once, in a fresh process, and the
ratio held to a bar is the median over the rounds of the ratios within a round. WRAP="numactl -N 0" in the environment
puts a command before every worker.
"""

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PPO_PYTHON = ROOT / ".venv" / "bench-ppo" / "bin" / "python"  # the environment with the last TRL that has PPO
MISSING = 3  # exit code of a worker whose library is not installed
PACKAGES = ("torch", "numpy", "minirlhf", "transformers", "trl", "accelerate", "tokenizers", "tiktoken", "rustbpe")

Measurement = dict[str, float]
Sense = Literal["<=", ">="]


@dataclass(frozen=True)
class Job:
    """A worker function of a benchmark and its keyword arguments, to be called in a process of its own."""

    module: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    python: str | Path = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bar:
    """A figure and what it has to reach."""

    name: str
    value: float
    sense: Sense
    target: float

    @property
    def held(self) -> bool:
        return self.value <= self.target if self.sense == "<=" else self.value >= self.target


@dataclass(frozen=True)
class Table:
    """Jobs side by side: what each measured in every round, and which of the numbers is the one to look at."""

    title: str
    unit: str
    """Key of the measurements that the table and the plot show, for instance tokens_per_second."""
    runs: Mapping[str, Sequence[Measurement]]


@dataclass(frozen=True)
class Growth:
    """How a cost grows: by series, (size, cost) pairs in rising order of size."""

    title: str
    size: str
    """What grows, with its unit: "tokens in a row"."""
    cost: str
    series: Mapping[str, Sequence[tuple[float, float]]]


def options(doc: str | None, rounds: int = 5, parts: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The flags every benchmark takes; --only when it has parts."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round of everything, to see that it works")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often the jobs take turns")
    parser.add_argument("--out", type=Path, help="folder for the JSON file (benchmarks/results; runs/bench if --quick)")
    if parts:
        parser.add_argument("--only", nargs="+", choices=parts, help="measure these; the rest of the file stays")
    return parser


def wanted(flags: argparse.Namespace, part: str) -> bool:
    """Is this part to be measured?"""
    return not flags.only or part in flags.only


# Workers


def run(job: Job, timeout: float = 3600) -> Measurement | None:
    """What the job measured; None when a library it needs is not installed. Raises RuntimeError when it fails."""
    call = [str(job.python), "-m", "benchmarks.suite", job.module, job.function, json.dumps(dict(job.arguments))]
    offline = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "off",
    }
    environment = {**os.environ, **offline, **job.environment}
    if not Path(job.python).exists():
        return None
    done = subprocess.run(
        shlex.split(os.environ.get("WRAP", "")) + call,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
    )
    if done.returncode == MISSING:
        print(f"  left out, not installed: {done.stdout.strip().splitlines()[-1]}", flush=True)
        return None
    if done.returncode:
        raise RuntimeError(f"{job.module}.{job.function} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    measured: Measurement = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def interleave(jobs: Mapping[str, Job], rounds: int, unit: str = "") -> dict[str, list[Measurement]]:
    """Every job once a round, in a process of its own. Prints `unit` of each; jobs that cannot run are left out."""
    runs: dict[str, list[Measurement]] = {}
    for round_number in range(rounds):
        for name, job in jobs.items():
            if round_number and name not in runs:
                continue
            measured = run(job)
            if measured is not None:
                runs.setdefault(name, []).append(measured)
                shown = f"{measured[unit]:,.4g} {unit}, " if unit else ""
                print(f"  {name:<34} {shown}{measured['peak_rss_mib']:.0f} MiB", flush=True)
    return runs


def throughput(step: Callable[[], float], seconds: float, warmup: int = 3) -> float:
    """Units of work per second: step() does some and says how much; repeated for so long after warming up."""
    for _ in range(warmup):
        step()
    done, started = 0.0, time.perf_counter()
    while True:
        done += step()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return done / elapsed


def peak_rss_mib() -> float:
    """The most memory this process has held, in MiB.

    Linux's getrusage would count what the parent held when it forked; VmHWM belongs to this process alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    from minirlhf.runs.clock import peak_rss_mib as from_getrusage

    return from_getrusage()


def rss_mib() -> float:
    """The memory this process holds now, in MiB; 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0.0
    return int(status.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# Figures


def median(runs: Sequence[Measurement], key: str) -> float:
    """The median of one number over the rounds."""
    return statistics.median(run[key] for run in runs)


def ratio(table: Table, ours: str, theirs: str, key: str | None = None) -> float:
    """How many times theirs ours is: the median over the rounds of the ratio within a round; NaN if one is missing."""
    if ours not in table.runs or theirs not in table.runs:
        return math.nan
    key = key or table.unit
    pairs = zip(table.runs[ours], table.runs[theirs], strict=True)
    return statistics.median(our[key] / their[key] for our, their in pairs)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The p of cost = c · size^p that fits best: the slope of log cost over log size, by least squares."""
    xs, ys = [math.log(size) for size, _ in points], [math.log(cost) for _, cost in points]
    return statistics.linear_regression(xs, ys).slope


# The JSON file


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    described: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        described["cpu"] = names[0].split(":", 1)[1].strip() if names else described["cpu"]
    if meminfo.exists():
        described["memory_gib"] = round(int(meminfo.read_text(encoding="utf-8").split()[1]) / 2**20)
    described |= {"system": platform.system(), "python": platform.python_version()}
    try:
        import torch
    except ImportError:
        return described
    described |= {"threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def versions(python: str | Path = sys.executable) -> dict[str, str]:
    """The exact versions of the libraries in an environment."""
    if Path(python) != Path(sys.executable):
        call = [
            str(python),
            "-c",
            "import json, benchmarks.suite as s; print(json.dumps(s.versions(s.sys.executable)))",
        ]
        return json.loads(subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(
    name: str,
    title: str,
    flags: argparse.Namespace,
    tables: Sequence[Table],
    bars: Sequence[Bar] = (),
    growth: Sequence[Growth] = (),
    notes: Sequence[str] = (),
    done: bool = True,
    **more: Any,
) -> Path:
    """Writes NAME.json, prints the bars, draws NAME.svg. A bar without a figure (a peer was missing) is left out.

    After --only, what was not measured stays in the file as it was. A benchmark calls this after every part, done only
    at the end, so that a run that is stopped keeps what it has measured.
    """
    folder = flags.out or (ROOT / "runs" / "bench" if flags.quick else RESULTS)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    bars = [bar for bar in bars if not math.isnan(bar.value)]
    content = {
        "idea": name,
        "title": title,
        "date": now,
        "machine": machine(),
        "versions": versions(),
        "tables": [asdict(table) | {"date": now} for table in tables],
        "bars": [asdict(bar) for bar in bars],
        "growth": [
            asdict(each)
            | {"exponents": {name: round(exponent(points), 3) for name, points in each.series.items()}, "date": now}
            for each in growth
        ],
        "notes": list(notes),
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    if getattr(flags, "only", None) and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for part, keys in (("tables", ("title",)), ("bars", ("name",)), ("growth", ("title", "size", "cost"))):
            content[part] = updated(before[part], content[part], keys)
        content["notes"] = list(dict.fromkeys([*before["notes"], *notes]))
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not done:
        return path
    for bar in bars:
        print(f"{'held  ' if bar.held else 'MISSED'} {bar.name}: {bar.value:.3g} (bar {bar.sense} {bar.target:g})")
    from benchmarks.figures import draw  # matplotlib is not needed by the workers

    draw(content, folder)
    print(f"written to {path}", flush=True)
    return path


def updated(
    before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """The parts of a file, those with the same keys replaced, new ones at the end."""
    parts = {tuple(part[key] for key in keys): part for part in (*before, *now)}
    return list(parts.values())


def worker() -> None:
    """python -m benchmarks.suite MODULE FUNCTION JSON: what `run` starts. The last line printed is the measurement."""
    module, function, arguments = sys.argv[1:]
    try:
        measured = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**json.loads(arguments))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("benchmarks", "minirlhf"):
            raise
        print(error.name)
        raise SystemExit(MISSING) from error
    print("\n" + json.dumps({"peak_rss_mib": peak_rss_mib()} | measured), flush=True)


if __name__ == "__main__":
    worker()
