"""Scores from a reward model or from anybody's function, and what happens when that function is wrong."""

import math
import sys

import numpy as np
import pytest
import torch

from minirlhf.errors import UserError
from minirlhf.rollout.scoring import load_reward_function, reward_fn_scorer, reward_model_scorer
from tests.helpers.tiny_rl import tiny_generation, tiny_reward_model

PROMPTS, RESPONSES = ("p", "q"), ("one", "two")


def score(function):
    return reward_fn_scorer(function)(None, PROMPTS, RESPONSES)


def test_the_function_gets_lists_of_prompts_and_responses_and_its_floats_come_back():
    seen = []

    def fn(prompts, responses):
        seen.append((prompts, responses))
        return [0.25, -2]

    assert score(fn).tolist() == [0.25, -2.0]
    assert seen == [(["p", "q"], ["one", "two"])]


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor, lambda x: np.array(x, dtype=np.float32)])
def test_arrays_and_tensors_are_taken_too(kind):
    assert score(lambda prompts, responses: kind([0.5, 1.5])).tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1.0], ["1 scores for 2 responses"]),
        ([1.0, 2.0, 3.0], ["3 scores for 2 responses"]),
        ([1.0, math.nan], ["item 1", "'two'", "nan", "not finite"]),
        ([math.inf, 1.0], ["item 0", "'one'", "inf", "not finite"]),
        (["0.3", 1.0], ["item 0", "'0.3' (str)", "not a number"]),
        ([1.0, None], ["item 1", "None", "not a number"]),
        (1.0, ["did not return a list", "float"]),
        (None, ["did not return a list", "NoneType"]),
        ("ab", ["did not return a list", "str"]),
        ({"a": 1, "b": 2}, ["did not return a list", "dict"]),
    ],
)
def test_a_wrong_answer_is_refused_with_the_function_and_the_first_bad_item(returned, words):
    def my_rule(prompts, responses):
        return returned

    with pytest.raises(UserError) as error:
        score(my_rule)
    for word in ["my_rule", *words]:
        assert word in str(error.value)


def test_an_exception_inside_the_function_keeps_its_name_and_cause():
    def broken(prompts, responses):
        return [1 / 0 for _ in prompts]

    with pytest.raises(UserError, match=r"broken raised ZeroDivisionError: division by zero") as error:
        score(broken)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_reward_model_scores_prompt_and_response_as_one_sequence():
    generation, model = tiny_generation(), tiny_reward_model()
    scores = reward_model_scorer(model.train())(generation, (), ())
    for row, score_of_row in enumerate(scores):
        real = generation.attention_mask[row]
        alone = model(generation.ids[row, real][None])
        torch.testing.assert_close(score_of_row, alone[0].detach(), rtol=1e-10, atol=1e-12)
    assert not scores.requires_grad
    assert not model.training


def write_module(folder, name, text):
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    sys.modules.pop(name, None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_function_is_found_in_the_current_folder(here):
    write_module(here, "tiny_reward_a", "def score(prompts, responses):\n    return [1.0 for _ in responses]\n")
    assert load_reward_function("tiny_reward_a:score")(["p"], ["r"]) == [1.0]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tiny_reward_b", ["module:function", "tiny_reward_b"]),
        ("tiny_reward_b:", ["module:function"]),
        (":score", ["module:function"]),
        ("tiny_reward_b.py:score", ["leave out .py"]),
        ("no_such_module_here:score", ["no_such_module_here", "was not found"]),
        ("tiny_reward_b:scoer", ["holds no function scoer", "functions: score"]),
        ("tiny_reward_b:LIMIT", ["holds no function LIMIT"]),
        ("tiny_reward_c:score", ["could not be imported", "SyntaxError"]),
        ("tiny_reward_d:score", ["could not be imported", "ModuleNotFoundError", "not_installed_thing"]),
    ],
)
def test_a_function_that_cannot_be_loaded_is_refused_with_the_reason(here, path, words):
    write_module(here, "tiny_reward_b", "LIMIT = 3\ndef score(prompts, responses):\n    return []\n")
    write_module(here, "tiny_reward_c", "def score(prompts, responses)\n")
    write_module(here, "tiny_reward_d", "import not_installed_thing\n")
    with pytest.raises(UserError) as error:
        load_reward_function(path)
    for word in words:
        assert word in str(error.value)
