"""The reward stage reads the held-out pairs once at the end, and like lengths together."""

import json

import pytest

from minirlhf import cli
from minirlhf.data.batches import preference_batch
from minirlhf.stages import reward
from minirlhf.trainers.reward import stacked
from tests.helpers import tiny_road


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with data and the model to start from."""
    folder = tmp_path_factory.mktemp("road")
    tiny_road.write_data(folder)
    for stage, name in (("pretrain", "base"), ("sft", "sft")):
        assert cli.main(tiny_road.command(stage, folder, folder, folder / name)) == 0
    return folder


def test_the_last_evaluation_is_the_report_and_is_not_repeated(models, tmp_path, monkeypatch):
    read = []
    evaluate = reward.evaluate_reward_model

    def counted(model, batches):
        read.append(list(batches))
        return evaluate(model, read[-1])

    monkeypatch.setattr(reward, "evaluate_reward_model", counted)
    assert cli.main(tiny_road.command("reward", models, models, tmp_path / "run")) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = [row for row in rows if "val_accuracy" in row]
    assert len(read) == len(measured) >= 1
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert report["accuracy"] == measured[-1]["val_accuracy"]


def test_like_lengths_are_scored_together(models, tmp_path, monkeypatch):
    groups = []

    def noted(group, pad_id):
        groups.append(group)
        return preference_batch(group, pad_id)

    monkeypatch.setattr(reward, "preference_batch", noted)
    assert cli.main(tiny_road.command("reward", models, models, tmp_path / "run")) == 0
    assert any(len(group) > 1 for group in groups)
    for group in groups:
        lengths = [stacked(preference_batch([pair], 0))[0].shape[1] for pair in group]
        assert lengths == sorted(lengths)
