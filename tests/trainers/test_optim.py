import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import nn

from minirlhf.errors import UserError
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.reference import adamw as reference
from minirlhf.trainers.optim import AdamW, OptimConfig, clip_grad_norm, guarded_step, learning_rate_at

CONFIG = OptimConfig(learning_rate=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)


class Small(nn.Module):
    """A matrix, a bias, a scalar, a three-dimensional tensor, a frozen matrix and one that is never used."""

    def __init__(self, seed=0):
        super().__init__()
        draws = torch.Generator().manual_seed(seed)

        def parameter(*shape):
            return nn.Parameter(torch.randn(shape, generator=draws, dtype=torch.float64))

        self.matrix, self.bias, self.gain, self.cube = parameter(3, 2), parameter(2), parameter(), parameter(2, 2, 2)
        self.frozen = parameter(2, 2).requires_grad_(False)
        self.unused = parameter(2, 2)

    def forward(self, x, with_gain=True):
        y = (x @ self.matrix + self.bias) @ self.cube.sum(0) @ self.frozen
        return (y * self.gain if with_gain else y).square().mean()


def inputs(step):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def snapshot(model, optimizer):
    return {name: p.detach().clone() for name, p in model.named_parameters()}, optimizer.state_tensors()


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("fused", [False, True])
def test_fifty_steps_equal_torch_with_a_changing_learning_rate(fused):
    """One parameter gets its gradient only now and then, so that each must count its own steps."""
    model, twin = Small(), Small()
    ours = AdamW(model.named_parameters(), replace(CONFIG, fused=fused))
    decayed = [p for p in twin.parameters() if p.ndim >= 2]
    plain = [p for p in twin.parameters() if p.ndim < 2]
    theirs = torch.optim.AdamW(
        [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
        betas=CONFIG.betas,
        eps=CONFIG.eps,
        weight_decay=CONFIG.weight_decay,
    )
    for step in range(50):
        learning_rate = learning_rate_at(step, 50, CONFIG)
        for group in theirs.param_groups:
            group["lr"] = learning_rate
        ours.zero_grad()
        theirs.zero_grad()
        model(inputs(step), with_gain=step % 3 > 0).backward()
        twin(inputs(step), with_gain=step % 3 > 0).backward()
        ours.step(learning_rate)
        theirs.step()
        for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert_allclose(mine.detach(), other.detach(), rtol=1e-12, atol=1e-12, err_msg=f"{name}, step {step}")
    start = Small()
    assert not torch.allclose(model.matrix, start.matrix, atol=0.01)
    assert torch.equal(model.frozen, start.frozen) and torch.equal(model.unused, start.unused)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 2), (4,)])
def test_steps_equal_the_definition(shape, dtype, fused):
    parameter = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype))
    optimizer = AdamW([("weight", parameter)], replace(CONFIG, fused=fused))
    weight, first, second = parameter.detach().double().numpy().copy(), np.zeros(shape), np.zeros(shape)
    for step in range(1, 11):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step)).to(dtype)
        parameter.grad = gradient.clone()
        optimizer.step(0.1 / step)
        weight, first, second = reference.adamw_step(
            weight, gradient.double().numpy(), first, second, step,
            0.1 / step, CONFIG.betas, CONFIG.eps, CONFIG.weight_decay,
        )  # fmt: skip
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        assert_allclose(parameter.detach(), weight, rtol=tolerance, atol=tolerance)


def test_the_first_step_is_the_sign_of_the_gradient_unless_eps_is_large():
    for eps, expected in ((1e-12, 0.1), (1e-3, 0.1 * 1e-4 / (1e-4 + 1e-3))):
        parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        parameter.grad = torch.full((1,), 1e-4, dtype=torch.float64)
        AdamW([("w", parameter)], OptimConfig(eps=eps)).step(0.1)
        assert_allclose(parameter.item(), -expected, rtol=1e-7)


def test_state_makes_an_exact_round_trip():
    model, twin = Small(), Small()
    ours, theirs = AdamW(model.named_parameters(), CONFIG), AdamW(twin.named_parameters(), CONFIG)
    for step in range(5):
        ours.zero_grad()
        model(inputs(step), with_gain=step > 2).backward()
        ours.step(0.01)
    twin.load_state_dict(model.state_dict())
    theirs.load_state_tensors(ours.state_tensors())
    assert theirs.steps == ours.steps == [5, 5, 2, 5, 0]
    for step in range(5, 9):
        for network, optimizer in ((model, ours), (twin, theirs)):
            optimizer.zero_grad()
            network(inputs(step)).backward()
            optimizer.step(0.01)
        assert_same(snapshot(model, ours), snapshot(twin, theirs))


def test_state_is_a_copy_and_foreign_state_changes_nothing():
    model = Small()
    optimizer = AdamW(model.named_parameters(), CONFIG)
    model(inputs(0)).backward()
    state = optimizer.state_tensors()
    before = {name: tensor.clone() for name, tensor in state.items()}
    optimizer.step(0.01)
    assert_same([state], [before])

    now = optimizer.state_tensors()
    missing = {name: tensor for name, tensor in before.items() if name != "second.cube"}
    reshaped = before | {"first.matrix": torch.zeros(2, 3, dtype=torch.float64)}
    for bad, message in ((missing, "second.cube"), (reshaped, "first.matrix"), (before | {"x": now["steps"]}, '"x"')):
        with pytest.raises(UserError, match=message):
            optimizer.load_state_tensors(bad)
        assert_same([optimizer.state_tensors()], [now])


def test_nothing_to_do_and_the_same_parameter_twice():
    model = Small()
    optimizer = AdamW(model.named_parameters(), CONFIG)
    before = snapshot(model, optimizer)
    optimizer.step(0.1)
    assert guarded_step(model, optimizer, 0.1, 1.0) == 0.0
    assert_same(snapshot(model, optimizer), before)
    with pytest.raises(ValueError, match="twice"):
        AdamW([("a", model.bias), ("b", model.bias)])
    with pytest.raises(ValueError, match="twice"):
        AdamW([("a", model.bias), ("a", model.gain)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 10), st.integers(1, 3))
def test_clipping_equals_the_definition_and_keeps_the_direction(seed, max_norm, tensors):
    draws = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(3, size, generator=draws, dtype=torch.float64) for size in range(1, tensors + 1)]
    expected, expected_norm = reference.clip_grad_norm([g.numpy().copy() for g in gradients], max_norm)
    norm = clip_grad_norm(gradients, max_norm)
    assert_allclose(norm, expected_norm, rtol=1e-12)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-12)
    assert math.sqrt(sum(g.square().sum().item() for g in gradients)) <= max_norm * (1 + 1e-12) or norm <= max_norm


def test_a_guarded_step_clips_then_steps():
    model, twin = Small(), Small()
    ours, theirs = AdamW(model.named_parameters(), CONFIG), AdamW(twin.named_parameters(), CONFIG)
    model(inputs(0)).backward()
    twin(inputs(0)).backward()
    norm = guarded_step(model, ours, 0.01, max_grad_norm=0.1)
    witness = nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
    theirs.step(0.01)
    assert_allclose(norm, witness.item(), rtol=1e-12)
    assert norm > 0.1
    for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(mine.detach(), other.detach(), rtol=1e-4)  # torch adds 1e-6 to the norm it divides by


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["matrix", "gain", "cube"])
def test_a_broken_gradient_is_named_before_anything_moves(name, broken):
    model = Small()
    optimizer = AdamW(model.named_parameters(), CONFIG)
    model(inputs(0)).backward()
    guarded_step(model, optimizer, 0.01, 1.0)
    before = snapshot(model, optimizer)
    optimizer.zero_grad()
    model(inputs(1)).backward()
    dict(model.named_parameters())[name].grad.view(-1)[-1] = broken
    gradients = {other: p.grad.clone() for other, p in model.named_parameters() if p.grad is not None}
    with pytest.raises(NonFiniteError, match=f"gradient of {name} is not finite"):
        guarded_step(model, optimizer, 0.01, 1.0)
    assert_same(snapshot(model, optimizer), before)
    for other, gradient in gradients.items():
        assert torch.equal(model.get_parameter(other).grad.nan_to_num(), gradient.nan_to_num())


def test_a_norm_beyond_the_number_format_is_refused_too():
    parameter = nn.Parameter(torch.zeros(2))
    holder = nn.ParameterDict({"w": parameter})
    optimizer = AdamW(holder.named_parameters())
    parameter.grad = torch.full((2,), 3e38)
    with pytest.raises(NonFiniteError, match="too large"):
        guarded_step(holder, optimizer, 0.1, 1.0)
    assert parameter.tolist() == [0, 0]
    with pytest.raises(ValueError, match="positive"):
        guarded_step(holder, optimizer, 0.1, 0.0)


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_schedule_endpoints(schedule, middle):
    config = OptimConfig(learning_rate=2.0, warmup_steps=10, final_fraction=0.1, schedule=schedule)
    rates = [learning_rate_at(step, 111, config) for step in range(111)]
    assert_allclose(rates[0], 0.2)
    assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10)
    assert rates[10] == 2.0
    assert_allclose(rates[60], 2.0 * middle)
    assert_allclose(rates[-1], 2.0 if schedule == "constant" else 0.2, rtol=1e-12)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert learning_rate_at(500, 111, config) == pytest.approx(rates[-1], rel=1e-12)


def test_schedule_can_end_at_zero_and_survives_short_runs():
    to_zero = OptimConfig(learning_rate=1.0, warmup_steps=0, final_fraction=0.0, schedule="linear")
    assert [learning_rate_at(step, 5, to_zero) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    long_warmup = OptimConfig(learning_rate=1.0, warmup_steps=10)
    assert [learning_rate_at(step, 3, long_warmup) for step in range(3)] == [0.1, 0.2, 0.3]
    for total in (1, 2, 10, 11, 12):
        assert all(0 < learning_rate_at(step, total, long_warmup) <= 1 for step in range(total + 3))
    for step, total in ((-1, 5), (0, 0)):
        with pytest.raises(ValueError, match="expected step"):
            learning_rate_at(step, total, to_zero)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", -1.0), ("learning_rate", math.nan), ("betas", (0.9, 1.0)), ("eps", 0.0),
        ("weight_decay", -0.1), ("warmup_steps", -1), ("final_fraction", 1.5), ("schedule", "steps"),
        ("max_grad_norm", 0.0),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=field):
        OptimConfig(**{field: value})


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_only_step_of_a_run_is_taken_at_the_peak(schedule):
    """Annealed to 0 it would leave every weight as it was."""
    config = OptimConfig(learning_rate=0.5, warmup_steps=0, final_fraction=0.0, schedule=schedule)
    assert learning_rate_at(0, 1, config) == 0.5
