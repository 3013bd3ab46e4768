"""Muon equals its definition, its steps are orthogonal, and a resumed run goes on as if it had never stopped."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from minirlhf.errors import UserError
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import ValueModel
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.reference import muon as reference
from minirlhf.trainers.muon import QUINTICS, Muon, make_optimizer, orthogonalise
from minirlhf.trainers.optim import AdamW, OptimConfig, guarded_step

CONFIG = OptimConfig(optimizer="muon", learning_rate=0.05, momentum=0.8, betas=(0.8, 0.95), weight_decay=0.3)
SHAPE = GPTConfig(7, context=6, layers=2, heads=2, width=8)


def model(seed=0) -> GPT:
    return GPT(SHAPE, torch.Generator().manual_seed(seed)).double()


def gradients(network: nn.Module, step: int) -> None:
    """Random gradients, the same for the same step."""
    draws = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draws, dtype=torch.float64)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@st.composite
def matrices(draw) -> np.ndarray:
    """[N m n] of any size, its singular values no further apart than a factor of thirty."""
    number, rows, columns = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    u, _, v = np.linalg.svd(rng.normal(size=(number, rows, columns)), full_matrices=False)
    spectrum = rng.uniform(1 / 30, 1, (number, 1, min(rows, columns)))
    return 10 ** rng.uniform(-3, 3) * (u * spectrum) @ v


@given(matrices())
def test_singular_values_come_close_to_one_and_directions_stay(drawn):
    made = orthogonalise(torch.tensor(drawn)).numpy()
    u, _, v = np.linalg.svd(drawn, full_matrices=False)
    spectrum = u.mT @ made @ v.mT  # diagonal where the directions are the same
    diagonal = np.diagonal(spectrum, axis1=-2, axis2=-1)
    assert ((diagonal > 0.72) & (diagonal < 1.28)).all()
    assert_allclose(spectrum, diagonal[..., None] * np.eye(diagonal.shape[-1]), atol=1e-8)


@given(matrices())
def test_orthogonalise_equals_the_definition(drawn):
    wanted = np.stack([reference.orthogonalise(each) for each in drawn])
    assert_allclose(orthogonalise(torch.tensor(drawn)), wanted, rtol=1e-9, atol=1e-10)


def test_the_polynomials_are_the_best_ones_in_a_row():
    low, high = 0.01, 1.0
    for quintic in QUINTICS:
        wanted, error = reference.best_quintic(low, high)
        assert_allclose(quintic, wanted, atol=5e-5)  # four digits are kept
        grid = np.linspace(low, high, 10_001)
        assert_allclose(abs(1 - wanted @ (grid, grid**3, grid**5)).max(), error, rtol=1e-5)  # nowhere else is it larger
        low, high = 1 - error, 1 + error
    assert_allclose((low, high), (0.73, 1.27), atol=0.005)
    assert QUINTICS == reference.QUINTICS


def test_a_matrix_of_zeros_stays_one():
    assert (orthogonalise(torch.zeros(1, 3, 2)) == 0).all()


def test_the_nearest_orthogonal_matrix_is_the_steepest_step():
    """No matrix with singular values of at most 1 has a larger product with M than U Vᵀ, whose product is their sum."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 6))
    u, spectrum, v = np.linalg.svd(matrix, full_matrices=False)
    assert_allclose((matrix * (u @ v)).sum(), spectrum.sum())
    for _ in range(200):
        other = rng.normal(size=(4, 6))
        assert (matrix * other / np.linalg.norm(other, 2)).sum() < spectrum.sum()
    found = orthogonalise(torch.tensor(matrix)[None])[0].numpy()
    assert (matrix * found).sum() > 0.7 * spectrum.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 2)])
def test_steps_equal_the_definition(shape, dtype):
    parameter = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype))
    optimizer = Muon([("blocks.0.weight", parameter)], CONFIG)
    weight, momentum = parameter.detach().double().numpy().copy(), np.zeros(shape)
    for step in range(1, 11):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step)).to(dtype)
        parameter.grad = gradient.clone()
        optimizer.step(0.1 / step)
        weight, momentum = reference.muon_step(
            weight, gradient.double().numpy(), momentum, 0.1 / step, CONFIG.momentum, CONFIG.weight_decay
        )
        tolerance = 1e-11 if dtype == torch.float64 else 1e-4
        assert_allclose(parameter.detach(), weight, rtol=tolerance, atol=tolerance)


def test_only_the_matrices_of_the_blocks_are_its_own():
    network = model()
    optimizer = make_optimizer(network.named_parameters(), CONFIG)
    assert isinstance(optimizer, Muon) and isinstance(make_optimizer([], OptimConfig()), AdamW)
    kinds = ("attention.to_qkv", "attention.to_out", "mlp.to_hidden", "mlp.to_out")
    assert optimizer.names == [f"blocks.{layer}.{kind}.weight" for layer in (0, 1) for kind in kinds]
    assert sorted(optimizer.names + optimizer.adamw.names) == sorted(name for name, _ in network.named_parameters())
    with_head = Muon(ValueModel(model()).named_parameters(), CONFIG)
    assert with_head.names == [f"trunk.{name}" for name in optimizer.names]
    assert "head.weight" in with_head.adamw.names

    twin = model()
    theirs = AdamW(twin.named_parameters(), CONFIG)
    for step in range(3):
        for one, its in ((network, optimizer), (twin, theirs)):
            gradients(one, step)
            its.step(0.01)
    for (name, mine), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, other) == (name not in optimizer.names), name


@given(st.floats(1e-6, 1e6), st.integers(0, 100))
def test_the_size_of_the_gradient_does_not_matter(scale, seed):
    """Only directions do; every entry moves by 0.2 learning rates or so, as with AdamW, whatever the matrix's shape."""
    for shape in ((4, 4), (4, 16), (16, 4)):
        moved = []
        for factor in (1.0, scale):
            parameter = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
            draws = torch.Generator().manual_seed(seed)
            parameter.grad = factor * torch.randn(shape, generator=draws, dtype=torch.float64)
            Muon([("blocks.weight", parameter)], CONFIG).step(0.1)
            moved.append(parameter.detach())
        assert_allclose(moved[0], moved[1], rtol=1e-4, atol=1e-6)
        assert 0.5 < moved[0].square().mean().sqrt() / (0.2 * 0.1) < 1.28


def test_resumed_as_if_never_stopped():
    through, stopped = model(), model()
    ours, theirs = Muon(through.named_parameters(), CONFIG), Muon(stopped.named_parameters(), CONFIG)
    for step in range(4):
        for network, optimizer in ((through, ours), (stopped, theirs)):
            gradients(network, step)
            optimizer.step(0.01)
    resumed = model(seed=1)
    resumed.load_state_dict(stopped.state_dict())
    later = Muon(resumed.named_parameters(), CONFIG)
    later.load_state_tensors(theirs.state_tensors())
    for step in range(4, 8):
        for network, optimizer in ((through, ours), (resumed, later)):
            gradients(network, step)
            optimizer.step(0.01)
        assert same(through, resumed)


def test_foreign_state_changes_nothing():
    network = model()
    optimizer = Muon(network.named_parameters(), CONFIG)
    gradients(network, 0)
    optimizer.step(0.01)
    state = optimizer.state_tensors()
    name = f"momentum.{optimizer.names[0]}"
    adamw_only = AdamW(network.named_parameters(), CONFIG).state_tensors()
    for bad in ({k: v for k, v in state.items() if k != name}, state | {name: torch.zeros(2, 2)}, adamw_only):
        with pytest.raises(UserError, match="does not fit"):
            optimizer.load_state_tensors({k: v + 1 for k, v in bad.items()})
        assert all(torch.equal(value, state[k]) for k, value in optimizer.state_tensors().items())


def test_without_a_gradient_nothing_moves_and_a_broken_one_is_named():
    network, untouched = model(), model()
    optimizer = Muon(network.named_parameters(), CONFIG)
    optimizer.step(0.1)
    assert same(network, untouched)
    gradients(network, 0)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())
    gradients(network, 0)
    network.blocks[1].mlp.to_out.weight.grad[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"blocks\.1\.mlp\.to_out\.weight"):
        guarded_step(network, optimizer, 0.1, 1.0)
    assert same(network, untouched)
    matrix = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="twice"):
        Muon([("blocks.a", matrix), ("blocks.b", matrix)])
