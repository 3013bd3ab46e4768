"""The run folder: nothing a person made is lost, rows and checkpoints agree, and a run can be stopped at any step."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from minirlhf.errors import UserError
from minirlhf.models.checkpoint import save_checkpoint
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.records import Report
from minirlhf.runs import files as run_files
from minirlhf.runs import run as runs
from minirlhf.runs.files import append_row, cut_rows, flat, read_json, read_rows, write_json, write_text
from minirlhf.runs.progress import progress_display, stop_requests
from minirlhf.runs.run import Interrupted, RunOptions, check_folder, drive, open_run
from minirlhf.tokenizers.tokenizer import byte_tokenizer

CPU = torch.device("cpu")
SETTINGS = {"training": {"learning_rate": 0.1, "steps": 6}}


def options(folder: Path, **changes) -> RunOptions:
    return RunOptions(out=folder, quiet=True, **changes)


def start(folder: Path, settings_=None, **changes) -> runs.Run:
    chosen = options(folder, **changes)
    return open_run(chosen, CPU, "pretrain", {"stage": {"run": chosen, **(settings_ or SETTINGS)}})


def reports(first: int, steps: int):
    for step in range(first, steps):
        yield Report(step + 1, {"loss_nats_per_token": 1.0 / (step + 1)}, {"kl_coef": float(step)})


def saver(run: runs.Run):
    """A save function with a real checkpoint of a model of nothing."""
    tokenizer = byte_tokenizer()
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, context=4, layers=1, heads=1, width=2))

    def save(state):
        save_checkpoint(run.checkpoint, model, tokenizer, training_tensors={"a": torch.ones(1)}, training_state=state)

    return save


# -- files --------------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(run_files.os, name, fail)
            with pytest.raises(OSError, match="disk full"):
                write_text(path, "new")
        assert path.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("last", [0, 3, 6])
def test_rows_survive_being_cut_at_any_byte(tmp_path, last):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "text": "é\u2028日" * step} for step in range(1, 6)]
    for row in rows:
        append_row(path, row)
    content = path.read_bytes()
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        assert read_rows(path) == rows[:whole]
        assert cut_rows(path, last) == rows[: min(whole, last)] == read_rows(path)
        append_row(path, {"step": 9})  # what comes next stands on a line of its own
        assert read_rows(path)[-1] == {"step": 9}


def test_numbers_json_has_no_word_for_become_null(tmp_path):
    append_row(tmp_path / "m.jsonl", {"step": 1, "loss": float("nan"), "more": [float("inf"), 1.5]})
    assert read_rows(tmp_path / "m.jsonl") == [{"step": 1, "loss": None, "more": [None, 1.5]}]
    write_json(tmp_path / "e.json", {"x": float("-inf")})
    assert read_json(tmp_path / "e.json") == {"x": None}


def test_flat_names_what_lies_deep():
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


# -- the folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("name", ["thesis.tex", "config.json", "metrics.jsonl"])
def test_a_folder_that_is_not_ours_is_never_touched(tmp_path, flags, name):
    (tmp_path / name).write_text('{"model_type": "gpt2"}', encoding="utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match="not a run of minirlhf"):
        start(tmp_path, **flags)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="is a file"):
        start(tmp_path / "out", overwrite=True)


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    start(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run") as raised:
        start(tmp_path / "run")
    assert "--resume" in str(raised.value)
    assert "--overwrite" in str(raised.value)
    with pytest.raises(UserError, match="contradict"):
        start(tmp_path / "run", resume=True, overwrite=True)


def test_overwrite_moves_aside_and_loses_nothing(tmp_path):
    folder = tmp_path / "run"
    for number in (1, 2, 3):
        start(folder, overwrite=True)
        (folder / "note.txt").write_text(f"attempt {number}", encoding="utf-8")
    notes = [tmp_path / "run.before-1", tmp_path / "run.before-2", folder]
    assert [(place / "note.txt").read_text(encoding="utf-8") for place in notes] == [
        "attempt 1",
        "attempt 2",
        "attempt 3",
    ]


def test_config_json_says_what_was_resolved(tmp_path):
    start(tmp_path / "run", seed=7)
    config = read_json(tmp_path / "run" / "config.json")
    assert config["seed"] == 7
    assert config["device"] == "cpu"
    assert config["command"] == "pretrain"
    assert config["settings"]["stage"]["training"] == SETTINGS["training"]
    assert set(config["versions"]) >= {"python", "torch"}
    assert {"minirlhf", "argv", "git_commit"} <= set(config)


def test_resuming_with_other_settings_names_them_and_changes_nothing(tmp_path):
    start(tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(UserError) as raised:
        start(tmp_path / "run", {"training": {"learning_rate": 0.2, "steps": 6, "extra": 1}}, resume=True, seed=1)
    message = str(raised.value)
    assert "stage.training.learning_rate was 0.1, is now 0.2" in message
    assert "stage.training.extra was None, is now 1" in message
    assert "stage.run.seed was 0, is now 1" in message
    assert "steps" not in message
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_what_no_weight_depends_on_may_change(tmp_path):
    start(tmp_path / "run")
    run = start(tmp_path / "run", resume=True, save_every_seconds=1.0, log_every=3)
    assert run.start_step == 0


def test_another_command_cannot_resume_the_run(tmp_path):
    start(tmp_path / "run")
    chosen = options(tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="another kind of run"):
        open_run(chosen, CPU, "sft", {"stage": {"run": chosen, **SETTINGS}})


@pytest.mark.parametrize("leave", [[], ["config.json.unfinished"]])
def test_resume_starts_where_there_is_nothing_yet(tmp_path, leave):
    for name in leave:  # killed while the first file was written
        (tmp_path / name).write_text("{", encoding="utf-8")
    assert not check_folder(options(tmp_path))
    assert start(tmp_path, resume=True).start_step == 0
    assert runs.is_run_folder(tmp_path)


# -- the loop -----------------------------------------------------------------------------------------------------


def test_a_run_logs_every_step_evaluates_samples_and_saves(tmp_path, capsys):
    run = start(tmp_path / "run", eval_every=2, log_every=3)
    evaluated = []

    def evaluate(step):
        evaluated.append(step)
        return {"val_loss_nats_per_token": 0.5}

    saved = []
    drive(run, reports(0, 5), 5, saved.append, evaluate, lambda: [{"prompt": "p", "response": "r"}])
    rows = read_rows(run.folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert evaluated == [2, 4, 5]  # the last step always
    assert [row["step"] for row in rows if "val_loss_nats_per_token" in row] == [2, 4, 5]
    assert [row["step"] for row in read_rows(run.folder / "samples.jsonl")] == [0, 2, 4, 5]
    assert saved == [{"step": 5, "finished": False, "report": {"kl_coef": 4.0}}]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 3/5", "step 5/5"]


def test_saving_after_every_step(tmp_path):
    saved = []
    drive(start(tmp_path / "run", save_every_seconds=0.0), reports(0, 3), 3, saved.append)
    assert [state["step"] for state in saved] == [1, 2, 3]


def test_resuming_cuts_the_rows_back_to_the_checkpoint(tmp_path):
    run = start(tmp_path / "run", eval_every=1)
    save = saver(run)

    def save_early(state):
        if state["step"] <= 2:
            save(state)

    run = start(tmp_path / "run", eval_every=1, resume=True, save_every_seconds=0.0)
    drive(run, reports(0, 4), 6, save_early, sample=lambda: [{"prompt": "p", "response": "r"}])  # dies after step 4
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "sec')
    again = start(tmp_path / "run", eval_every=1, resume=True, save_every_seconds=0.0)
    assert (again.start_step, again.state, again.finished) == (2, {"kl_coef": 1.0}, False)
    assert torch.equal(again.tensors["a"], torch.ones(1))
    rows = read_rows(again.folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert again.seconds == rows[-1]["seconds"]
    drive(again, reports(2, 6), 6, save, sample=lambda: [{"prompt": "p", "response": "r"}])
    rows = read_rows(again.folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert [row["step"] for row in read_rows(again.folder / "samples.jsonl")] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_lets_the_step_finish_saves_and_says_so(tmp_path, number):
    run, saved = start(tmp_path / "run"), []
    handler = signal.getsignal(number)

    def interrupted():
        for report in reports(0, 6):
            if report.step == 3:
                os.kill(os.getpid(), number)
            yield report

    with pytest.raises(Interrupted, match="stopped after step 3 of 6"):
        drive(run, interrupted(), 6, saved.append)
    assert [state["step"] for state in saved] == [3]
    assert [row["step"] for row in read_rows(run.folder / "metrics.jsonl")] == [1, 2, 3]
    assert signal.getsignal(number) == handler


def test_a_stop_signal_in_the_last_step_changes_nothing(tmp_path):
    saved = []

    def interrupted():
        yield from reports(0, 1)
        os.kill(os.getpid(), signal.SIGINT)
        yield from reports(1, 2)

    drive(start(tmp_path / "run"), interrupted(), 2, saved.append)
    assert [state["step"] for state in saved] == [2]


def test_a_second_stop_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)


def test_the_progress_bar_shows_what_matters(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_display(4, 1, False, 1) as show:
        show(2, {"loss_nats_per_token": 1.25, "tokens_per_second": 800.0})
        show(4, {"score_mean": 0.5})
    shown = capsys.readouterr()
    assert "loss 1.25  tokens/s 800" in shown.err
    assert "score 0.5" in shown.err
    assert "4/4" in shown.err
    assert shown.out == ""


def test_without_a_terminal_there_is_no_bar(capsys):
    with progress_display(4, 0, False, 2) as show:
        for step in (1, 2, 3, 4):
            show(step, {"loss_nats_per_token": 1.0})
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out == "step 2/4  loss_nats_per_token 1\nstep 4/4  loss_nats_per_token 1\n"


def test_json_in_a_broken_config_is_reported(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not JSON"):
        read_json(tmp_path / "config.json")
    with pytest.raises(UserError, match="missing"):
        read_json(tmp_path / "nothing.json")
    assert json.loads(json.dumps(run_files.plain(options(tmp_path))))["out"] == str(tmp_path)
