"""Who gives the score: a reward model, or any function of two lists of strings.

A *score* is one number per answer. The KL penalty per token and the reward (their sum) are made later,
in objectives/advantages.py.
"""

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from minirlhf.errors import UserError
from minirlhf.records import Generation

Scorer = Callable[[Generation, tuple[str, ...], tuple[str, ...]], Tensor]
"""(what was generated, prompts, responses) -> scores [B] in reward units, without a graph."""

RewardFunction = Callable[[list[str], list[str]], Sequence[float]]
"""(prompts, responses) -> one float per response."""


def reward_model_scorer(reward_model: nn.Module) -> Scorer:
    """Score with a reward model, which reads prompt and response as one sequence and answers at its last real token."""

    @torch.no_grad()
    def score(generation: Generation, prompts: tuple[str, ...], responses: tuple[str, ...]) -> Tensor:
        scores: Tensor = reward_model.eval()(generation.ids, generation.attention_mask)  # [B]
        return scores

    return score


def reward_fn_scorer(reward_fn: RewardFunction, name: str | None = None) -> Scorer:
    """Score with `reward_fn(prompts, responses) -> list[float]`. name is what messages call it.

    The scorer raises UserError, naming the function and the first bad item, if the function raises, returns
    something else than one number per response, or returns a number that is not finite.
    """
    shown_name = name or describe(reward_fn)

    def score(generation: Generation, prompts: tuple[str, ...], responses: tuple[str, ...]) -> Tensor:
        return torch.tensor(call_reward_function(reward_fn, shown_name, prompts, responses), dtype=torch.float64)

    return score


def call_reward_function(
    reward_fn: RewardFunction, name: str, prompts: Sequence[str], responses: Sequence[str]
) -> list[float]:
    """The function's scores. Raises UserError if it raises or returns something else; its own UserErrors pass."""
    try:
        scores = reward_fn(list(prompts), list(responses))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The reward function {name} raised {type(error).__name__}: {error}",
            found=f"a call with {len(prompts)} prompts and {len(responses)} responses",
            fix="run with --debug to see the line it happened on",
        ) from error
    return checked_scores(scores, responses, name)


def checked_scores(scores: object, responses: Sequence[str], name: str) -> list[float]:
    """The scores as a list of finite floats, one per response. Raises UserError at the first bad item."""
    expected = f"a list of {len(responses)} finite floats, one per response"
    listed = scores.tolist() if hasattr(scores, "tolist") else scores  # NumPy arrays and tensors
    if isinstance(listed, str | bytes | dict) or not isinstance(listed, Sequence):
        raise UserError(
            f"The reward function {name} did not return a list", found=type(scores).__name__, expected=expected
        )
    if len(listed) != len(responses):
        raise UserError(
            f"The reward function {name} returned the wrong number of scores",
            found=f"{len(listed)} scores for {len(responses)} responses",
            expected=expected,
        )
    checked = []
    for index, item in enumerate(listed):
        number = item.item() if isinstance(item, Tensor) and item.ndim == 0 else item
        finite = isinstance(number, Real) and math.isfinite(number)
        if not finite:
            problem = "a score that is not finite" if isinstance(number, Real) else "something that is not a number"
            raise UserError(
                f"The reward function {name} returned {problem}",
                where=f"item {index}, for the response {responses[index][:80]!r}",
                found=f"{number!r} ({type(number).__name__})",
                expected=expected,
            )
        checked.append(float(number))
    return checked


def load_reward_function(path: str) -> RewardFunction:
    """The function named by "module:function". Modules in the current folder can be imported.

    Raises UserError if the name has another form, the module does not exist or fails while it is imported, or holds
    no such function.
    """
    module_name, colon, function_name = path.partition(":")
    if not (module_name and colon and function_name) or module_name.endswith(".py") or os.sep in module_name:
        raise UserError(
            "A reward function is named module:function",
            found=path,
            expected="for instance my_reward:score, for the function score in my_reward.py",
            fix="leave out .py and folders; the file must lie in the current folder or be installed",
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except Exception as error:
        is_missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in module_name
        problem = "was not found" if is_missing else f"could not be imported: {type(error).__name__}: {error}"
        raise UserError(
            f"The module {module_name} of the reward function {problem}",
            where=f"current folder {os.getcwd()}",
            found=path,
            fix="run the command in the folder that holds the file" if is_missing else "mend the module, or --debug",
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [n for n, value in vars(module).items() if inspect.isfunction(value) and not n.startswith("_")]
        raise UserError(
            f"The module {module_name} holds no function {function_name}",
            where=str(getattr(module, "__file__", module_name)),
            found=f"functions: {', '.join(own) or 'none'}",
            expected=f"def {function_name}(prompts, responses) -> list[float]",
        )
    return function


def describe(function: Callable[..., object]) -> str:
    """module:function, as the command line would name it."""
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"
