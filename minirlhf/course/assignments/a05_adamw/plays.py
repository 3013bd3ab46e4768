"""Calls of a05 that take more than one line. Runs beside the student's code: no answer stands here."""

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from minirlhf.course.jobs import Job, Values, build, callee


def along(module: ModuleType, job: Job, values: Values) -> dict[str, Any]:
    """The weight and the state after each of the gradients, one step after the other, and what changed in place."""
    weight, gradients, state, *settings = (build(each, values, numpy=True) for each in job.arguments)
    step = callee(module, job, values)
    told: dict[str, Any] = {}
    changed: set[str] = set()
    for i, gradient in enumerate(gradients, start=1):
        given = {"weight": weight, "gradient": gradient, "state": state}
        before = {name: each.copy() for name, each in given.items()}
        weight, state = step(weight, gradient, state, *settings)
        changed |= {name for name, each in given.items() if not np.array_equal(each, before[name])}
        told |= {f"weight {i}": weight.copy(), f"state {i}": state.copy()}
    return told | {"changed in place": ", ".join(sorted(changed)) or "nothing"}


def rates(module: ModuleType, job: Job, values: Values) -> list[float]:
    """The learning rates of the asked steps of every run, one after the other."""
    config = module.OptimConfig(**job.setting["config"])
    return [float(module.learning_rate_at(step, total, config)) for total, steps in job.setting["runs"]
            for step in steps]  # fmt: skip


def steps(module: ModuleType, job: Job, values: Values) -> dict[str, Any]:
    """Every parameter after every step, and the optimizer's state at the end."""
    setting = job.setting
    names = [name for name in sorted(values) if not name.startswith("gradients of ")]
    parameters = {name: nn.Parameter(values[name].clone()) for name in names}
    optimizer = module.AdamW(parameters.items(), module.OptimConfig(fused=False, **setting["config"]))
    told: dict[str, Any] = {}
    for i, (rate, present) in enumerate(zip(setting["rates"], setting["present"], strict=True)):
        for name, parameter in parameters.items():
            parameter.grad = values[f"gradients of {name}"][i].clone() if name in present else None
        optimizer.step(rate)
        told |= {f"{name}, step {i + 1}": parameter.detach().clone() for name, parameter in parameters.items()}
    return told | optimizer.state_tensors()


class Watched:
    """Stands in for an optimizer: remembers the rates it was asked to step with, and the gradients it met."""

    def __init__(self, parameters: list[nn.Parameter]):
        self.parameters = parameters
        self.asked: list[float] = []
        self.met: list[torch.Tensor] = []

    def step(self, learning_rate: float) -> None:
        self.asked.append(float(learning_rate))
        self.met += [parameter.grad.clone() for parameter in self.parameters if parameter.grad is not None]


def guarded(module: ModuleType, job: Job, values: Values) -> dict[str, Any]:
    """What came back, what the optimizer met, or who was blamed when it was refused."""
    from minirlhf.objectives.guards import NonFiniteError

    model, setting = nn.Module(), job.setting
    for name in sorted(values):  # they may have travelled, and come in another order
        parameter = nn.Parameter(torch.zeros_like(values[name]))
        parameter.grad = values[name].clone()
        model.register_parameter(name, parameter)
    model.register_parameter("unused", nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    optimizer = Watched(list(model.parameters()))
    told: dict[str, Any] = {}
    try:
        told["norm"] = float(module.guarded_step(model, optimizer, setting["learning_rate"], setting["max_grad_norm"]))
    except NonFiniteError as error:
        told["blamed"] = [name for name in sorted(values) if name in str(error)]
    return told | {"rates of the optimizer's steps": optimizer.asked, "gradients it met": optimizer.met,
                   "gradient of first": model.first.grad}  # fmt: skip


def own_rates(module: ModuleType, job: Job, values: Values) -> list[float]:
    """The rate of every step of the run."""
    _, total, peak = job.arguments
    rate = callee(module, job, values)
    return [float(rate(step, total["value"], peak["value"])) for step in range(total["value"])]
