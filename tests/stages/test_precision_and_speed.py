"""--precision and --compile on every training command, and what the clock adds to their rows."""

import json

import pytest
import torch

from minirlhf import cli
from minirlhf.models.checkpoint import load_model
from minirlhf.models.flops import training_flops
from minirlhf.models.gpt import GPT
from minirlhf.runs.files import read_json, read_rows
from minirlhf.stages import common
from tests.helpers.tiny_road import command, write_data

COMMANDS = ("pretrain", "sft", "reward", "dpo", "ppo", "grpo", "reinforce")
OF_THE_MODEL = ("pretrain", "sft", "reward", "dpo")  # the commands whose arithmetic is counted


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """data/, models/ in float32 and half/ in bfloat16, one run a command, all but pretrain from the same models."""
    folder = tmp_path_factory.mktemp("road")
    write_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "write_run_report", lambda folder: None)
        for stage in COMMANDS:
            out = {"pretrain": "base"}.get(stage, stage)
            words = command(stage, folder / "data", folder / "models", folder / "models" / out)
            assert cli.main(words) == 0
            words = command(stage, folder / "data", folder / "models", folder / "half" / out)
            assert cli.main([*words, "--precision", "bfloat16"]) == 0
    return folder


@pytest.mark.parametrize("stage", COMMANDS)
def test_every_command_trains_in_bfloat16_almost_as_in_float32(road, stage):
    name = {"pretrain": "base"}.get(stage, stage)
    half, whole = road / "half" / name, road / "models" / name
    assert read_json(half / "config.json")["settings"]["stage"]["run"]["precision"] == "bfloat16"
    weights, others = (load_model(folder)[0].state_dict() for folder in (half, whole))
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert any(not torch.equal(weight, others[key]) for key, weight in weights.items()), "it was float32 after all"
    ours, theirs = read_rows(half / "metrics.jsonl"), read_rows(whole / "metrics.jsonl")
    for key in ("loss_nats_per_token", "loss_nats_per_pair"):
        if key in ours[0]:
            assert ours[0][key] == pytest.approx(theirs[0][key], rel=2e-3)  # the first loss, before rounding adds up
    if "first_ratio_max" in ours[0]:
        assert ours[0]["first_ratio_max"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("stage", COMMANDS)
def test_arithmetic_per_second_is_logged_where_it_is_known(road, stage):
    rows = read_rows(road / "models" / {"pretrain": "base"}.get(stage, stage) / "metrics.jsonl")
    for row in rows:
        assert (
            row.get("model_flops_per_second", 0.0) > 0 if stage in OF_THE_MODEL else "model_flops_per_second" not in row
        )
        assert "model_flop_utilisation" not in row and "compile_seconds" not in row


def test_the_arithmetic_of_pretraining_is_that_of_its_tokens(road):
    """Tokens per second by the trainer's clock, which leaves out the making of the batch, times operations a token."""
    model, _ = load_model(road / "models" / "base")
    assert isinstance(model, GPT)
    a_token = training_flops(model.config, [model.config.context]) / model.config.context
    for row in read_rows(road / "models" / "base" / "metrics.jsonl"):
        assert row["model_flops_per_second"] <= row["tokens_per_second"] * a_token
        assert row["model_flops_per_second"] > 0.2 * row["tokens_per_second"] * a_token


def test_a_run_cannot_go_on_in_another_precision(road, capsys):
    words = command("sft", road / "data", road / "models", road / "half" / "sft")
    assert cli.main([*words, "--resume"]) == 2
    assert "stage.run.precision was bfloat16, is now float32" in capsys.readouterr().err


def test_a_compiled_run_says_what_that_took(road, tmp_path, capsys):
    words = command("pretrain", road / "data", road / "models", tmp_path / "run")
    assert cli.main([*words, "--compile"]) == 0
    (seconds,) = [
        row["compile_seconds"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "compile_seconds" in row
    ]
    assert seconds > 0.1 and f"compiling took {seconds:.1f} s" in capsys.readouterr().out
    assert "compile_seconds" in json.dumps((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
