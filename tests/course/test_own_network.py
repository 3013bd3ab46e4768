"""The twist of a02: its hand-made gradients are autograd's, which the students may not use."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from minirlhf.course.assignment import load_assignment
from minirlhf.course.assignments.a02_backpropagation import cases
from minirlhf.course.assignments.a02_backpropagation import twist as own_network_twist
from minirlhf.course.kit import Twist, skeleton_of
from minirlhf.course.shortcuts import shortcuts
from tests.course.answers.a02 import VARIANTS


def activation(twist: Twist, z: torch.Tensor) -> torch.Tensor:
    leak = twist["leak"]
    if "bend" in twist:
        return leak * z + (1 - leak) * torch.nn.functional.softplus(z, beta=twist["bend"], threshold=1e6)
    return torch.where(z > 0, twist["top"] * torch.tanh(z / twist["top"]), leak * z)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_activation_and_its_gradient(name):
    case = cases.own_activation(np.random.default_rng(3))
    z = torch.tensor(case.arrays["z"], requires_grad=True)
    h = activation(VARIANTS[name], z)
    h.backward(torch.tensor(case.arrays["dout"]))
    found = own_network_twist.expected(VARIANTS[name], case)
    assert_allclose(found["out 0"], h.detach(), rtol=1e-12)
    assert_allclose(found["out 1"], z.grad, rtol=1e-11)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_network_and_its_gradients(name):
    twist, case = VARIANTS[name], cases.own_network(np.random.default_rng(4))
    *leaves, targets = (torch.tensor(array) for array in case.arrays.values())
    x, w_hidden, b_hidden, w_out, b_out = (leaf.requires_grad_() for leaf in leaves)
    y = activation(twist, x @ w_hidden.T + b_hidden) @ w_out.T + b_out
    surprise = torch.nn.functional.cross_entropy(y, targets, label_smoothing=twist["smooth"])
    loss = surprise + twist["calm"] * y.logsumexp(dim=1).square().mean()
    loss.backward()
    found = own_network_twist.expected(twist, case)
    assert_allclose(found["out 0"], loss.item(), rtol=1e-12)
    for i, leaf in enumerate(leaves, start=1):
        assert_allclose(found[f"out {i}"], leaf.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "line",
    [
        "import torch",
        "import torch.autograd as t",
        "from torch import asarray, softmax",
        "from torch.autograd.functional import jacobian",
        "import numpy as np; np.imag(1j)",
    ],
)
def test_nobody_but_the_student_finds_the_slope(line):
    a02 = load_assignment("a02")
    for module in ("reference.linear", "twist"):
        skeleton = skeleton_of(a02, module, VARIANTS["top"])
        assert shortcuts(a02, module, skeleton.encode(), skeleton) == []
        found = shortcuts(a02, module, f"{skeleton}\n{line}\n".encode(), skeleton)
        assert found and all("is not allowed in this assignment" in said for said in found)
