"""--shard: weights, gradients and optimizer state cut up among two processes, and the run that of one process."""

import os

import pytest
import torch
from safetensors.torch import load_file

from minirlhf import cli
from minirlhf.errors import UserError
from minirlhf.models.sharded import as_shares, pieces, read_shards, shard, whole, whole_weights
from minirlhf.parallel.ranks import ALONE
from minirlhf.runs.files import read_json
from tests.helpers.tiny_rl import tiny_gpt
from tests.parallel.test_processes import (
    assert_same_run,
    by_hand,
    road,  # noqa: F401
    rows_of,
    slowly,
    under_torchrun,
    wait_for,
    words_of,
)


@pytest.mark.parametrize(("stage", "name"), [("pretrain", "base"), ("ppo", "ppo")])
def test_a_sharded_run_is_the_run_of_one_process(stage, name, road, tmp_path):  # noqa: F811
    done = under_torchrun([*words_of(road, stage, tmp_path / "two"), "--shard"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(road / "models" / name, tmp_path / "two")
    one, two = (folder / "samples.jsonl" for folder in (road / "models" / name, tmp_path / "two"))
    assert one.read_text(encoding="utf-8") == two.read_text(encoding="utf-8")


def test_a_sharded_run_goes_on_in_one_process_and_a_run_of_one_process_goes_on_sharded(road, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    words = slowly(words_of(road, "pretrain", out))
    children = by_hand([[*words, "--shard"]] * 2)
    wait_for(out / "checkpoint" / "training_shards")
    for child in children:
        child.kill()
        child.communicate(timeout=60)
    assert len(list((out / "checkpoint" / "training_shards").iterdir())) == 2  # each rank its share
    (alone,) = by_hand([[*words, "--resume"]])
    first = read_json(out / "checkpoint" / "training_state.json")["step"]
    wait_for(out / "checkpoint" / "training_state.safetensors")
    alone.kill()
    alone.communicate(timeout=60)
    second = read_json(out / "checkpoint" / "training_state.json")["step"]
    assert 0 < first < second < 400
    done = under_torchrun([*words, "--resume", "--shard"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["step"] for row in rows_of(out)] == list(range(1, 401))
    assert not (out / "checkpoint" / "training_shards").exists()
    assert cli.main(slowly(words_of(road, "pretrain", tmp_path / "whole"))) == 0
    assert_same_run(tmp_path / "whole", out, tolerance=2e-3, weights_within=5e-3)  # 400 steps of float32
    assert load_file(out / "checkpoint" / "model.safetensors")
    assert os.listdir(out / "checkpoint")


def test_alone_nothing_is_cut(tmp_path):
    model = tiny_gpt()
    shard(ALONE, model)
    assert type(model).__name__ == "GPT"
    assert pieces(model) == []
    with whole(model, None):
        weights = whole_weights(model)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert as_shares(weights, weights) == weights
    with pytest.raises(UserError, match="does not fit"):
        read_shards(tmp_path, weights)
