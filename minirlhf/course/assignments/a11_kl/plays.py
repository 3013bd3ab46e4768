"""Calls of a11 that take more than one line. Runs beside the student's code: no answer stands here."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from minirlhf.course.jobs import Job, Values, build, callee, plain


def magnified(module: ModuleType, job: Job, values: Values) -> torch.Tensor:
    """The result a thousand million times larger, so that its digits can be compared."""
    found: torch.Tensor = plain(module, job, values) * 1e9
    return found


def controlled(module: ModuleType, job: Job, values: Values) -> list[Any]:
    """The coefficients after each batch of a run."""
    coefficient, found = job.setting["kl_coef"], []
    for kl, episodes in zip(job.setting["kls"], job.setting["episodes"], strict=True):
        given = [{"value": coefficient}, {"value": kl}, *job.arguments[2:4], {"value": episodes}]
        coefficient = plain(module, replace(job, arguments=given), values)
        found.append(coefficient)
    return found


def of_a_small_model(module: ModuleType, job: Job, values: Values) -> Any:
    """response_log_probs of a model whose logits are the mean of a table's rows over the tokens in sight so far."""
    table: torch.Tensor = values["table"]  # [V V]

    def model_forward(ids: torch.Tensor, attention_mask: torch.Tensor, last: int) -> torch.Tensor:
        seen = attention_mask.to(table.dtype)[..., None]  # [B T 1]
        so_far = (table[ids] * seen).cumsum(dim=1) / seen.cumsum(dim=1).clamp_min(1.0)  # [B T V]
        return 3 * so_far[:, -last:]

    _, *arguments = (build(each, values) if "shown" not in each else None for each in job.arguments)
    named = {name: build(each, values) for name, each in job.named.items()}
    return callee(module, job, values)(model_forward, *arguments, **named)
