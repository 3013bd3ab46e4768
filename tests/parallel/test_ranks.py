"""Two processes do what one does: the same losses, gradients, decisions and weights, from different samples."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minirlhf.parallel.ranks import ALONE, World, gather, largest, share, sum_gradients, total, totals
from minirlhf.rollout.gather import gather_rollout, share_prompts
from tests.helpers import several
from tests.helpers.tiny_rl import prompt_batch, tiny_rollout

ROOT = Path(__file__).resolve().parents[2]
SIZE = 2


def start(words, rank, size, **environment):
    """One rank of several, on one thread."""
    known = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": str(size)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], env=known | environment, cwd=ROOT, **pipes)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank noted in each case: {case: [tensors of rank 0, of rank 1]}."""
    folder = tmp_path_factory.mktemp("ranks")
    children = [start(["-m", "tests.helpers.several", str(folder)], rank, SIZE) for rank in range(SIZE)]
    for child in children:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors[-3000:]
    return {name: [load_file(folder / f"{name}.{rank}.safetensors") for rank in range(SIZE)] for name in several.CASES}


@pytest.mark.parametrize("name", several.CASES)
def test_every_rank_has_the_losses_gradients_and_weights_of_one_process(name, ranks):
    alone = several.CASES[name](ALONE).tensors
    for rank in ranks[name]:
        assert rank.keys() - {"answers"} == alone.keys()  # as many steps, as many updates
        for key, expected in alone.items():
            torch.testing.assert_close(rank[key], expected, rtol=1e-9, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", several.CASES)
def test_all_ranks_hold_the_same_to_the_last_bit(name, ranks):
    first, second = ranks[name]
    for key in first.keys() - {"answers"}:
        assert first[key].numpy().tobytes() == second[key].numpy().tobytes(), key


@pytest.mark.parametrize("name", ["ppo", "grpo", "reinforce"])
def test_each_rank_writes_its_own_answers_and_together_they_are_those_of_one_process(name, ranks):
    first, second = (json.loads(bytes(rank["answers"].tolist())) for rank in ranks[name])
    alone = several.CASES[name](ALONE).answers
    assert sorted(first + second) == sorted(alone)
    assert set(first) != set(second)


def test_the_cases_are_not_trivial(ranks):
    stops = ranks["ppo_stops"][0]
    updates = {key.split(".")[1] for key in stops if key.startswith("gradient.")}
    assert 0 < len(updates) < several.STEPS * 4 * 3  # some stopped or skipped
    for name in ("pretrain", "reward", "dpo", "ppo", "grpo", "reinforce"):
        gradients = [tensor for key, tensor in ranks[name][0].items() if key.startswith("gradient.")]
        assert all(tensor.abs().max() > 0 for tensor in gradients if tensor.dim() == 2)
    counts = [
        sum(int(batch.loss_mask.sum()) for batch in several.token_batches(World(rank, SIZE), 0)) for rank in range(SIZE)
    ]
    assert counts[0] != counts[1]


def test_alone_nothing_is_touched():
    rows, parameter = torch.arange(3), torch.zeros(2, requires_grad=True)
    parameter.grad = torch.ones(2)
    sum_gradients(ALONE, [parameter])
    rollout, prompts, generator = tiny_rollout(), prompt_batch(), torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert share_prompts(ALONE, prompts, 5, generator) is prompts
    assert gather_rollout(ALONE, rollout, 0) is rollout
    assert torch.equal(generator.get_state(), before)
    assert gather(ALONE, rows) is rows
    assert (total(ALONE, 3), totals(ALONE, {"a": 1.5}), largest(ALONE, 2, 1)) == (3, {"a": 1.5}, [2, 1])
    assert share(ALONE, rows).tolist() == [0, 1, 2]
    assert ALONE.leads and parameter.grad.tolist() == [1, 1]


@pytest.mark.parametrize("rows", range(3, 12))
def test_shares_are_whole_in_order_and_even(rows):
    parts = [share(World(rank, 3), list(range(rows))) for rank in range(3)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [share(World(rank, 3), torch.arange(rows)).tolist() for rank in range(3)] == parts


def test_a_rank_without_rows_is_refused():
    with pytest.raises(ValueError, match="2 rows cannot be shared by 3 processes"):
        share(World(2, 3), [1, 2])


def test_each_rank_skips_the_random_numbers_of_the_ranks_before_it():
    prompts, new_tokens = prompt_batch(), 5
    whole = torch.rand((len(prompts.ids), new_tokens), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    pieces, texts = [], []
    for rank in range(3):
        generator = torch.Generator().manual_seed(4)
        mine = share_prompts(World(rank, 3), prompts, new_tokens, generator)
        pieces.append(torch.rand((len(mine.ids), new_tokens), generator=generator, dtype=torch.float64))
        texts.extend(mine.texts)
    assert torch.equal(torch.cat(pieces), whole)
    assert tuple(texts) == prompts.texts
