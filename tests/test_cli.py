"""The command line: every command in miniature, what it says to wrong input, and that nothing half-made is left."""

import builtins
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minirlhf import cli
from minirlhf.errors import UserError
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.checkpoint import load_model
from minirlhf.models.gpt import GPTConfig
from minirlhf.models.hugging_face_config import family
from minirlhf.records import Turn
from minirlhf.runs.files import read_json, read_rows
from minirlhf.runs.run import RunOptions
from minirlhf.seeding import torch_generator
from minirlhf.stages import chat, common
from minirlhf.stages.pretrain import PretrainStage
from minirlhf.stages.reward import RewardStage
from minirlhf.tokenizers.storage import load_tokenizer
from tests.helpers.tiny_road import SHAPE, command, write_data

TRAINING = ("pretrain", "sft", "reward", "reinforce", "ppo")


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A whole road walked by the command line: data/ and models/base, sft, reward, reinforce, ppo."""
    folder = tmp_path_factory.mktemp("road")
    write_data(folder / "data")
    for stage in TRAINING:
        out = folder / "models" / {"pretrain": "base"}.get(stage, stage)
        assert cli.main(command(stage, folder / "data", folder / "models", out)) == 0
    return folder


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def python(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        encoding="utf-8",
        cwd=Path(__file__).parent.parent,
        check=False,
        **options,
    )


# -- help and errors ----------------------------------------------------------------------------------------------


def test_help_names_every_command_without_waiting_for_torch():
    code = "import sys; from minirlhf.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    for name, described in cli.COMMANDS.items():
        assert name in done.stdout
        assert described.summary in done.stdout


def test_the_module_is_the_command():
    assert python("-m", "minirlhf", "--version").stdout.startswith("minirlhf ")
    done = python("-m", "minirlhf", "pretend")
    assert done.returncode == 2
    assert "there is no such command" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_commands_help_lists_its_flags(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    if name in TRAINING:
        for flag in ("--data", "--model", "--out", "--seed", "--device", "--resume", "--overwrite", "--learning-rate"):
            assert flag in shown, flag


@pytest.mark.parametrize("words", [["pretrain"], ["pretrain", "--out", "x", "--stepps", "3"], ["sft", "--out", "x"]])
def test_missing_and_misspelt_flags_end_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2


def test_the_defaults_of_pretrain_are_the_recipe_of_the_benchmark():
    stage = PretrainStage(RunOptions(Path("out")))
    assert (stage.gpt.layers, stage.gpt.heads, stage.gpt.width, stage.gpt.context) == (4, 4, 128, 64)
    assert (stage.training.batch_size, stage.training.steps) == (12, 2000)
    assert stage.held_out_fraction == 0.1
    assert family(stage.gpt) == "qwen3"
    assert (stage.training.optim.optimizer, stage.training.optim.learning_rate) == ("muon", 5e-3)
    reward = RewardStage(RunOptions(Path("out")), Path("model"))
    assert (reward.training.epochs, reward.training.optim.final_fraction) == (1.0, 0.0)


WRONG = {
    "no such file": (["pretrain", "--data", "nothing.txt", *SHAPE], "nothing.txt"),
    "no such model": (["sft", "--model", "nowhere"], "nowhere"),
    "a reward model is no language model": (["sft", "--model", "{models}/reward"], "RewardModel"),
    "a file of another shape": (["reward", "--model", "{models}/sft", "--data", "{data}/chats.jsonl"], "rejected"),
    "text is no conversation": (["sft", "--model", "{models}/base", "--data", "{data}/text.txt"], "plain text"),
    "a field without a column": (["pretrain", "--data", "{data}/text.txt", "--field", "text"], "NAME=COLUMN"),
    "width and heads": (["pretrain", "--data", "{data}/text.txt", "--width", "10", "--heads", "4"], "multiple"),
    "a context longer than the text": (["pretrain", "--data", "{data}/text.txt", "--context", "5000"], "shorter"),
    "an unknown tokenizer": (["pretrain", "--data", "{data}/text.txt", "--tokenizer", "letters"], "no tokenizer"),
    "a reward that is a language model": (["ppo", "--model", "{models}/sft", "--reward", "{models}/sft"], "no scores"),
    "a reward function that is not there": (["ppo", "--model", "{models}/sft", "--reward", "no_such:f"], "not found"),
    "answers as long as the context": (["ppo", "--model", "{models}/sft", "--reward", "{models}/reward"], "--max-new"),
    "a critic from a function": (
        [
            "ppo",
            "--model",
            "{models}/sft",
            "--reward",
            "builtins:sum",
            "--value-from",
            "reward",
            "--max-new-tokens",
            "8",
        ],
        "--value-from policy",
    ),
    "a temperature of nothing": (
        ["ppo", "--model", "{models}/sft", "--reward", "builtins:sum", "--temperature", "0"],
        "temperature",
    ),
    "a learning rate below zero": (["pretrain", "--data", "{data}/text.txt", "--learning-rate", "-1"], "learning_rate"),
    "a micro-batch of none": (["pretrain", "--data", "{data}/text.txt", *SHAPE, "--micro-batch-size", "0"], "micro"),
    "a device that is not there": (["pretrain", "--data", "{data}/text.txt", "--device", "mps"], "not available"),
    "another encoding": (["pretrain", "--data", "{data}/latin.txt"], "latin.txt:1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_explained_and_leaves_nothing_behind(case, road, tmp_path, capsys):
    (road / "data" / "latin.txt").write_bytes("é".encode("latin-1"))
    words, expected = WRONG[case]
    words = [word.format(data=road / "data", models=road / "models") for word in words]
    if words[0] in ("ppo", "reinforce"):
        words += ["--data", str(road / "data" / "prompts.jsonl")]
    if case == "a device that is not there" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    code, _, err = run(capsys, *words, "--out", tmp_path / "out", *([] if "--device" in words else ["--device", "cpu"]))
    assert code == 2
    assert expected in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_debug_shows_where_an_error_came_from(tmp_path):
    with pytest.raises(UserError):
        cli.main(["sft", "--debug", "--model", "nowhere", "--out", str(tmp_path / "out")])


def test_a_disk_that_refuses_is_no_traceback(road, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "config.json")

    monkeypatch.setattr("minirlhf.runs.run.write_json", full)
    code, _, err = run(capsys, *command("pretrain", road / "data", road / "models", tmp_path / "out"))
    assert code == 2
    assert "No space left on device" in err
    assert "config.json" in err


def test_diverged_training_says_so_and_keeps_the_last_checkpoint(road, tmp_path, capsys):
    judge = "calls = []\ndef score(prompts, responses):\n    calls.append(1)\n"
    judge += "    return [1e300 if len(calls) > 2 else 1.0] * len(responses)\n"
    (tmp_path / "wild_judge.py").write_text(judge, encoding="utf-8")
    words = command("ppo", road / "data", road / "models", tmp_path / "out")
    words[words.index("--reward") + 1] = "wild_judge:score"
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        code, _, err = run(capsys, *words, "--save-every-seconds", 0)
    finally:
        os.chdir(before)
        sys.modules.pop("wild_judge", None)
    assert code == 1
    assert "broke down" in err
    load_model(tmp_path / "out")


# -- what the commands make ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base", "sft", "reward", "reinforce", "ppo"])
def test_a_training_command_leaves_a_whole_run_folder(road, name):
    folder = road / "models" / name
    assert {"config.json", "metrics.jsonl", "checkpoint", "report.html"} <= {path.name for path in folder.iterdir()}
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert sorted(p.name for p in (folder / "checkpoint").iterdir() if "training" not in p.name) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert not (folder / "checkpoint" / "training_state.safetensors").exists()  # only while training
    config = read_json(folder / "config.json")
    assert config["seed"] == 5
    assert config["settings"]["stage"]["training"]
    assert list(config["settings"]["data"].values())
    if name != "reward":
        samples = read_rows(folder / "samples.jsonl")
        assert {sample["step"] for sample in samples} >= {0, len(rows)}
        assert len({sample["prompt"] for sample in samples}) <= 4


def test_the_metrics_a_person_compares_are_there(road):
    last = {name: read_rows(road / "models" / name / "metrics.jsonl")[-1] for name in ("base", "sft", "reward", "ppo")}
    for name in ("base", "sft"):
        assert {"val_loss_nats_per_token", "val_bits_per_byte", "tokens_per_second"} <= last[name].keys()
    assert {"val_accuracy", "val_loss_nats_per_pair"} <= last["reward"].keys()
    assert {"score_mean", "kl_nats_per_response", "explained_variance", "clip_fraction"} <= last["ppo"].keys()
    evaluation = read_json(road / "models" / "reward" / "evaluation.json")
    assert {"accuracy", "interval_95", "n", "calibration", "length"} <= evaluation.keys()


def test_the_reward_models_scores_are_normalised(road):
    model, _ = load_model(road / "models" / "reward")
    assert float(model.gain) != 1.0
    assert float(model.bias_shift) != 0.0


def test_the_reference_and_the_start_of_ppo_are_the_same_model(road):
    first = read_rows(road / "models" / "ppo" / "metrics.jsonl")[0]
    assert abs(first["kl_nats_per_response"]) < 1e-5
    assert first["kl_exact_probe_nats_per_token"] < 1e-9


def test_ctrl_c_saves_and_says_how_to_go_on(road, tmp_path, capsys, monkeypatch):
    words = command("pretrain", road / "data", road / "models", tmp_path / "out")
    whole = common.save_training
    calls = []

    def save(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        whole(*arguments)

    monkeypatch.setattr("minirlhf.stages.pretrain.save_training", save)
    code, _, err = run(capsys, *words, "--save-every-seconds", 0)
    assert code == 130
    assert "stopped after step 2 of 8" in err
    assert err.rstrip().endswith("--resume")
    monkeypatch.undo()
    again = err.rstrip().splitlines()[-1].split("minirlhf ", 1)[1].split(" ")
    assert cli.main(again) == 0
    done = [(f / "checkpoint" / "model.safetensors").read_bytes() for f in (tmp_path / "out", road / "models" / "base")]
    assert done[0] == done[1]


def test_fields_with_other_names(tmp_path, capsys):
    rows = "".join(json.dumps({"review": f"A fine film, number {i}. " * 4}) + "\n" for i in range(9))
    (tmp_path / "films.jsonl").write_text(rows, encoding="utf-8")
    words = ["pretrain", "--data", tmp_path / "films.jsonl", *SHAPE, "--steps", 1, "--out", tmp_path / "out"]
    assert run(capsys, *words)[0] == 2
    assert run(capsys, *words, "--field", "text=review", "--device", "cpu")[0] == 0


def test_a_tokenizer_is_learnt_and_used(road, tmp_path, capsys):
    words = ["tokenizer", "--data", road / "data" / "text.txt", "--vocab-size", 270, "--out", tmp_path / "bpe"]
    assert run(capsys, *words)[0] == 0
    assert load_tokenizer(tmp_path / "bpe" / "tokenizer.json").vocab_size == 270
    code, _, err = run(capsys, *words)
    assert (code, "--overwrite" in err) == (2, True)
    assert run(capsys, *words, "--overwrite")[0] == 0
    assert (tmp_path / "bpe.before-1" / "tokenizer.json").exists()
    more = ["--tokenizer", tmp_path / "bpe", "--steps", 1, "--out", tmp_path / "out", "--context", 8]
    assert run(capsys, "pretrain", "--data", road / "data" / "text.txt", *SHAPE, *more)[0] == 0
    assert load_model(tmp_path / "out")[1].vocab_size == 270


def test_generate_answers_prompts_the_same_way_for_the_same_seed(road, tmp_path, capsys):
    words = ["generate", "--model", road / "models" / "sft", "--prompt", "What has Bo?", "Who?", "--max-new-tokens", 9]
    first, second = run(capsys, *words), run(capsys, *words)
    assert first == second
    assert first[0] == 0
    assert "> What has Bo?" in first[1]
    assert run(capsys, *words, "--seed", 1)[1] != first[1]

    out = tmp_path / "answers.jsonl"
    words = ["generate", "--model", road / "models" / "sft", "--data", road / "data" / "prompts.jsonl", "--out", out]
    assert run(capsys, *words)[0] == 0  # 64 tokens do not fit a context of 48: shorter answers, and a note
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [set(row) for row in rows] == [{"prompt", "response"}] * 6
    assert run(capsys, *words)[0] == 2
    assert run(capsys, "generate", "--model", road / "models" / "sft")[0] == 2
    assert run(capsys, "generate", "--model", road / "models" / "sft", "--prompt", "x" * 60)[0] == 2
    code, shown, _ = run(
        capsys, "generate", "--model", road / "models" / "base", "--prompt", "Ada has", "--continue-text"
    )
    assert code == 0
    assert shown.splitlines()[-1] or "Ada has" in shown


def test_evaluate_measures_models_of_both_kinds(road, tmp_path, capsys):
    base = ["evaluate", "--model", road / "models" / "base", "--data", road / "data" / "text.txt"]
    code, shown, _ = run(capsys, *base, "--out", tmp_path / "r.json")
    assert code == 0
    assert "bits per byte" in shown
    result = read_json(tmp_path / "r.json")
    assert result["tokens"] == result["bytes"] == len((road / "data" / "text.txt").read_bytes()) - 1
    sft = ["evaluate", "--model", road / "models" / "sft"]
    chats, pairs, prompts = (road / "data" / f"{name}.jsonl" for name in ("chats", "pairs", "prompts"))
    assert run(capsys, *sft, "--data", chats, "--kind", "conversations")[0] == 0
    code, shown, _ = run(capsys, "evaluate", "--model", road / "models" / "reward", "--data", pairs)
    assert code == 0
    assert "held-out accuracy" in shown
    judged = [*sft, "--against", road / "models" / "ppo", "--data", prompts, "--max-new-tokens", 8]
    code, shown, _ = run(capsys, *judged, "--reward", road / "models" / "reward", "--out", tmp_path / "w.json")
    assert code == 0
    assert "beats" in shown
    assert read_json(tmp_path / "w.json")["win_rate"]["n"] == 6
    assert run(capsys, *judged)[0] == 2  # two models and no judge


def test_a_model_against_itself_is_a_draw(road, tmp_path, capsys):
    words = ["evaluate", "--model", road / "models" / "sft", "--against", road / "models" / ".." / "models" / "sft"]
    words += ["--reward", road / "models" / "reward", "--data", road / "data" / "prompts.jsonl"]
    assert run(capsys, *words, "--max-new-tokens", 8, "--out", tmp_path / "w.json")[0] == 0
    assert read_json(tmp_path / "w.json")["win_rate"]["mean"] == 0.5


def test_diagnose_and_export(road, tmp_path, capsys):
    assert run(capsys, "diagnose", road / "models" / "ppo")[0] == 0
    assert run(capsys, "diagnose", tmp_path)[0] == 2
    assert run(capsys, "export", road / "models" / "sft", "--out", tmp_path / "hf")[0] == 0
    assert (tmp_path / "hf" / "config.json").exists()
    assert run(capsys, "export", road / "models" / "sft", "--out", tmp_path / "hf")[0] == 2


# -- chat ---------------------------------------------------------------------------------------------------------


def test_chat_answers_forgets_and_leaves(road, capsys, monkeypatch):
    lines = iter(["hello", "/help", "/reset", "", "hello", "/exit", "never read"])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(lines))
    code, shown, _ = run(capsys, "chat", road / "models" / "sft", "--max-new-tokens", 6)
    assert code == 0
    assert shown.count("model: ") == 2
    assert "there is no command /help" in shown
    assert "forgotten" in shown
    assert next(lines) == "never read"


def test_chat_ends_with_the_input_and_survives_ctrl_c_at_the_prompt(road, capsys, monkeypatch):
    events = iter([KeyboardInterrupt, EOFError])

    def nothing(prompt):
        raise next(events)

    monkeypatch.setattr(builtins, "input", nothing)
    assert run(capsys, "chat", road / "models" / "sft")[0] == 0


def settings(road, **sampling) -> chat.Chat:
    return chat.Chat(road / "models" / "sft", sampling=SamplingConfig(**sampling))


def test_ctrl_c_stops_the_answer_and_keeps_what_there_is(road, monkeypatch):
    model, tokenizer = load_model(road / "models" / "sft")

    def stopping(*arguments):
        yield from tokenizer.encode("half é")[:-1]
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "stream", stopping)
    written: list[str] = []
    stage = settings(road, max_new_tokens=6)
    history = chat.take_turn(model, tokenizer, stage, [], "hello", torch_generator(0, "chat"), written.append)
    assert history == [Turn("user", "hello"), Turn("assistant", "half �")]
    assert "".join(written) == "model: half  (stopped)�\n"


def test_chat_keeps_its_history_and_drops_the_oldest_turns_when_the_context_is_full(road, monkeypatch):
    model, tokenizer = load_model(road / "models" / "sft")
    stage, written, whole = settings(road, max_new_tokens=4), [], chat.stream

    def watched(model, prompt_ids, *others):
        assert len(prompt_ids) + 4 <= 48
        asked.append(len(prompt_ids))
        return whole(model, prompt_ids, *others)

    asked: list[int] = []
    monkeypatch.setattr(chat, "stream", watched)
    history: list[Turn] = []
    for number in range(6):
        line = f"line {number} is long"
        history = chat.take_turn(model, tokenizer, stage, history, line, torch_generator(0, number), written.append)
    assert len(asked) == 6
    assert asked[1] > asked[0]
    said = "".join(written)
    assert "the context is full" in said
    assert 0 < len(history) < 12
    assert history[0].role == "user"
    monkeypatch.setattr(chat, "stream", whole)
    assert chat.take_turn(model, tokenizer, stage, history, "x" * 99, torch_generator(0), written.append) == history
    assert "do not fit" in "".join(written)


def test_the_stages_shapes_are_known_to_the_model(road):
    model, tokenizer = load_model(road / "models" / "base")
    config = model.config
    assert (config.layers, config.heads, config.width, config.context) == (1, 2, 8, 48)
    assert isinstance(config, GPTConfig)
    assert config.vocab_size == tokenizer.vocab_size == 261
