import importlib
import sys

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats, rollouts


@given(floats((2, 3)))
def test_every_coordinate_of_a_known_gradient(x):
    weights = np.arange(1.0, 7.0).reshape(2, 3)
    nudged = central_difference(lambda z: float((weights * np.sin(z)).sum()), x)
    assert_allclose(nudged, weights * np.cos(x), rtol=1e-7, atol=1e-8)


def test_the_argument_is_left_alone_and_low_precision_is_refused():
    x = np.ones(3)
    central_difference(lambda z: float((z**2).sum()), x)
    assert (x == 1).all()
    with pytest.raises(ValueError, match="float64"):
        central_difference(lambda z: float(z.sum()), x.astype(np.float32))
    with pytest.raises(ValueError, match="positive"):
        central_difference(lambda z: float(z.sum()), x, step=0.0)


@given(rollouts())
def test_drawn_rollouts_fit_together(rollout):
    rows, tokens = rollout.response_mask.shape
    lengths = rollout.response_mask.sum(1)
    assert (lengths >= 1).all() and (rollout.response_mask == (np.arange(tokens) < lengths[:, None])).all()
    assert rollout.scores.shape == rollout.ended.shape == rollout.last_values.shape == (rows,)
    assert rollout.values.shape == rollout.log_probs.shape == rollout.advantages.shape == (rows, tokens)
    assert np.abs(rollout.log_probs - rollout.old_log_probs).max() <= 1 + 1e-12


def test_without_hypothesis_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "hypothesis"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "minirlhf.testing.strategies")
    with pytest.raises(ImportError, match=r"minirlhf\[test\]"):
        importlib.import_module("minirlhf.testing.strategies")
