"""For anyone who tests a loss, a layer or an estimator of their own. Point it at a function of tensors:

    from hypothesis import given
    from minirlhf.testing import check_gradient, preference_pairs

    @given(preference_pairs())
    def test_my_loss(pairs):
        check_gradient(my_loss, pairs.chosen_scores, pairs.rejected_scores)

The arguments are NumPy arrays; `my_loss` gets them as float64 tensors. Hypothesis draws the cases and shrinks the one
that fails; the check holds autograd against finite differences, coordinate by coordinate, and says where it is wrong.

    check_gradient                   autograd, or a gradient derived by hand, against finite differences
    check_against_reference          a torch function against a NumPy one, value and gradient
    check_reduces_to                 two torch functions that must be equal here, value and gradient
    check_accumulation               a batch in parts has the loss and gradient of the whole
    check_padding_invariance         what the mask hides reaches neither value nor gradient
    check_causality                  no position sees a later one
    check_permutation_equivariance   shuffled in, shuffled out

The checks need no hypothesis; the strategies (`preference_pairs`, `rollouts`, `attention_inputs`, ...) do. Leave
`max_examples` out of your tests and pytest's `--gradcheck-examples N` or `--gradcheck-profile laptop|ci|overnight`
says how many cases each draws; `@proved(..., share=0.1)` is `@given` for a test that is slow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minirlhf.testing.cases import (
        AttentionInputs,
        LabelledAnswers,
        MLPInputs,
        NormInputs,
        PreferencePairs,
        RaggedBatch,
        Rankings,
        RolloutArrays,
        ScoreGroups,
        TokenArrays,
    )
    from minirlhf.testing.checks import check_accumulation, check_against_reference, check_reduces_to
    from minirlhf.testing.gradients import central_difference, check_gradient
    from minirlhf.testing.invariances import check_causality, check_padding_invariance, check_permutation_equivariance
    from minirlhf.testing.profiles import load_profile, proved
    from minirlhf.testing.strategies import (
        attention_inputs,
        floats,
        labelled_answers,
        logit_cases,
        masks,
        mlp_inputs,
        norm_inputs,
        padding_masks,
        preference_pairs,
        ragged_batches,
        rankings,
        response_masks,
        rollouts,
        score_groups,
        score_pairs,
        shapes,
        token_batches,
    )

__all__ = [
    "AttentionInputs",
    "LabelledAnswers",
    "MLPInputs",
    "NormInputs",
    "PreferencePairs",
    "RaggedBatch",
    "Rankings",
    "RolloutArrays",
    "ScoreGroups",
    "TokenArrays",
    "attention_inputs",
    "central_difference",
    "check_accumulation",
    "check_against_reference",
    "check_causality",
    "check_gradient",
    "check_padding_invariance",
    "check_permutation_equivariance",
    "check_reduces_to",
    "floats",
    "labelled_answers",
    "load_profile",
    "logit_cases",
    "masks",
    "mlp_inputs",
    "norm_inputs",
    "padding_masks",
    "preference_pairs",
    "proved",
    "ragged_batches",
    "rankings",
    "response_masks",
    "rollouts",
    "score_groups",
    "score_pairs",
    "shapes",
    "token_batches",
]

# Imported when a name of theirs is first asked for, and in this order: a check brings no hypothesis, nothing torch.
_MODULES = ("profiles", "cases", "gradients", "checks", "invariances", "strategies")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"{__name__}.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
