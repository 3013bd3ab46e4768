"""A run that dies anywhere and is resumed ends as the run that was never disturbed, bit for bit.

Two kinds of death: in this process, an exception nobody catches at the n-th time the run touches the disk; and
kill -9 from outside at a moment the clock chooses.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from minirlhf import cli
from minirlhf.runs import run as runs
from minirlhf.stages import common
from tests.helpers.tiny_road import command, write_data

STAGES = ("pretrain", "sft", "reward", "reinforce", "ppo", "grpo", "dpo")
EVERY_STEP = ["--save-every-seconds", "0", "--eval-every", "3"]
OF_THE_CLOCK = ("seconds", "per_second")


@pytest.fixture(scope="module", autouse=True)
def quick_report():
    """The report is drawn in other tests; here an empty page will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "write_run_report", lambda folder: (folder / "report.html").write_text("", "utf-8"))
        yield


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The data, and each stage run once without disturbance, in models/STAGE."""
    folder = tmp_path_factory.mktemp("road")
    write_data(folder / "data")
    (folder / "models").mkdir()
    for stage in STAGES:
        assert cli.main([*road_command(folder, stage, folder / "models" / name_of(stage)), *EVERY_STEP]) == 0
    return folder


def name_of(stage: str) -> str:
    return {"pretrain": "base"}.get(stage, stage)


def road_command(folder: Path, stage: str, out: Path) -> list[str]:
    return command(stage, folder / "data", folder / "models", out)


def rows_without_clock(path: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if not any(word in k for word in OF_THE_CLOCK)} for row in rows]


def assert_same_end(left: Path, right: Path) -> None:
    """Same weights, same tokenizer, same rows (but for the clock), same samples, same evaluation."""
    weights = [load_file(folder / "checkpoint" / "model.safetensors") for folder in (left, right)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert tensor.numpy().tobytes() == weights[1][name].numpy().tobytes(), name
    assert sorted(p.name for p in (left / "checkpoint").iterdir()) == sorted(
        p.name for p in (right / "checkpoint").iterdir()
    )
    assert rows_without_clock(left / "metrics.jsonl") == rows_without_clock(right / "metrics.jsonl")
    for name in ("samples.jsonl", "evaluation.json", "checkpoint/tokenizer.json", "checkpoint/config.json"):
        assert (left / name).exists() == (right / name).exists()
        if (left / name).exists():
            assert (left / name).read_bytes() == (right / name).read_bytes(), name
    assert (left / "report.html").exists() == (right / "report.html").exists()


class Died(BaseException):
    """Stands for the power cut: no handler of the program may catch it."""


class DyingDisk:
    """Counts the times a run touches the disk, and dies at the one asked for, before or in the middle of it."""

    def __init__(self, monkeypatch, at: int | None):
        self.touched, self.at = 0, at
        for module, name in ((os, "replace"), (os, "rename"), (runs, "append_row")):
            monkeypatch.setattr(module, name, self.counting(getattr(module, name)))
        monkeypatch.setattr(os, "fsync", self.counting(lambda handle: None))  # no power is cut here; it only takes time

    def counting(self, function):
        def call(*arguments, **keywords):
            self.touched += 1
            if self.touched == self.at:
                raise Died
            return function(*arguments, **keywords)

        return call


@pytest.mark.parametrize("stage", STAGES)
def test_dying_at_any_touch_of_the_disk_and_resuming_ends_bit_identical(stage, road, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        disk = DyingDisk(patch, None)
        assert cli.main([*road_command(road, stage, tmp_path / "whole"), *EVERY_STEP]) == 0
    assert_same_end(tmp_path / "whole", road / "models" / name_of(stage))
    moments = random.Random(stage).sample(range(3, disk.touched), 3)
    for moment in [1, 2, *moments, disk.touched]:
        out = tmp_path / f"dies-{moment}"
        with monkeypatch.context() as patch:
            DyingDisk(patch, moment)
            with pytest.raises(Died):
                cli.main([*road_command(road, stage, out), *EVERY_STEP])
        assert cli.main([*road_command(road, stage, out), *EVERY_STEP, "--resume"]) == 0
        assert_same_end(out, road / "models" / name_of(stage))


def test_dying_twice_is_no_worse(road, tmp_path, monkeypatch):
    words = road_command(road, "ppo", tmp_path / "out")
    for number, moment in enumerate((25, 40)):
        with monkeypatch.context() as patch:
            DyingDisk(patch, moment)
            with pytest.raises(Died):
                cli.main([*words, *EVERY_STEP, *(["--resume"] if number else [])])
    assert cli.main([*words, *EVERY_STEP, "--resume"]) == 0
    assert_same_end(tmp_path / "out", road / "models" / "ppo")


def test_a_critic_on_the_policy_s_own_trunk_resumes_bit_identical(road, tmp_path, monkeypatch):
    shared = [*EVERY_STEP, "--value-from", "shared"]
    with monkeypatch.context() as patch:
        disk = DyingDisk(patch, None)
        assert cli.main([*road_command(road, "ppo", tmp_path / "whole"), *shared]) == 0
    for share in (0.4, 0.7):
        words = [*road_command(road, "ppo", tmp_path / f"dies-{share}"), *shared]
        with monkeypatch.context() as patch:
            DyingDisk(patch, int(share * disk.touched))
            with pytest.raises(Died):
                cli.main(words)
        tensors = load_file(tmp_path / f"dies-{share}" / "checkpoint" / "training_state.safetensors")
        kept = {name for name in tensors if not name.startswith("optimizer.")}
        assert kept == {"value.head.weight", "value.head.bias"}  # the trunk is kept once, as the policy
        assert cli.main([*words, "--resume"]) == 0
        assert_same_end(tmp_path / f"dies-{share}", tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(road, tmp_path, capsys):
    words = [*road_command(road, "reward", tmp_path / "out"), *EVERY_STEP]
    assert cli.main(words) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert cli.main([*words, "--resume"]) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert "already finished" in capsys.readouterr().out


def test_how_often_it_saves_changes_no_bit(road, tmp_path):
    assert cli.main([*road_command(road, "sft", tmp_path / "out"), "--eval-every", "3"]) == 0
    assert_same_end(tmp_path / "out", road / "models" / "sft")


@pytest.mark.parametrize("changed", ["data", "model"])
def test_data_or_a_model_that_changed_since_is_noticed(road, tmp_path, monkeypatch, capsys, changed):
    write_data(tmp_path / "data")
    (tmp_path / "models").symlink_to(road / "models")
    words = [*road_command(tmp_path, "sft", tmp_path / "out"), *EVERY_STEP]
    with monkeypatch.context() as patch:
        DyingDisk(patch, 30)
        with pytest.raises(Died):
            cli.main(words)
    if changed == "data":
        with (tmp_path / "data" / "chats.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"prompt": "What has Bo?", "completion": "A kite."}\n')
    else:
        (tmp_path / "models").unlink()
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "base").symlink_to(road / "models" / "sft")
    assert cli.main([*words, "--resume"]) == 2
    message = capsys.readouterr().err
    assert "other settings" in message
    assert ("chats.jsonl" if changed == "data" else "models/base") in message


# Started once, imports everything, computes nothing, and forks a child for each line of words it reads: torch is
# imported once instead of once for every run, and the children are processes that can be killed like any other.
SERVER = """
import json, os, sys
import tyro
import minirlhf.stages.ppo, minirlhf.stages.reinforce, minirlhf.stages.pretrain
import minirlhf.stages.sft, minirlhf.stages.reward, minirlhf.stages.grpo, minirlhf.stages.dpo
from minirlhf.stages import common
from minirlhf.cli import main
common.write_run_report = lambda folder: (folder / "report.html").write_text("", "utf-8")
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    here = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=here,
        env=environment,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def run_in(server, words: list[str], kill_after: float | None = None) -> int:
    """Runs a command in a process of its own, killed after so many seconds; returns its exit code."""
    server.stdin.write(json.dumps(words) + "\n")
    server.stdin.flush()
    child = int(server.stdout.readline())
    if kill_after is not None:
        time.sleep(kill_after)
        with suppress(ProcessLookupError):  # it was faster than the hand that kills
            os.kill(child, signal.SIGKILL)
    return int(server.stdout.readline())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 and fork belong to Unix")
@pytest.mark.parametrize("stage", STAGES)
def test_killed_from_outside_and_resumed_it_ends_bit_identical(stage, road, tmp_path, server):
    words = [*road_command(road, stage, tmp_path / "out"), *EVERY_STEP]
    moments = random.Random(f"kill {stage}")
    for flags in ([], ["--resume"]):  # killed, resumed, killed again
        code = run_in(server, [*words, *flags], kill_after=moments.uniform(0.05, 0.8))
        assert code in (-signal.SIGKILL, 0)
    assert run_in(server, [*words, "--resume"]) == 0
    assert_same_end(tmp_path / "out", road / "models" / name_of(stage))
