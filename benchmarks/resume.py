"""Kill every stage with -9 at random moments, resume it, and compare: python benchmarks/resume.py [--moments 10]

Each stage runs once undisturbed, on the shipped data at tiny sizes. Then, for each moment, it is started again, killed
after a random share of that time (start of Python included), resumed with --resume, and its final weights, metrics (but
for the clock) and samples are compared with the undisturbed run's, byte for byte. Prints a table; ends with code 1 if
anything differed.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SHAPE = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "128"]
STAGES = {
    "pretrain": [*SHAPE, "--steps", "60", "--batch-size", "4", "--tokenizer", "bytes", "--dropout", "0.1"],
    "sft": ["--model", "{models}/pretrain", "--epochs", "0.1"],
    "reward": ["--model", "{models}/sft", "--epochs", "0.1"],
    "reinforce": ["--model", "{models}/sft", "--reward", "{models}/reward"],
    "ppo": ["--model", "{models}/sft", "--reward", "{models}/reward", "--kl-target", "2"],
}
POLICY = ["--steps", "12", "--batch-size", "8", "--max-new-tokens", "24"]
COMMON = ["--device", "cpu", "--quiet", "--save-every-seconds", "0.2", "--eval-every", "7"]


def words_of(stage: str, models: Path, out: Path) -> list[str]:
    """The command line of a stage."""
    own = [word.format(models=models) for word in STAGES[stage]] + (POLICY if stage in ("reinforce", "ppo") else [])
    return [sys.executable, "-m", "minirlhf", stage, *own, *COMMON, "--out", str(out)]


def run(words: Sequence[str], kill_after: float | None = None) -> float:
    """Runs a command to its end, or kills it; returns the seconds it took. Raises if it failed by itself."""
    started = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _, errors = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.kill()  # SIGKILL: nothing can catch it
            process.communicate()
            return time.perf_counter() - started
    if process.returncode not in (0, -getattr(signal, "SIGKILL", 9)):
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {errors.decode(errors='replace')}")
    return time.perf_counter() - started


def steps_saved(folder: Path) -> int:
    """Up to which step a checkpoint had been saved when the run died; 0 if there was none."""
    for place in (folder / "checkpoint", folder / ".checkpoint.previous"):
        if (place / "training_state.json").is_file():
            return int(json.loads((place / "training_state.json").read_text(encoding="utf-8"))["step"])
    return 0


def differences(left: Path, right: Path) -> list[str]:
    """What is not the same at the end of two runs."""
    found = [
        name
        for name in ("checkpoint/model.safetensors", "checkpoint/tokenizer.json", "samples.jsonl", "evaluation.json")
        if (left / name).exists() != (right / name).exists()
        or ((left / name).exists() and (left / name).read_bytes() != (right / name).read_bytes())
    ]
    rows = []
    for folder in (left, right):
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows.append([{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines])
    return found + (["metrics.jsonl"] if rows[0] != rows[1] else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    bad = 0
    with tempfile.TemporaryDirectory() as temporary:
        models = Path(temporary)
        print(f"{'stage':<10} {'whole run':>9}  {'killed at (s), in brackets the step last saved':<88} identical")
        for stage in STAGES:
            seconds = run(words_of(stage, models, models / stage))
            if stage not in options.stages:
                continue
            killed, same = [], 0
            for _ in range(options.moments):
                out = models / "again"
                moment = moments.uniform(0, seconds)
                run(words_of(stage, models, out), kill_after=moment)
                killed.append(f"{moment:.1f}[{steps_saved(out)}]")
                run([*words_of(stage, models, out), "--resume"])
                different = differences(models / stage, out)
                same += not different
                if different:
                    print(f"{stage}: killed after {moment:.2f} s, differs in {', '.join(different)}")
                shutil.rmtree(out)
            bad += same != options.moments
            print(f"{stage:<10} {seconds:>8.1f}s  {' '.join(killed):<88} {same} of {options.moments}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
