"""Training commands under torchrun: unchanged, the same run, one voice, and no hang when a process dies."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minirlhf import cli
from minirlhf.data.batches import validation_windows
from minirlhf.errors import UserError
from minirlhf.evaluation.held_out import share_batches
from minirlhf.parallel.processes import check_device, check_shares, describe_loss, leader_first, silent, started
from minirlhf.parallel.ranks import ALONE, World
from tests.helpers.tiny_road import command, write_data
from tests.parallel.test_ranks import ROOT, start

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "minirlhf"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def under_torchrun(words):
    pipes = {"capture_output": True, "text": True, "encoding": "utf-8"}
    return subprocess.run([*TORCHRUN, *words], env=ENVIRONMENT, cwd=ROOT, timeout=200, **pipes)


def by_hand(commands, **environment):
    """The ranks as torchrun would start them, without anyone who watches over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    size = len(commands)
    return [
        start(["-m", "minirlhf", *words], rank, size, LOCAL_RANK=str(rank), **place, **environment)
        for rank, words in enumerate(commands)
    ]


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The data, and models made by one process."""
    folder = tmp_path_factory.mktemp("road")
    write_data(folder / "data")
    (folder / "models").mkdir()
    for stage, name in (("pretrain", "base"), ("sft", "sft"), ("reward", "reward"), ("ppo", "ppo")):
        assert cli.main(words_of(folder, stage, folder / "models" / name)) == 0
    return folder


def words_of(folder, stage, out):
    words = command(stage, folder / "data", folder / "models", out)
    if "--dropout" in words:  # each rank drops at random, so two processes would walk another curve
        words[words.index("--dropout") + 1] = "0.0"
    return words


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_same_run(one, two, tolerance=2e-6, weights_within=1e-4):
    weights, others = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    if "bias_shift" in weights:
        # Both scores of a pair hold the head's bias: its gradient is 0 but for rounding, which AdamW walks along.
        # bias_shift takes that back, so the two are compared as the one constant they make.
        for kept in (weights, others):
            kept["bias_shift"] = kept["gain"] * kept.pop("head.bias").squeeze() + kept["bias_shift"]
    for name, tensor in weights.items():
        torch.testing.assert_close(
            others[name], tensor, rtol=weights_within, atol=weights_within, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert len(rows_of(one)) == len(rows_of(two))
    for row, other in zip(rows_of(one), rows_of(two), strict=True):
        assert row.keys() == other.keys()
        for key in row:
            if "second" not in key:
                assert other[key] == pytest.approx(row[key], rel=tolerance, abs=tolerance), (row["step"], key)


@pytest.mark.parametrize(("stage", "name"), [("pretrain", "base"), ("reward", "reward"), ("ppo", "ppo")])
def test_a_command_is_the_same_run_in_two_processes(stage, name, road, tmp_path):
    done = under_torchrun(words_of(road, stage, tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(road / "models" / name, tmp_path / "two")
    assert done.stdout.count("report   ") == 1  # only rank 0 speaks
    assert (tmp_path / "two" / "report.html").exists()
    samples = [folder / "samples.jsonl" for folder in (road / "models" / name, tmp_path / "two")]
    assert samples[0].exists() == samples[1].exists()
    assert json.loads((tmp_path / "two" / "config.json").read_text(encoding="utf-8"))["processes"] == 2


def wait_for(path, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.05)


def slowly(words, **flags):
    """The same command, long enough to be disturbed, saving after every step."""
    words = list(words)
    for flag, value in ({"--steps": "400", "--save-every-seconds": "0.5"} | flags).items():
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_run_with_its_name_and_one_process_can_go_on(victim, road, tmp_path):
    out = tmp_path / "out"
    words = slowly(words_of(road, "pretrain", out))
    children = by_hand([words, words])
    wait_for(out / "checkpoint" / "model.safetensors")
    children[victim].kill()
    children[victim].communicate(timeout=60)
    survivor = children[1 - victim]
    _, errors = survivor.communicate(timeout=60)
    assert survivor.returncode == 1
    if victim == 1:  # with rank 0 the meeting place is gone, and only torchrun's own still knows who was there
        assert "rank 1 of 2 processes has ended or stopped answering" in errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert cli.main(slowly(words_of(road, "pretrain", tmp_path / "whole"))) == 0
    assert cli.main([*words, "--resume"]) == 0
    assert_same_run(tmp_path / "whole", out, tolerance=2e-3, weights_within=5e-3)  # 400 steps of float32


def test_torchrun_names_the_killed_rank_and_two_processes_can_go_on(road, tmp_path):
    out = tmp_path / "out"
    words = slowly(words_of(road, "pretrain", out))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([*TORCHRUN, *words], env=ENVIRONMENT, cwd=ROOT, **pipes)
    wait_for(out / "checkpoint" / "model.safetensors")
    os.kill(child_of(parent.pid, rank=0), signal.SIGKILL)
    _, errors = parent.communicate(timeout=100)
    assert parent.returncode == 1
    assert "rank 0 of 2 processes has ended or stopped answering" in errors
    done = under_torchrun([*words, "--resume"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["step"] for row in rows_of(out)] == list(range(1, 401))


def child_of(parent, rank):
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            told = status.read_text(encoding="utf-8")
            environment = (status.parent / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"PPid:\t{parent}\n" in told and f"RANK={rank}".encode() in environment:
            return int(status.parent.name)
    pytest.skip("this system does not tell who started whom")


def test_a_rank_that_hangs_is_waited_for_only_so_long(road, tmp_path):
    words = slowly(words_of(road, "pretrain", tmp_path / "out"), **{"--timeout-seconds": "3", "--steps": "100000"})
    children = by_hand([words, words])
    try:
        wait_for(tmp_path / "out" / "checkpoint" / "model.safetensors")
        children[1].send_signal(signal.SIGSTOP)
        _, errors = children[0].communicate(timeout=60)
        assert children[0].returncode == 1
        assert "rank 1 of 2 processes has ended or stopped answering" in errors
    finally:
        for child in children:
            child.kill()
            child.communicate(timeout=60)


def test_what_is_wrong_for_all_is_said_once_and_leaves_nothing(road, tmp_path):
    words = words_of(road, "pretrain", tmp_path / "out")
    words[words.index("--data") + 1] = str(tmp_path / "nowhere.txt")
    done = under_torchrun(words)
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count("nowhere.txt") == 1
    assert not (tmp_path / "out").exists()


def test_a_rank_with_other_settings_is_named(road, tmp_path):
    words = words_of(road, "pretrain", tmp_path / "out")
    children = by_hand([words, [*words, "--learning-rate", "0.5"]])
    ends = [child.communicate(timeout=100) for child in children]
    assert "other settings or other data than rank 0" in ends[1][1]
    assert re.search(r"where: +rank 1 of 2", ends[1][1])
    assert all(child.returncode for child in children)


def test_commands_that_do_not_train_run_in_one_process(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["quickstart", "--out", "nowhere"]) == 2
    assert "runs in one process" in capsys.readouterr().err


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert started() == 1


def test_devices_are_checked():
    check_device("cpu", 5)
    with pytest.raises(UserError, match="cpu or cuda"):
        check_device("mps", 0)
    with pytest.raises(UserError, match="more processes than GPUs"):
        check_device("cuda", torch.cuda.device_count())


def test_batches_must_have_rows_for_all():
    check_shares(ALONE, 1)
    check_shares(World(0, 2), 5, 2)
    check_shares(World(0, 2, sharded=True), 8, 2)
    for world, rows, minibatches in ((World(0, 4), 3, 1), (World(0, 2), 7, 4), (World(0, 2, sharded=True), 6, 2)):
        with pytest.raises(UserError, match="shared by so many"):
            check_shares(world, rows, minibatches)


def test_every_window_is_evaluated_by_one_rank_and_all_pass_through_the_model_equally_often():
    windows = list(validation_windows(torch.arange(75), 6, batch_size=2))
    parts = [list(share_batches(World(rank, 3), iter(windows))) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    counted = sum(int(batch.loss_mask.sum()) for part in parts for batch in part)
    assert counted == 74
    assert [int(b.ids[0, 0]) for b in share_batches(ALONE, windows)] == [int(b.ids[0, 0]) for b in windows]


def test_the_leader_goes_first_and_others_are_silent(capsys):
    with leader_first(ALONE):
        print("seen")
    with silent(1):
        print("unseen")
    with silent(0):
        print("seen too")
    assert capsys.readouterr().out == "seen\nseen too\n"
    assert "rank 1 and rank 3 of 4" in describe_loss(World(0, 4), [1, 3], RuntimeError("gloo\nmore"))
