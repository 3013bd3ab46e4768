"""Calls of a10 that take more than one line. Runs beside the student's code: no answer stands here."""

from types import ModuleType

import torch

from minirlhf.course.jobs import Job, Values, plain


def who_learns(module: ModuleType, job: Job, values: Values) -> tuple[torch.Tensor, ...]:
    """The loss, and its gradient with respect to the first three arguments; 0 where none arrives."""
    leaves = {str(name): values[str(name)].requires_grad_() for name in job.arguments[:3]}
    loss = plain(module, job, values)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        loss.backward()
    return (loss, *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves.values()))


def also_of_a_constant(module: ModuleType, job: Job, values: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """The answer for the arrays, and for returns that are all 3."""
    constant = {**values, "returns": torch.full_like(values["returns"], 3.0)}
    return plain(module, job, values), plain(module, job, constant)
