"""What is drawn has the promised shapes and properties, reaches the corners, and shrinks to something small."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, find, settings

import minirlhf.testing as testing
from minirlhf.testing import proved

SMALLEST = settings(max_examples=1000, derandomize=True, deadline=None, database=None, phases=[*Phase][:-1])
ROOT = Path(testing.__file__).parents[2]


def arrays_of(case):
    return {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}


@proved(testing.ragged_batches(), testing.ragged_batches(side="left"))
def test_ragged_batches(right, left):
    for batch, mask in ((right, right.mask), (left, left.mask[:, ::-1])):
        lengths = batch.mask.sum(1)
        assert batch.x.shape == batch.mask.shape and (lengths >= 1).all()
        assert (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all()


@proved(testing.token_batches(max_vocab=4))
def test_token_batches(batch):
    rows, tokens = batch.loss_mask.shape
    assert batch.ids.shape == (rows, tokens + 1) and batch.loss_mask.any()
    assert batch.ids.min() >= 0 and batch.ids.max() < batch.vocab_size <= 4


@proved(testing.attention_inputs(), testing.attention_inputs(empty_rows=True))
def test_attention_inputs(case, hollow):
    for inputs in (case, hollow):
        (rows, heads, tokens, width), (_, groups, seen, _) = inputs.q.shape, inputs.k.shape
        assert inputs.k.shape == inputs.v.shape == (rows, groups, seen, width) and heads % groups == 0
        assert inputs.visible.shape == (rows, 1, tokens, seen) and seen >= tokens
        assert not np.triu(inputs.visible, seen - tokens + 1).any()  # nothing after the token itself
    assert case.visible.any(-1).all()


@proved(testing.preference_pairs(), testing.labelled_answers())
def test_pairs_and_labelled_answers(pairs, answers):
    assert {array.shape for array in arrays_of(pairs).values()} == {pairs.chosen_scores.shape}
    assert all((part <= 0).all() for part in pairs.log_probs)
    assert pairs.log_probs[1] is pairs.rejected_log_probs and pairs.log_probs[2] is pairs.ref_chosen_log_probs
    assert answers.log_probs.shape == answers.ref_log_probs.shape == answers.desirable.shape
    assert answers.kl_nats >= 0 and (answers.log_probs <= 0).all() and (answers.ref_log_probs <= 0).all()


@proved(testing.rankings(), testing.score_groups())
def test_rankings_and_groups(ranking, groups):
    rows, answers = ranking.scores.shape
    assert ranking.counts.shape == (rows,) and ranking.counts.dtype == np.int64
    assert ranking.counts.min() >= 2 and ranking.counts.max() <= answers
    assert groups.group_size >= 2 and len(groups.scores) % groups.group_size == 0


@proved(testing.norm_inputs(), testing.mlp_inputs())
def test_norm_and_mlp_inputs(norm, mlp):
    assert norm.x.shape == norm.dout.shape and norm.weight.shape == norm.bias.shape == norm.x.shape[1:]
    (tokens, width), hidden = mlp.x.shape, len(mlp.up)
    assert mlp.gate.shape == mlp.up.shape == (hidden, width) and mlp.down.shape == (width, hidden)
    assert mlp.dout.shape == (tokens, width)


@pytest.mark.parametrize(
    ("strategy", "reached"),
    [
        (testing.attention_inputs(), lambda case: case.q.shape[1] > case.k.shape[1] > 1 and case.visible.shape[3] > 3),
        (testing.attention_inputs(empty_rows=True), lambda case: not case.visible.any(-1).all()),
        (testing.attention_inputs(max_past=0), lambda case: not case.visible[:, :, -1].all()),
        (testing.preference_pairs(), lambda pairs: (pairs.chosen_scores == pairs.rejected_scores).any()),
        (testing.rankings(), lambda ranking: len(set(ranking.counts.tolist())) > 1),
        (testing.labelled_answers(), lambda answers: answers.desirable.any() and not answers.desirable.all()),
        (testing.floats((8, 8)), lambda x: len(set(x.flat)) > 40),
    ],
    ids=["grouped", "empty_rows", "padded", "tie", "ragged_rankings", "both_labels", "many_numbers"],
)
def test_the_corners_are_reached(strategy, reached):
    find(strategy, reached, settings=SMALLEST)


def test_what_fails_shrinks_to_something_small():
    pairs = find(testing.preference_pairs(), lambda pairs: (pairs.chosen_scores > 2).any(), settings=SMALLEST)
    assert pairs.chosen_scores.tolist() == [3.0] and pairs.rejected_scores.tolist() == [0.0]
    batch = find(testing.token_batches(), lambda batch: batch.loss_mask.sum() > 1, settings=SMALLEST)
    assert batch.loss_mask.size == 2 and not batch.ids.any()
    case = find(testing.attention_inputs(), lambda case: (case.v > 1).any(), settings=SMALLEST)
    assert case.q.size == 1 and case.v.tolist() == [[[[2.0]]]]


def run(code):
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


def test_checks_need_no_hypothesis_and_strategies_say_which_extra():
    run("""
import sys
sys.modules["hypothesis"] = None
import numpy as np
import minirlhf.testing
from minirlhf.testing import central_difference, check_gradient, check_causality, check_accumulation
assert check_gradient(lambda x: float(np.sin(x).sum()), np.ones(2), gradient=np.cos) == 2
assert "torch" not in sys.modules
check_gradient(lambda x: x.sin(), np.ones(2))
for name in ("preference_pairs", "rollouts", "floats"):
    try:
        getattr(minirlhf.testing, name)
    except ImportError as error:
        assert "pip install 'minirlhf[test]'" in str(error)
    else:
        raise AssertionError(name)
for use in (minirlhf.testing.proved, minirlhf.testing.load_profile):
    try:
        use()
    except ImportError as error:
        assert "pip install 'minirlhf[test]'" in str(error)
    else:
        raise AssertionError(use)
""")


def test_the_package_is_light_and_knows_its_names():
    run("""
import sys
import minirlhf.testing, minirlhf.testing.plugin
assert not {"torch", "hypothesis", "numpy"} & set(sys.modules), "imported too early"
for name in minirlhf.testing.__all__:
    assert callable(getattr(minirlhf.testing, name)) and name in dir(minirlhf.testing), name
assert "torch" not in sys.modules
""")
    with pytest.raises(AttributeError, match="no attribute 'check_gradients'"):
        testing.check_gradients  # noqa: B018
