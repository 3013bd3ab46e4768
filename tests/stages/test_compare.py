"""The comparison in miniature: every method from one model, one table, one page, resumable method by method."""

import json
import os
import re

import pytest

from minirlhf import cli
from minirlhf.data.formats import read_documents
from minirlhf.data.shipped import shipped_path
from minirlhf.errors import UserError
from minirlhf.models.checkpoint import save_checkpoint
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import RewardModel
from minirlhf.reports.comparison import HEAD, answers_section, budget_sentences, comparison_text, verdicts
from minirlhf.runs.files import read_json, read_rows, write_json
from minirlhf.seeding import torch_generator
from minirlhf.stages import common
from minirlhf.stages.compare import Compare, check_place, make_place, methods, named_models, run_compare
from minirlhf.tokenizers.bpe import train_bpe

ALL = ("ppo", "grpo", "dpo", "reinforce")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder like a quickstart's, with models that never learnt anything: sft and reward."""
    folder = tmp_path_factory.mktemp("start")
    documents, _ = read_documents([shipped_path("instructions.jsonl")], fields={"text": "completion"})
    tokenizer = train_bpe([document.text for document in documents[:400]], 400)
    config = GPTConfig(tokenizer.vocab_size, context=96, layers=1, heads=2, width=16, positions="rope", norm="rms")
    trunk = GPT(config, torch_generator(0, "trunk"))
    save_checkpoint(folder / "sft" / "checkpoint", trunk, tokenizer)
    save_checkpoint(
        folder / "reward" / "checkpoint", RewardModel.from_trunk(trunk, torch_generator(0, "head")), tokenizer
    )
    row = {"step": 3, "seconds": 12.5, "loss_nats_per_pair": 0.7}
    (folder / "reward" / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    write_json(folder / "reward" / "config.json", {"settings": {"stage": {"training": {"batch_size": 32}}}})
    return folder


FLAGS = ["--budget", "64", "--pair-epochs", "0.005", "--prompts", "10", "--seed", "3", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def compared(start, tmp_path_factory):
    """All four methods, once."""
    out = tmp_path_factory.mktemp("compared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "write_run_report", lambda folder: None)
        assert cli.main(["compare", "--from", str(start), "--out", str(out), *FLAGS]) == 0
    return out


def test_every_method_has_its_run_folder_and_kept_to_the_budget(compared, start):
    result = read_json(compared / "compare.json")
    assert list(result["models"]) == ["sft", *ALL]
    for name in ALL:
        stage = read_json(compared / name / "config.json")["settings"]["stage"]
        rows, model = read_rows(compared / name / "metrics.jsonl"), result["models"][name]
        assert model["seconds"] == rows[-1]["seconds"]
        if name == "dpo":
            assert stage["model"] == str(start / "sft")
            assert model["pairs"] == len(rows) * stage["training"]["batch_size"]
            assert "answers" not in model and 48 <= model["pairs"] <= 64
        else:
            assert (stage["policy"]["model"], stage["policy"]["reward"]) == (str(start / "sft"), str(start / "reward"))
            assert stage["training"]["temperature"] == result["temperature"]
            assert model["answers"] == len(rows) * stage["training"]["batch_size"] == 64
            assert "pairs" not in model
    assert result["reward_model_seconds"] == 12.5


def test_the_result_is_measured_against_the_model_all_started_from(compared):
    models = read_json(compared / "compare.json")["models"]
    assert models["sft"]["kl_nats_per_response"] == 0
    assert "win_rate_vs_sft" not in models["sft"]
    for name in ALL:
        low, high = models[name]["win_rate_vs_sft"]["interval_95"]
        assert 0 <= low <= models[name]["win_rate_vs_sft"]["mean"] <= high <= 1
        assert models[name]["true_reward"]["n"] == models[name]["win_rate_vs_sft"]["n"] == 10
        gain = models[name]["true_reward"]["mean"] - models["sft"]["true_reward"]["mean"]
        assert models[name]["gain_over_sft"]["mean"] == pytest.approx(gain, abs=1e-9)
        assert models[name]["kl_nats_per_response"] != 0


def test_the_page_loads_nothing_and_shows_every_method(compared):
    page = (compared / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<link|<img|src=|@import", page)
    assert not [url for url in re.findall(r"https?://[^\s\"'<)]+", page) if "w3.org" not in url]
    for name in ("SFT", *(name.upper() for name in ALL)):
        assert f">{name}<" in page
    for words in ("true reward (95 %)", "KL from SFT", "answers written", "wrote 64 answers each", "Glossary"):
        assert words in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_resuming_runs_only_what_is_missing_and_ends_with_the_same_result(
    compared, start, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(common, "write_run_report", lambda folder: None)
    out = tmp_path / "out"
    words = ["compare", "--from", str(start), "--out", str(out), *FLAGS]
    assert cli.main([*words, "--methods", "dpo"]) == 0
    assert list(read_json(out / "compare.json")["models"]) == ["sft", "dpo"]
    assert cli.main([*words, "--methods", "dpo"]) == 2
    assert "--resume" in capsys.readouterr().err
    before = (out / "dpo" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    assert cli.main([*words, "--resume"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert (out / "dpo" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == before

    def without_clock(result):
        for model in result["models"].values():
            model.pop("seconds", None)
        return result

    again, once = (without_clock(read_json(folder / "compare.json")) for folder in (out, compared))
    assert again["models"] == {name: once["models"][name] for name in again["models"]}
    assert again["samples"] == once["samples"]
    assert cli.main([*words, "--resume", "--budget", "128"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_without_models_the_road_is_walked_first(tmp_path, monkeypatch):
    """The road's stages are the quickstart's; here they only leave a note that they were called."""
    from minirlhf.stages import compare as module

    called = []
    for name in ("run_tokenizer", "run_pretrain", "run_sft", "run_reward"):
        monkeypatch.setattr(module, name, lambda stage, name=name: called.append((name, stage)))
    settings = Compare(tmp_path / "out", scale="smoke", seed=7)
    assert module.named_models(settings) is None
    sft, reward = module.walk_the_road(settings)
    assert [name for name, _ in called] == ["run_tokenizer", "run_pretrain", "run_sft", "run_reward"]
    assert (sft, reward) == (tmp_path / "out" / "road" / "sft", tmp_path / "out" / "road" / "reward")
    assert called[2][1].run.seed == 7 and called[2][1].run.out == sft


def test_all_methods_that_write_share_rollouts_prompts_and_sampling(start, tmp_path):
    stages = {name: stage for name, (stage, _) in methods(Compare(tmp_path), start / "sft", start / "reward").items()}
    shared = ("steps", "batch_size", "max_new_tokens", "temperature")
    writers = [stages[name] for name in ("ppo", "grpo", "reinforce")]
    assert len({tuple(getattr(stage.training, key) for key in shared) for stage in writers}) == 1
    assert writers[0].training.steps * writers[0].training.batch_size == Compare().budget
    assert writers[0].training.max_new_tokens == 96 - 32
    assert len({stage.policy for stage in writers}) == 1
    assert {stage.run.seed for stage in stages.values()} == {0}


RESULT = {
    "seed": 1,
    "temperature": 0.7,
    "budget": {"answers": 640, "pair_epochs": 0.5},
    "reward_model_seconds": 103.2,
    "models": {
        "sft": {
            "true_reward": {"mean": 1.5, "interval_95": [1.25, 1.75], "n": 300},
            "kl_nats_per_response": 0.0,
            "eos_rate": 0.995,
        },
        "ppo": {
            "true_reward": {"mean": 2.5, "interval_95": [2.25, 2.75], "n": 300},
            "kl_nats_per_response": 1.94,
            "eos_rate": 1.0,
            "win_rate_vs_sft": {"mean": 0.8, "interval_95": [0.75, 0.85], "n": 300},
            "gain_over_sft": {"mean": 1.0, "interval_95": [0.8, 1.2], "n": 300},
            "seconds": 47.4,
            "answers": 640,
        },
        "dpo": {
            "true_reward": {"mean": 1.0, "interval_95": [0.5, 1.5], "n": 300},
            "kl_nats_per_response": 9.0,
            "eos_rate": 0.9,
            "win_rate_vs_sft": {"mean": 0.4, "interval_95": [0.3, 0.5], "n": 300},
            "gain_over_sft": {"mean": -0.5, "interval_95": [-0.9, -0.1], "n": 300},
            "seconds": 50.0,
            "pairs": 4800,
        },
    },
}


def test_the_table_in_the_terminal():
    text = comparison_text(RESULT, "runs/compare")
    lines = text.splitlines()
    for title in HEAD:
        assert title in lines[0]
    assert " ".join(lines[2].split()) == "PPO 2.50 (2.25 to 2.75) 1.9 80.0% (75.0% to 85.0%) 100.0% 47"
    assert lines[1].startswith("SFT") and lines[1].split()[-1] == "–"
    assert len({line.index("(") for line in lines[1:4]}) == 1  # columns stand below each other
    assert "runs/compare/report.html" in lines[-1].replace(os.sep, "/")
    assert verdicts(RESULT) == [
        "PPO: +1.00 over SFT (+0.80 to +1.20), surely better than SFT.",
        "DPO: -0.50 over SFT (-0.90 to -0.10), surely worse than SFT.",
    ]


def test_the_budget_is_said_with_its_numbers():
    first, second, _ = budget_sentences(RESULT)
    assert "PPO wrote 640 answers" in first and "103 s more" in first
    assert "DPO wrote none" in second and "4800 pairs" in second and "0.5 passes" in second
    only = {**RESULT, "models": {name: RESULT["models"][name] for name in ("sft", "dpo")}}
    assert budget_sentences(only)[0].startswith("Budget: DPO")


def test_answers_are_text_and_nothing_else():
    samples = [{"prompt": f"<b>{i}", "sft": {"text": "<script>", "true_reward": 1.0}} for i in range(6)]
    html = "".join(answers_section(samples))
    assert "<script>" not in html and "&lt;script&gt;" in html and "&lt;b&gt;5" in html
    assert "2 more" in html and answers_section([]) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budget": 100}, "multiple of 64"),
        ({"budget": 0}, "budget is out of range"),
        ({"methods": ()}, "--methods"),
        ({"methods": ("ppo", "ppo")}, "--methods"),
        ({"model": "runs/sft"}, "--model without --reward"),
        ({"reward": "runs/reward"}, "--reward without --model"),
        ({"pair_epochs": 0.0}, "pair_epochs"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        Compare(**settings)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, start):
    (tmp_path / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="something else"):
        run_compare(Compare(tmp_path, quickstart=start))
    file = tmp_path / "thesis.tex"
    with pytest.raises(UserError, match="is a file"):
        run_compare(Compare(file, quickstart=start))
    with pytest.raises(UserError, match="contradict"):
        run_compare(Compare(tmp_path / "new", quickstart=start, resume=True, overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


@pytest.mark.parametrize("case", ["nowhere", "a reward model to start from", "a judge that is none"])
def test_models_that_are_not_what_they_should_be_are_refused_before_anything_is_made(case, start, tmp_path):
    places = {
        "nowhere": {"quickstart": tmp_path / "nowhere"},
        "a reward model to start from": {"model": start / "reward", "reward": start / "reward"},
        "a judge that is none": {"model": start / "sft", "reward": start / "sft"},
    }
    with pytest.raises(UserError):
        run_compare(Compare(tmp_path / "out", **places[case]))
    assert not (tmp_path / "out").exists()


def test_overwrite_moves_the_old_comparison_aside(start, tmp_path, monkeypatch):
    from minirlhf.stages import compare as module

    out = tmp_path / "out"
    out.mkdir()
    write_json(out / "settings.json", {"of": "long ago"})
    module.make_place(Compare(out, quickstart=start, overwrite=True))
    assert read_json(tmp_path / "out.before-1" / "settings.json") == {"of": "long ago"}
    assert read_json(out / "settings.json")["budget"] == 1536


def test_the_two_ways_to_name_models_do_not_mix_and_a_wrong_folder_is_told_what_is_expected(tmp_path):
    with pytest.raises(UserError, match="--from names both models"):
        Compare(tmp_path / "out", quickstart=tmp_path, model=tmp_path, reward=tmp_path)
    with pytest.raises(UserError, match="no quickstart's folder") as caught:
        named_models(Compare(tmp_path / "out", quickstart=tmp_path))
    assert "minirlhf quickstart" in str(caught.value)


def test_going_on_with_other_settings_names_what_changed(tmp_path):
    make_place(Compare(tmp_path / "out", budget=128))
    with pytest.raises(UserError, match="budget was 128, is now 64"):
        check_place(Compare(tmp_path / "out", budget=64, resume=True))
