"""How the child of a03 makes its layer and its cache. Runs beside the student's code: no answer stands here."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import torch

from minirlhf.course.jobs import Job, Values, build, callee


def layer(module: ModuleType, job: Job, values: Values) -> torch.Tensor:
    """CausalSelfAttention.forward(x, visible, …), with `probe` for its attention."""
    named: dict[str, Any] = {name: build(each, values) for name, each in job.named.items() if name != "cache"}
    if "capacity" in job.setting:
        named["cache"] = filled_cache(values["keys"], values["values"], job.setting["capacity"])
    forward = callee(module, replace(job, make=dict(job.make) | {"attend": probe}), values)
    out: torch.Tensor = forward(values["x"], values["visible"], **named)
    return out


def probe(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Stands in for attention, so that a layer can be tested without it: depends on everything, mixes as one can see.

    q [B H T K], k and v [B G S K] -> [B H T K]: queries plus running sums of the keys and values in sight.
    """
    group = q.shape[1] // k.shape[1]
    wide_k, wide_v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    seen = visible.to(q.dtype)  # [B 1 T S]
    return q * 0.5 + seen @ (wide_k * 0.25) + seen @ torch.tanh(wide_v)


def filled_cache(keys: torch.Tensor, values: torch.Tensor, capacity: int) -> Any:
    """A cache of one layer that already holds keys and values, [B G S K], and has room for capacity tokens."""
    from minirlhf.nn.cache import empty_cache

    batch, kv_heads, tokens, width = keys.shape
    cache = empty_cache(1, batch, kv_heads, capacity, width, keys).reserve(tokens)
    cache.append(0, keys, values)
    return cache.advance(tokens).reserve(capacity - tokens)
