"""One call of the code under test as data: what to call, on which arrays, which results and gradients to bring back.

A job and its arrays travel to the child as JSON and safetensors, its results come back as safetensors: no pickle. The
parent runs the same job on the library to know what is right, and on planted mistakes to know what went wrong.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

Arrays = dict[str, NDArray[Any]]
Argument = Any
"""The name of an array, a list of arguments (a tuple for the callee), {"cached": [keys, values], "capacity": C} for a
cache that already holds some tokens, or {"value": x} for a plain number, text, truth value or None."""


@dataclass(frozen=True)
class Job:
    """target       `function` or `Class.method` of the module under test
    arguments    of the call, in order; see Argument
    named        arguments by name
    make         settings of the class, when the target is a method
    weights      parameter -> array, the object's state
    attend       "probe" puts a function of ours where the class computes attention
    gradients    arrays whose gradient is wanted, of the sum of out * dout over the outputs
    cotangents   the arrays dout, one per output; nothing is differentiated without them
    """

    target: str
    arguments: Sequence[Argument] = ()
    named: Mapping[str, Argument] = field(default_factory=dict)
    make: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    attend: str = ""
    gradients: Sequence[str] = ()
    cotangents: Sequence[str] = ()


@dataclass(frozen=True)
class Case:
    """A job with the arrays it names."""

    job: Job
    arrays: Arrays


class WrongResult(Exception):
    """The call came back with something that is not a tensor, or no gradient reaches an input."""


def probe(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Stands in for attention, so that a layer can be tested without it: depends on everything, mixes as one can see.

    q [B H T K], k and v [B G S K] -> [B H T K]: queries plus running sums of the keys and values in sight.
    """
    group = q.shape[1] // k.shape[1]
    wide_k, wide_v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    seen = visible.to(q.dtype)  # [B 1 T S]
    return q * 0.5 + seen @ (wide_k * 0.25) + seen @ torch.tanh(wide_v)


def call(module: ModuleType, case: Case) -> Arrays:
    """Runs the job on the module: `out` (or `out 0`, `out 1`, …) and `gradient of NAME`.

    Raises: WrongResult if what comes back is no tensor or no gradient arrives, and whatever the module raises.
    """
    job = case.job
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in case.arrays.items()}
    for name in job.gradients:
        tensors[name].requires_grad_()
    arguments = [build(argument, tensors) for argument in job.arguments]
    named = {name: build(argument, tensors) for name, argument in job.named.items()}
    returned = callee(module, job, tensors)(*arguments, **named)
    parts = list(returned) if isinstance(returned, tuple | list) and len(job.cotangents) != 1 else [returned]
    for part in parts:
        if not isinstance(part, torch.Tensor):
            raise WrongResult(f"{job.target} returned {type(part).__name__}, expected a tensor")
    names = ["out"] if len(parts) == 1 else [f"out {i}" for i in range(len(parts))]
    found = {name: as_array(part) for name, part in zip(names, parts, strict=True)}
    if job.gradients:
        found |= gradients(parts, tensors, job)
    return found


def gradients(parts: list[torch.Tensor], tensors: dict[str, torch.Tensor], job: Job) -> Arrays:
    """`gradient of NAME` for the job's gradients."""
    if len(parts) != len(job.cotangents):
        raise WrongResult(f"{job.target} returned {len(parts)} tensors, expected {len(job.cotangents)}")
    for part, name in zip(parts, job.cotangents, strict=True):
        if part.shape != tensors[name].shape:
            return {}  # the wrong shape of the output is said, and enough
        if not part.requires_grad:
            raise WrongResult(f"no gradient: the result of {job.target} does not depend on its inputs (detached?)")
    total = sum((part * tensors[name]).sum() for part, name in zip(parts, job.cotangents, strict=True))
    assert isinstance(total, torch.Tensor)
    total.backward()
    for name in job.gradients:
        if tensors[name].grad is None:
            raise WrongResult(f"no gradient reaches {name}: {job.target} detaches or ignores it")
    return {f"gradient of {name}": as_array(tensors[name].grad) for name in job.gradients}


def callee(module: ModuleType, job: Job, tensors: Mapping[str, torch.Tensor]) -> Callable[..., Any]:
    """The function, or the method of an object made with the job's settings and weights."""
    owner, _, method = job.target.rpartition(".")
    if not owner:
        function: Callable[..., Any] = getattr(module, method)
        return function
    settings = dict(job.make) | ({"attend": probe} if job.attend == "probe" else {})
    made = getattr(module, owner)(**settings).double()
    with torch.no_grad():
        parameters = dict(made.named_parameters())
        for name, array in job.weights.items():
            parameters[name].copy_(tensors[array])
    bound: Callable[..., Any] = getattr(made, method)
    return bound


def build(argument: Argument, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The value an argument stands for."""
    if isinstance(argument, str):
        return tensors[argument]
    if isinstance(argument, list | tuple):
        return tuple(build(part, tensors) for part in argument)
    if "value" in argument:
        return argument["value"]
    from minirlhf.nn.cache import empty_cache

    keys, values = (tensors[name] for name in argument["cached"])  # [B G S K]
    batch, kv_heads, tokens, width = keys.shape
    cache = empty_cache(1, batch, kv_heads, argument["capacity"], width, keys).reserve(tokens)
    cache.append(0, keys, values)
    return cache.advance(tokens).reserve(argument["capacity"] - tokens)


def as_array(tensor: torch.Tensor | None) -> NDArray[Any]:
    """A plain, contiguous NumPy copy; what NumPy has no type for (bfloat16) becomes float32, which is wrong anyway."""
    assert tensor is not None
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    return np.ascontiguousarray(plain.numpy())


# -- on the way ---------------------------------------------------------------------------------------------------


def pack_cases(cases: Sequence[Case]) -> tuple[str, bytes]:
    """The jobs as JSON, and all their arrays in one safetensors file, `i/name` for case i."""
    arrays = {f"{i}/{name}": np.ascontiguousarray(array) for i, case in enumerate(cases)
              for name, array in case.arrays.items()}  # fmt: skip
    return json.dumps([asdict(case.job) for case in cases]), save(arrays)


def unpack_cases(jobs: str, arrays: bytes) -> list[Case]:
    by_case = unpack_results(arrays)
    return [Case(Job(**job), by_case.get(i, {})) for i, job in enumerate(json.loads(jobs))]


def pack_results(results: Mapping[int, Arrays]) -> bytes:
    flat = {f"{i}/{name}": array for i, arrays in results.items() for name, array in arrays.items()}
    return save(flat)


def unpack_results(packed: bytes) -> dict[int, Arrays]:
    """The arrays of each case. Raises ValueError if the bytes are not such a file."""
    found: dict[int, Arrays] = {}
    if not packed:
        return found
    try:
        for key, array in load(packed).items():
            number, _, name = key.partition("/")
            found.setdefault(int(number), {})[name] = array
    except Exception as error:  # whatever a damaged or forged file makes the reader raise
        raise ValueError(f"not a result: {type(error).__name__}") from error
    return found
