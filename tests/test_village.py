"""The trained models that chapters share: made once for each state of what they follow from, and left as they are."""

from pathlib import Path

import pytest
import torch

from chapters import village
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.records import Turn
from minirlhf.tokenizers.tokenizer import byte_tokenizer


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Makes a tiny model, and counts how often; the folder is empty at first."""
    monkeypatch.setenv("MINIRLHF_VILLAGE", str(tmp_path / "village"))

    def new():
        new.calls += 1
        tokenizer = byte_tokenizer()
        return GPT(GPTConfig(tokenizer.vocab_size, context=4, layers=2, heads=1, width=8)), tokenizer

    new.calls = 0
    return new


def test_a_model_is_made_once_for_each_name_and_state(make, monkeypatch, tmp_path):
    first, tokenizer = village.kept("tiny", make)
    again, same = village.kept("tiny", make)
    assert make.calls == 1 and same == tokenizer
    for ours, theirs in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    village.kept("another", make)
    assert make.calls == 2
    monkeypatch.setattr(village, "state", lambda: "something has changed")
    village.kept("tiny", make)
    assert make.calls == 3
    assert {path.name.partition("-")[0] for path in (tmp_path / "village").iterdir()} == {"tiny", "another"}


def test_the_lower_part_is_the_model_without_its_last_layers(make):
    model, _ = make()
    part = village.lower_part(model, 2)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(part(ids), model(ids))
    assert len(village.lower_part(model, 1).blocks) == 1


def test_a_copy_of_a_frozen_model_learns_and_leaves_the_model_alone(make):
    model, _ = make()
    model.requires_grad_(False)
    copied = village.copy_of(model)
    assert all(parameter.requires_grad for parameter in copied.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_stories_are_left_out():
    assert village.no_story((Turn("user", "What is Greta's job?"),))
    assert not village.no_story((Turn("user", "Tell me a story about Nell and a lantern."),))


def test_an_experiment_is_run_once_for_each_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIRLHF_VILLAGE", str(tmp_path / "village"))
    monkeypatch.syspath_prepend(str(Path(village.__file__).parent))  # as a chapter sees it
    from chapters.remember import remembered

    runs = []

    def experiment(first, second):
        runs.append((first, second))
        return {"numbers": (first, second)}

    assert remembered(experiment, 1, 2) == remembered(experiment, 1, 2) == {"numbers": [1, 2]}
    assert remembered(experiment, 1, 3) == {"numbers": [1, 3]}
    assert runs == [(1, 2), (1, 3)]
