"""--profile: the files are there, the parts make up the step, and the weights know nothing of it."""

import gzip
import json
import re
import time

import pytest
import torch
from torch.nn.modules import module as torch_module
from torch.profiler import ProfilerActivity, profile, record_function

from minirlhf import cli
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.nn.mlp import SwiGLU
from minirlhf.nn.norm import LayerNorm, RMSNorm
from minirlhf.objectives.likelihood import sequence_log_probs
from minirlhf.records import Report
from minirlhf.runs import profile as run_profile
from minirlhf.runs.files import read_rows
from minirlhf.runs.profile import (
    ACTIVATIONS,
    ATTENTION,
    LOSS,
    MATRICES,
    NORMS,
    OVERHEAD,
    PARTS,
    STEP,
    SUMS,
    modules_named,
    profiled,
    step_times,
)
from minirlhf.stages import common
from minirlhf.trainers.optim import OPTIMIZER, AdamW, guarded_step
from tests.helpers.tiny_road import command, write_data

CPU = torch.device("cpu")
STAGES = ("pretrain", "sft", "reward", "ppo")  # the others run the same loop
FOLDERS = {"pretrain": "base"}


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The road of training commands with --profile, in models/; pretrain and ppo also without, in plain/."""
    folder = tmp_path_factory.mktemp("road")
    write_data(folder / "data")
    (folder / "models").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_profile, "RECORDED", 2)  # a trace takes longer to read than to record
        patch.setattr(common, "write_run_report", lambda folder: None)  # drawn in other tests
        for stage in STAGES:
            out = folder / "models" / FOLDERS.get(stage, stage)
            assert cli.main([*command(stage, folder / "data", folder / "models", out), "--profile"]) == 0
        for stage in ("pretrain", "ppo"):
            out = folder / "plain" / FOLDERS.get(stage, stage)
            assert cli.main(command(stage, folder / "data", folder / "models", out)) == 0
    return folder


def rows_of(text):
    """The table's stretches of lines `name 1.23 ms 4.5%`, each as {name: (milliseconds, share)}."""
    found = re.compile(r"  (.+?) +(-?[\d.]+) ms +(-?[\d.]+)%.*")
    stretches = [[found.fullmatch(line) for line in part.splitlines()] for part in text.split("\n\n")]
    rows = [{m[1]: (float(m[2]), float(m[3])) for m in part if m} for part in stretches]
    return [part for part in rows if part]


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_leaves_a_trace_and_a_table_whose_parts_are_the_step(road, stage):
    folder = road / "models" / FOLDERS.get(stage, stage) / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["table.txt", "trace.json.gz"]
    with gzip.open(folder / "trace.json.gz", "rt", encoding="utf-8") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {STEP, "module CausalSelfAttention", OPTIMIZER, "aten::mm"} <= names

    text = (folder / "table.txt").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 100
    parts, *others = rows_of(text)
    whole, share = parts.pop("together")
    assert share == 100.0 and set(parts) <= set(PARTS)
    assert {MATRICES, ATTENTION, ACTIVATIONS, NORMS, LOSS, OPTIMIZER, OVERHEAD} <= set(parts)
    assert sum(ms for ms, _ in parts.values()) == pytest.approx(whole, abs=0.006 * len(parts))  # two digits each
    assert all(ms >= 0 for ms, _ in parts.values())
    assert len(others) == (2 if stage == "ppo" else 1)
    if len(others) == 2:  # the trainer's own clock knows no more than the step
        assert set(others[0]) == {"generation", "scoring", "update"}
        assert 0.5 * whole < sum(ms for ms, _ in others[0].values()) < whole + 1


@pytest.mark.parametrize("stage", ["pretrain", "ppo"])
def test_the_same_weights_with_and_without(road, stage):
    recorded, plain = (road / place / FOLDERS.get(stage, stage) for place in ("models", "plain"))
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (recorded, plain)]
    assert weights[0] == weights[1]
    rows = [
        [{key: x for key, x in row.items() if "second" not in key} for row in read_rows(folder / "metrics.jsonl")]
        for folder in (recorded, plain)
    ]
    assert rows[0] == rows[1] and rows[0]
    assert not (plain / "profile").exists()


def test_a_run_may_be_resumed_with_it_or_without(road, capsys):
    for extra in (["--profile"], []):
        words = command("pretrain", road / "data", road / "models", road / "models" / "base")
        assert cli.main([*words, "--resume", *extra]) == 0
        assert "already finished" in capsys.readouterr().out


def recorded_once(step):
    """The parts of one call, after one that is not recorded."""
    with modules_named():
        step()
        with profile(activities=[ProfilerActivity.CPU]) as recorder, record_function(STEP):
            step()
    return step_times(recorder.events(), 1)


@pytest.mark.parametrize(
    ("layer", "theirs"), [(LayerNorm(6), {NORMS}), (RMSNorm(6), {NORMS}), (SwiGLU(6, 4, True), {ACTIVATIONS, MATRICES})]
)
def test_a_layer_s_operators_are_its_own_forward_and_backward(layer, theirs):
    x, gradient = torch.randn(3, 6, requires_grad=True), torch.ones(3, 6)

    def step():
        x.grad = None  # or the new gradient would be added to it
        layer.zero_grad()
        layer(x).backward(gradient)  # no loss: all there is is the layer

    assert theirs <= set(recorded_once(step).parts) <= theirs | {OVERHEAD, "copies"}


def test_the_optimizer_and_the_loss_are_told_from_the_model():
    model = GPT(GPTConfig(vocab_size=11, context=8, layers=1, heads=2, width=4))
    optimizer = AdamW(model.named_parameters())
    ids = torch.arange(8).reshape(1, 8)

    def learn():
        optimizer.zero_grad()
        (-sequence_log_probs(model, ids).mean()).backward()

    learnt = recorded_once(learn)
    assert OPTIMIZER not in learnt.parts and learnt.parts[LOSS] > 0 and learnt.parts[SUMS] > 0
    assert set(recorded_once(lambda: guarded_step(model, optimizer, 1e-3, 1.0)).parts) == {OPTIMIZER, OVERHEAD}
    calls = {name: count for name, _, count in learnt.operators}
    # two matrix products in attention, three in the rest of the block's four layers and one at the end, times three
    assert calls["aten::bmm"] == 6 and calls["aten::addmm"] == 4 and calls["aten::_log_softmax"] == 1


def reports(steps, seconds=0.0):
    for step in range(steps):
        time.sleep(seconds)
        yield Report(step + 1, {"tokens_per_second": 1.0})


def test_what_the_caller_does_between_two_reports_is_no_part_of_a_step(tmp_path, capsys):
    for _ in profiled(reports(6, seconds=0.01), tmp_path / "profile", 6, CPU):
        time.sleep(0.05)
    parts, *_ = rows_of((tmp_path / "profile" / "table.txt").read_text(encoding="utf-8"))
    assert 10 <= parts["together"][0] < 50 and parts[OVERHEAD][0] >= 10
    assert "3 steps recorded" in capsys.readouterr().out


@pytest.mark.parametrize(("steps", "recorded"), [(1, "one step"), (2, "one step"), (5, "3 steps"), (20, "5 steps")])
def test_every_report_is_handed_on_however_short_the_run(tmp_path, steps, recorded):
    assert list(profiled(reports(steps), tmp_path / "profile", steps, CPU)) == list(reports(steps))
    assert f"{recorded} recorded" in (tmp_path / "profile" / "table.txt").read_text(encoding="utf-8")


def test_a_run_that_stops_early_leaves_no_hook_and_no_half_file(tmp_path):
    for consumed in (1, 5):  # while warming up, while recording
        generator = profiled(reports(20), tmp_path / "profile", 20, CPU)
        for _ in range(consumed):
            next(generator)
        generator.close()
        assert not torch_module._global_forward_pre_hooks and not torch_module._global_forward_hooks
    assert not (tmp_path / "profile").exists()


def test_long_steps_are_recorded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(run_profile, "ENOUGH_SECONDS", 0.01)
    assert len(list(profiled(reports(8, seconds=0.02), tmp_path / "profile", 8, CPU))) == 8
    assert "one step recorded" in (tmp_path / "profile" / "table.txt").read_text(encoding="utf-8")
