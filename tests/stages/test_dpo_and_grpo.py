"""The commands dpo and grpo in miniature: whole run folders, what they measure, and what they refuse."""

import json
import math

import pytest
import torch

from minirlhf import cli
from minirlhf.models.checkpoint import load_model
from minirlhf.models.gpt import GPT
from minirlhf.runs.files import read_json, read_rows
from minirlhf.stages import common
from minirlhf.stages.dpo import DPOStage
from minirlhf.stages.grpo import GRPOStage
from tests.helpers.tiny_road import command, write_data


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """data/ and models/base, sft, reward, grpo, dpo."""
    folder = tmp_path_factory.mktemp("road")
    write_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:  # an empty page for the stages that are not ours
        patch.setattr(common, "write_run_report", lambda folder: None)
        for stage in ("pretrain", "sft", "reward"):
            out = folder / "models" / {"pretrain": "base"}.get(stage, stage)
            assert cli.main(command(stage, folder / "data", folder / "models", out)) == 0
    for stage in ("grpo", "dpo"):
        assert cli.main(command(stage, folder / "data", folder / "models", folder / "models" / stage)) == 0
    return folder


def words(road, stage, out, *flags):
    return [*command(stage, road / "data", road / "models", out), *map(str, flags)]


@pytest.mark.parametrize("stage", ["grpo", "dpo"])
def test_a_command_leaves_a_whole_run_folder(road, stage):
    folder = road / "models" / stage
    model, _ = load_model(folder)
    assert isinstance(model, GPT)
    start, _ = load_model(road / "models" / "sft")
    assert any(not torch.equal(a, start.state_dict()[name]) for name, a in model.state_dict().items())
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert len(read_rows(folder / "samples.jsonl")) >= 2
    assert sorted(path.name for path in (folder / "checkpoint").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "training_state.json"
    ]  # fmt: skip
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Glossary" in page and ("chosen_reward_mean" if stage == "dpo" else "score_std_in_group") in page
    config = read_json(folder / "config.json")
    assert (config["command"], config["seed"]) == (stage, 5)


def test_dpo_begins_at_log_two_and_measures_held_out_pairs(road):
    rows = read_rows(road / "models" / "dpo" / "metrics.jsonl")
    assert rows[0]["loss_nats_per_pair"] == pytest.approx(math.log(2), rel=1e-6)  # float32
    assert rows[0]["accuracy"] == 0.5
    assert rows[-1]["loss_nats_per_pair"] < 0.69
    assert {"val_accuracy", "val_loss_nats_per_pair"} <= rows[-1].keys()
    report = read_json(road / "models" / "dpo" / "evaluation.json")
    assert report["accuracy"] == rows[-1]["val_accuracy"]
    assert report["loss_nats_per_pair"] == pytest.approx(rows[-1]["val_loss_nats_per_pair"], rel=1e-6)
    assert report["n"] == 2  # a third of the six different pairs, by prompt


def test_dpo_needs_no_held_out_pairs_and_takes_those_it_is_given(road, tmp_path, capsys):
    flags = ("--held-out-fraction", "0", "--epochs", "1")
    assert cli.main(words(road, "dpo", tmp_path / "none", *flags)) == 0
    assert not (tmp_path / "none" / "evaluation.json").exists()
    assert "val_accuracy" not in read_rows(tmp_path / "none" / "metrics.jsonl")[-1]
    assert len(read_rows(tmp_path / "none" / "metrics.jsonl")) == 2
    given = ("--held-out", road / "data" / "pairs.jsonl", "--eval-pairs", "5", "--epochs", "1")
    assert cli.main(words(road, "dpo", tmp_path / "given", *given)) == 0
    assert read_json(tmp_path / "given" / "evaluation.json")["n"] == 5
    assert "implicit rewards: held-out accuracy" in capsys.readouterr().out


def test_ipo_and_label_smoothing_are_other_functions_on_the_same_pairs(road, tmp_path):
    first = {}
    for name, flags in {"dpo": (), "cdpo": ("--label-smoothing", "0.2"), "ipo": ("--loss", "ipo")}.items():
        assert cli.main(words(road, "dpo", tmp_path / name, "--beta", "0.5", *flags)) == 0
        first[name] = read_rows(tmp_path / name / "metrics.jsonl")
    assert first["ipo"][0]["objective"] == pytest.approx(1.0, rel=1e-6)  # 1 / (2 beta) squared
    assert first["cdpo"][0]["objective"] == pytest.approx(math.log(2), rel=1e-6)
    assert first["cdpo"][0]["grad_norm"] == pytest.approx(0.6 * first["dpo"][0]["grad_norm"], rel=1e-4)  # 1 - 2 * 0.2
    assert first["ipo"][0]["grad_norm"] != pytest.approx(first["dpo"][0]["grad_norm"], rel=1e-2)
    for rows in first.values():
        assert rows[0]["loss_nats_per_pair"] == pytest.approx(math.log(2), rel=1e-6)  # the same measure for all


def test_rloo_is_another_function_of_the_same_scores(road, tmp_path):
    assert cli.main(words(road, "grpo", tmp_path / "rloo", "--advantages", "rloo")) == 0
    group, rloo = (read_rows(folder / "metrics.jsonl") for folder in (road / "models" / "grpo", tmp_path / "rloo"))
    assert rloo[0]["score_mean"] == group[0]["score_mean"]  # the same first rollout
    assert rloo[0]["grad_norm"] != pytest.approx(group[0]["grad_norm"], rel=1e-3)


def test_the_defaults_name_the_papers_losses(tmp_path):
    stage = DPOStage(common_run(tmp_path), tmp_path)
    assert (stage.loss, stage.label_smoothing, stage.training.beta, stage.training.epochs) == ("dpo", 0.0, 0.1, 1.0)
    grpo = GRPOStage(common_run(tmp_path), None)
    assert (grpo.advantages, grpo.training.clip_range, grpo.training.kl_coef) == ("group", 0.2, 0.04)


def common_run(tmp_path):
    from minirlhf.runs.run import RunOptions

    return RunOptions(tmp_path)


WRONG = {
    "groups that do not fill a rollout": ("grpo", ["--group-size", "3"], "whole groups"),
    "a group of one": ("grpo", ["--group-size", "1"], "group_size"),
    "a reward that is a language model": ("grpo", ["--reward", "{models}/sft"], "no scores"),
    "a beta of nothing": ("dpo", ["--beta", "0"], "beta is out of range"),
    "smoothing with ipo": ("dpo", ["--loss", "ipo", "--label-smoothing", "0.1"], "--loss dpo"),
    "too much smoothing": ("dpo", ["--label-smoothing", "0.5"], "label_smoothing is out of range"),
    "a reward model to improve": ("dpo", ["--model", "{models}/reward"], "RewardModel"),
    "chats are no pairs": ("dpo", ["--data", "{data}/chats.jsonl"], "rejected"),
    "held-out pairs that are not there": ("dpo", ["--held-out", "nowhere.jsonl"], "nowhere.jsonl"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_explained_and_nothing_is_left_behind(case, road, tmp_path, capsys):
    stage, flags, said = WRONG[case]
    filled = [flag.format(models=road / "models", data=road / "data") for flag in flags]
    assert cli.main(words(road, stage, tmp_path / "out", *filled)) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["grpo", "dpo"])
def test_a_finished_run_is_not_overwritten_and_other_settings_cannot_resume_it(stage, road, capsys):
    out = road / "models" / stage
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert cli.main(words(road, stage, out)) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert cli.main(words(road, stage, out, "--resume", "--learning-rate", "0.5")) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert cli.main(words(road, stage, out, "--resume")) == 0
    assert "already finished" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_diverged_training_says_so(road, tmp_path, capsys):
    flags = ("--learning-rate", "1e30", "--epochs", "9")
    assert cli.main(words(road, "dpo", tmp_path / "out", *flags)) == 1
    assert "the training broke down" in capsys.readouterr().err


def test_a_dialogue_as_prompt_is_context_and_only_the_last_answer_counts(road, tmp_path):
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "In?"},
    ]
    rows = [{"prompt": turns, "chosen": f"Yes{'!' * n}", "rejected": f"No{'.' * n}"} for n in range(4)]
    path = tmp_path / "dialogues.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ("--data", path, "--held-out-fraction", "0", "--epochs", "1")
    assert cli.main(words(road, "dpo", tmp_path / "out", *flags)) == 0
    assert read_rows(tmp_path / "out" / "metrics.jsonl")[0]["loss_nats_per_pair"] == pytest.approx(
        math.log(2), rel=1e-6
    )
