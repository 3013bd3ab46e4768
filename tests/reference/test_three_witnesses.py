"""Each idea's gradient by hand, by finite differences on every coordinate, and by autograd: all three agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.testing import check_against_reference, check_gradient
from tests.reference.ideas.decoder import DECODER
from tests.reference.ideas.layers import LAYERS
from tests.reference.ideas.objectives import LIKELIHOOD, POLICY, PREFERENCES

IDEAS = {idea.name: idea for idea in (*LAYERS, *DECODER, *LIKELIHOOD, *PREFERENCES, *POLICY)}
every_idea = pytest.mark.parametrize("name", list(IDEAS))


def places(idea, case):
    """The arguments that carry a gradient; -1 is the last."""
    return tuple(range(len(case))[place] for place in idea.wrt)


@every_idea
@given(st.data())
def test_by_hand_and_by_finite_differences(name, data):
    idea = IDEAS[name]
    case = data.draw(idea.cases)
    check_gradient(idea.formula, *case, gradient=idea.gradient, kinks=idea.kinks, wrt=places(idea, case))


@every_idea
@given(st.data())
def test_by_hand_and_by_autograd(name, data):
    idea = IDEAS[name]
    case = data.draw(idea.cases)
    check_against_reference(
        idea.torch_code,
        idea.formula,
        *case,
        reference_gradient=idea.gradient,
        wrt=places(idea, case),
        rtol=1e-10,
        atol=1e-12,
    )
