"""Checkpoints: what is saved comes back, a kill at any moment leaves one that loads, and bad files are named."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minirlhf.errors import UserError
from minirlhf.models import checkpoint_files
from minirlhf.models.checkpoint import checkpoint_exists, load_model, load_training_state, save_checkpoint
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import Classifier, RewardModel, ValueModel
from minirlhf.tokenizers.storage import save_tokenizer
from minirlhf.tokenizers.tokenizer import Tokenizer, byte_tokenizer

TOKENIZER = byte_tokenizer()
CONFIG = GPTConfig(TOKENIZER.vocab_size, context=6, layers=1, heads=2, width=4)
LLAMA = GPTConfig(
    TOKENIZER.vocab_size,
    context=6,
    layers=1,
    heads=2,
    kv_heads=1,
    width=4,
    positions="rope",
    norm="rms",
    mlp="swiglu",
    bias=False,
    tie_embeddings=False,
    rope_base=500.0,
)
IDS = torch.tensor([[3, 1, 4, 1, 5]])


def gpt(seed: int = 0, config: GPTConfig = CONFIG) -> GPT:
    return GPT(config, torch.Generator().manual_seed(seed))


def save(folder: Path, seed: int = 0) -> None:
    state = {"step": seed, "report": {"kl_coef": 0.1 + 0.2}}
    tensors = {"moment": torch.full((2, 3), float(seed))}
    save_checkpoint(folder, gpt(seed), TOKENIZER, training_tensors=tensors, training_state=state)


def saved_seed(folder: Path) -> int:
    """Which save is in this folder: weights, tensors and state must all be of the same one."""
    model, _ = load_model(folder)
    tensors, state = load_training_state(folder)
    seed = state["step"]
    assert torch.equal(tensors["moment"], torch.full((2, 3), float(seed)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), gpt(seed).parameters(), strict=True))
    return seed


@pytest.mark.parametrize("config", [CONFIG, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize(
    "wrap",
    [lambda t: t, RewardModel, ValueModel, lambda t: Classifier(t, ("schlecht", "好"))],
    ids=["GPT", "RewardModel", "ValueModel", "Classifier"],
)
def test_every_kind_comes_back_bit_for_bit(tmp_path, config, wrap):
    model = wrap(gpt(1, config))
    if isinstance(model, RewardModel):
        model.normalise(torch.tensor([1.0, 4.0, 2.5]))
    save_checkpoint(tmp_path / "run" / "checkpoint", model, TOKENIZER)
    for place in (tmp_path / "run", tmp_path / "run" / "checkpoint", str(tmp_path / "run")):
        loaded, tokenizer = load_model(place)
        assert type(loaded) is type(model)
        assert tokenizer == TOKENIZER
        assert torch.equal(loaded(IDS), model(IDS))
    if isinstance(model, Classifier):
        assert loaded.classes == model.classes
    files = {"config.json", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in (tmp_path / "run" / "checkpoint").iterdir()} == files


def test_training_state_comes_back_exactly_and_goes_when_not_given(tmp_path):
    save(tmp_path / "c", 3)
    assert saved_seed(tmp_path / "c") == 3
    assert load_training_state(tmp_path / "c")[1]["report"]["kl_coef"] == 0.1 + 0.2
    save_checkpoint(tmp_path / "c", gpt(), TOKENIZER, training_state={"step": 9})
    assert load_training_state(tmp_path / "c") == ({}, {"step": 9})
    save_checkpoint(tmp_path / "c", gpt(), TOKENIZER)
    with pytest.raises(UserError, match="not the state of its training"):
        load_training_state(tmp_path / "c")


class Killed(BaseException):
    """Stands for kill -9: from that moment on nothing reaches the disk, a clean-up neither."""


class Killer:
    """Python announces every open, rename, mkdir and remove to audit hooks; this one dies at the n-th."""

    events = frozenset(("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "shutil.copyfile"))
    left: int | None = None

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.left is not None and event in self.events:
            self.left -= 1
            if self.left < 0:
                raise Killed


KILLER = Killer()
sys.addaudithook(KILLER)


def test_killed_at_any_moment_the_old_or_the_new_one_loads(tmp_path):
    outcomes = []
    for moment in range(80):
        folder = tmp_path / str(moment) / "checkpoint"
        save(folder, 1)
        KILLER.left = moment
        try:
            save(folder, 2)
            completed = True
        except Killed:
            completed = False
        finally:
            KILLER.left = None
        outcomes.append(saved_seed(folder))
        assert checkpoint_exists(folder)
        assert saved_seed(folder.parent) == outcomes[-1]
        save(folder, 3)  # and the next save works and tidies up
        assert saved_seed(folder) == 3
        assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
        if completed:
            break
    assert completed
    assert outcomes == sorted(outcomes)  # first the old one, from some moment on the new one
    assert set(outcomes) == {1, 2}


def test_killed_between_the_two_renames(tmp_path):
    """The one moment at which the folder itself is not there."""
    folder = tmp_path / "checkpoint"
    save(folder, 1)
    os.replace(folder, tmp_path / ".checkpoint.previous")
    assert checkpoint_exists(folder)
    assert saved_seed(tmp_path) == saved_seed(folder) == 1


@pytest.mark.parametrize("file_number", range(1, 6))
def test_disk_full(tmp_path, monkeypatch, file_number):
    folder, written = tmp_path / "checkpoint", iter(range(1, 100))
    save(folder, 1)

    def full(handle):
        if next(written) >= file_number:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="cannot be written") as error:
            save(folder, 2)
    assert "No space left" in error.value.found
    assert saved_seed(folder) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_the_new_folder_cannot_take_the_name(tmp_path, monkeypatch):
    """As on Windows when another program holds a file open: the old one gets its name back."""
    folder, original = tmp_path / "checkpoint", os.replace
    save(folder, 1)

    def stubborn(source, target):
        if Path(source).name == ".checkpoint.writing":
            raise PermissionError(errno.EACCES, "Permission denied")
        original(source, target)

    monkeypatch.setattr(os, "replace", stubborn)
    with pytest.raises(UserError, match="Permission denied"):
        save(folder, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert saved_seed(folder) == 1


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    """Simulated as well, since root may write anywhere."""
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "file" / "checkpoint")

    def refused(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(UserError, match="Permission denied"):
        save(tmp_path / "new" / "checkpoint")


def test_files_of_others_are_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match=r"thesis\.txt"):
        save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def change_json(path: Path, change) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, path)


def poison(value: float):
    def change(tensors):
        tensors["blocks.0.mlp.to_hidden.weight"][1, 2] = value

    return change


BAD = {
    "no weights": (lambda c: (c / "model.safetensors").unlink(), "no checkpoint here", "model.safetensors"),
    "no config": (lambda c: (c / "config.json").unlink(), "missing", "config.json"),
    "no tokenizer": (lambda c: (c / "tokenizer.json").unlink(), "no such file", "tokenizer.json"),
    "truncated": (
        lambda c: (c / "model.safetensors").write_bytes((c / "model.safetensors").read_bytes()[:-7]),
        "not a whole safetensors file",
        "model.safetensors",
    ),
    "empty weights": (lambda c: (c / "model.safetensors").write_bytes(b""), "not a whole", "0 bytes"),
    "a pickle": (
        lambda c: (c / "model.safetensors").write_bytes(b"\x80\x04}."),
        "not a whole safetensors",
        "model.safetensors",
    ),
    "NaN": (
        lambda c: change_tensors(c / "model.safetensors", poison(float("nan"))),
        "NaN or infinity",
        'tensor "blocks.0.mlp.to_hidden.weight"',
    ),
    "infinity": (
        lambda c: change_tensors(c / "model.safetensors", poison(float("-inf"))),
        "NaN or infinity",
        "1 of 64 numbers",
    ),
    "tensor missing": (
        lambda c: change_tensors(c / "model.safetensors", lambda t: t.pop("final_norm.bias")),
        "missing",
        'tensor "final_norm.bias"',
    ),
    "tensor too many": (
        lambda c: change_tensors(c / "model.safetensors", lambda t: t.update(extra=torch.ones(1))),
        "does not have",
        'tensor "extra"',
    ),
    "wrong shape": (
        lambda c: change_json(c / "config.json", lambda j: j["model"].update(context=7)),
        "shape",
        'tensor "position_embedding.weight"',
    ),
    "integers": (
        lambda c: change_tensors(
            c / "model.safetensors", lambda t: t.update({"final_norm.bias": torch.ones(4, dtype=torch.int32)})
        ),
        "no floating-point",
        "torch.int32",
    ),
    "foreign field": (
        lambda c: change_json(c / "config.json", lambda j: j["model"].update(n_embd=4)),
        "unknown",
        'field "model.n_embd"',
    ),
    "wrong type": (
        lambda c: change_json(c / "config.json", lambda j: j["model"].update(layers="1")),
        "wrong type",
        'field "model.layers"',
    ),
    "true is no number": (
        lambda c: change_json(c / "config.json", lambda j: j["model"].update(layers=True)),
        "wrong type",
        'field "model.layers"',
    ),
    "impossible shape": (
        lambda c: change_json(c / "config.json", lambda j: j["model"].update(heads=3)),
        "multiple of the number of heads",
        "config.json",
    ),
    "no vocab_size": (
        lambda c: change_json(c / "config.json", lambda j: j["model"].pop("vocab_size")),
        "missing",
        'field "model.vocab_size"',
    ),
    "unknown kind": (
        lambda c: change_json(c / "config.json", lambda j: j.update(kind="diffusion")),
        "unknown kind",
        "'diffusion'",
    ),
    "no classes": (
        lambda c: change_json(c / "config.json", lambda j: j.update(kind="classifier")),
        "names of its classes",
        'field "classes"',
    ),
    "Hugging Face": (
        lambda c: (c / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8"),
        "Hugging Face",
        "import_hugging_face",
    ),
    "not JSON": (lambda c: (c / "config.json").write_bytes(b"\xff{"), "not JSON in UTF-8", "config.json"),
    "no object": (lambda c: (c / "config.json").write_text("[]", encoding="utf-8"), "no JSON object", "list"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(tmp_path, case):
    spoil, problem, detail = BAD[case]
    save_checkpoint(tmp_path / "checkpoint", gpt(), TOKENIZER)
    spoil(tmp_path / "checkpoint")
    with pytest.raises(UserError, match=problem) as error:
        load_model(tmp_path)
    assert detail in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_foreign_tokenizer_is_refused_both_ways(tmp_path):
    control = dict(TOKENIZER.control)
    control["<|more|>"] = TOKENIZER.vocab_size
    foreign = Tokenizer(TOKENIZER.tokens, TOKENIZER.merges, TOKENIZER.pattern, control)
    with pytest.raises(UserError, match="not this model's"):
        save_checkpoint(tmp_path / "c", gpt(), foreign)
    save_checkpoint(tmp_path / "c", gpt(), TOKENIZER)
    save_tokenizer(foreign, tmp_path / "c" / "tokenizer.json")
    with pytest.raises(UserError, match="not this model's") as error:
        load_model(tmp_path / "c")
    assert f"{TOKENIZER.vocab_size + 1} tokens" in error.value.found
    assert "tokenizer.json" in error.value.where


def test_there_is_nothing_to_load(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no checkpoint here"):
        load_model(tmp_path)
    assert not checkpoint_exists(tmp_path / "nowhere")


def test_reading_cannot_run_code():
    """No pickle: the only readers are safetensors and json."""
    source = Path(checkpoint_files.__file__).read_text(encoding="utf-8")
    assert "pickle" not in source
    assert "torch.load" not in source
