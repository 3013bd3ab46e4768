"""Norms and MLPs: torch equals the NumPy formula, and the gradients equal the derived ones and central differences."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.nn.mlp import GeluMLP, SquaredReluMLP, SwiGLU
from minirlhf.nn.norm import LayerNorm, RMSNorm
from minirlhf.reference import mlp as mlp_reference
from minirlhf.reference import norm as norm_reference
from minirlhf.reference.softmax import log_softmax, softmax, softmax_grad
from minirlhf.testing.gradients import central_difference

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def sizes():
    return st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(0, 2**31))


def numpy_gradients(module: torch.nn.Module, x: np.ndarray, dout: np.ndarray):
    leaf = torch.tensor(x, requires_grad=True)
    out = module(leaf)
    out.backward(torch.tensor(dout))
    return out.detach().numpy(), leaf.grad.numpy(), {n: p.grad.numpy() for n, p in module.named_parameters()}


@given(sizes(), st.sampled_from([1e-3, 1.0, 100.0]))
def test_layer_norm_forward_and_backward(size, scale):
    tokens, width, seed = size
    rng = np.random.default_rng(seed)
    x, dout = scale * rng.normal(size=(tokens, width)), rng.normal(size=(tokens, width))
    weight, bias = rng.normal(size=width), rng.normal(size=width)
    module = LayerNorm(width).double()
    module.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    out, dx, dweights = numpy_gradients(module, x, dout)
    assert_allclose(out, norm_reference.layer_norm(x, weight, bias), **EXACT)
    want_dx, want_dweight, want_dbias = norm_reference.layer_norm_grad(x, weight, dout)
    assert_allclose(dx, want_dx, rtol=1e-9, atol=1e-10)
    assert_allclose(dweights["weight"], want_dweight, **EXACT)
    assert_allclose(dweights["bias"], want_dbias, **EXACT)
    nudged = central_difference(lambda z: (norm_reference.layer_norm(z, weight, bias) * dout).sum(), x, 1e-6)
    assert_allclose(want_dx, nudged, rtol=1e-5, atol=1e-6 * np.abs(want_dx).max() + 1e-7)  # √eps = 3e-3 ≫ step


@given(sizes(), st.sampled_from([1e-3, 1.0, 100.0]))
def test_rms_norm_forward_and_backward(size, scale):
    tokens, width, seed = size
    rng = np.random.default_rng(seed)
    x, dout = scale * rng.normal(size=(tokens, width)), rng.normal(size=(tokens, width))
    weight = rng.normal(size=width)
    module = RMSNorm(width).double()
    module.load_state_dict({"weight": torch.tensor(weight)})
    out, dx, dweights = numpy_gradients(module, x, dout)
    assert_allclose(out, norm_reference.rms_norm(x, weight), **EXACT)
    want_dx, want_dweight = norm_reference.rms_norm_grad(x, weight, dout)
    assert_allclose(dx, want_dx, rtol=1e-9, atol=1e-10)
    assert_allclose(dweights["weight"], want_dweight, **EXACT)
    nudged = central_difference(lambda z: (norm_reference.rms_norm(z, weight) * dout).sum(), x, 1e-6)
    assert_allclose(want_dx, nudged, rtol=1e-5, atol=1e-6 * np.abs(want_dx).max() + 1e-7)  # √eps = 3e-3 ≫ step


def test_layer_norm_agrees_with_torch():
    x = torch.randn(3, 4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = torch.nn.functional.layer_norm(x, (10,), eps=1e-5)
    torch.testing.assert_close(LayerNorm(10).double()(x), want, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(LayerNorm(10, bias=False).double()(x), want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("layer", "formula", "derived"),
    [
        (GeluMLP, mlp_reference.gelu_mlp, mlp_reference.gelu_mlp_grad),
        (SquaredReluMLP, mlp_reference.squared_relu_mlp, mlp_reference.squared_relu_mlp_grad),
    ],
)
@given(size=sizes(), bias=st.booleans())
def test_two_layer_mlps_forward_and_backward(layer, formula, derived, size, bias):
    tokens, width, seed = size
    rng = np.random.default_rng(seed)
    x, dout = rng.normal(size=(tokens, width)), rng.normal(size=(tokens, width))
    module = layer(width, 3, bias).double()
    w_hidden, w_out = module.to_hidden.weight.detach().numpy(), module.to_out.weight.detach().numpy()
    b_hidden = module.to_hidden.bias.detach().numpy() if bias else np.zeros(3)
    b_out = module.to_out.bias.detach().numpy() if bias else np.zeros(width)
    out, dx, dweights = numpy_gradients(module, x, dout)
    assert_allclose(out, formula(x, w_hidden, b_hidden, w_out, b_out), **EXACT)
    names = ("to_hidden.weight", "to_hidden.bias", "to_out.weight", "to_out.bias")
    wanted = derived(x, w_hidden, b_hidden, w_out, dout)
    assert_allclose(dx, wanted[0], **EXACT)
    for name, want in zip(names, wanted[1:], strict=True):
        if name in dweights:
            assert_allclose(dweights[name], want, **EXACT)


@given(sizes())
def test_swiglu_forward_and_backward(size):
    tokens, width, seed = size
    rng = np.random.default_rng(seed)
    x, dout = rng.normal(size=(tokens, width)), rng.normal(size=(tokens, width))
    module = SwiGLU(width, 3, bias=False).double()
    w_gate, w_up = np.split(module.to_gate_and_up.weight.detach().numpy(), 2)
    w_out = module.to_out.weight.detach().numpy()
    out, dx, dweights = numpy_gradients(module, x, dout)
    assert_allclose(out, mlp_reference.swiglu(x, w_gate, w_up, w_out), **EXACT)
    want_dx, want_gate, want_up, want_out = mlp_reference.swiglu_grad(x, w_gate, w_up, w_out, dout)
    assert_allclose(dx, want_dx, **EXACT)
    assert_allclose(dweights["to_gate_and_up.weight"], np.concatenate((want_gate, want_up)), **EXACT)
    assert_allclose(dweights["to_out.weight"], want_out, **EXACT)


@pytest.mark.parametrize("name", ["gelu", "relu2", "swish"])
def test_activation_gradients_by_nudging(name):
    x = np.linspace(-6, 6, 40)  # without 0, where the slope of relu2's slope jumps
    f, gradient = getattr(mlp_reference, name), getattr(mlp_reference, f"{name}_grad")
    assert_allclose(gradient(x, np.ones_like(x)), central_difference(lambda z: f(z).sum(), x), rtol=1e-6, atol=1e-9)


@given(sizes(), st.sampled_from([1.0, 1e4]))
def test_softmax_reference(size, scale):
    tokens, width, seed = size
    rng = np.random.default_rng(seed)
    z, dp = scale * rng.normal(size=(tokens, width)), rng.normal(size=(tokens, width))
    leaf = torch.tensor(z, requires_grad=True)
    p = leaf.softmax(-1)
    p.backward(torch.tensor(dp))
    assert_allclose(softmax(z), p.detach().numpy(), rtol=1e-12, atol=1e-300)
    assert_allclose(log_softmax(z), leaf.detach().log_softmax(-1).numpy(), rtol=1e-12, atol=1e-12)
    assert_allclose(softmax_grad(softmax(z), dp), leaf.grad.numpy(), rtol=1e-9, atol=1e-13)
    assert (softmax(np.full((2, width), -np.inf)) == 0).all()
