"""One call of the code under test as data: what to call, on which arrays, which results and gradients to bring back.

A job and its arrays travel to the child as JSON and safetensors, its results come back as safetensors: no pickle. The
parent runs the same job on the library to know what is right, and on planted mistakes to know what went wrong.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

from minirlhf.course.results import as_array, flatten, inside

Arrays = dict[str, NDArray[Any]]
Values = Mapping[str, Any]
"""name -> torch.Tensor, or the NumPy array when the job says so."""
Argument = Any
"""The name of an array, or a list of arguments (a tuple for the callee), or one of

    {"value": x}        a plain number, text, truth value, None, or JSON of these
    {"list": [...]}     a list of arguments            {"items": [[key, value], ...]}   a dict of arguments
    {"bytes": text}     the text's bytes, latin-1      {"generator": seed}              a random generator
    {"shown": text}     something the job's play makes, as the feedback calls it
"""


@dataclass(frozen=True)
class Job:
    """target       `function` or `Class.method` of the module under test
    arguments    of the call, in order; see Argument
    named        arguments by name
    make         settings of the class, when the target is a method (plain JSON values)
    weights      parameter -> array, the state of an object that is a torch module
    gradients    arrays whose gradient is wanted, of the sum of out * dout over the outputs
    cotangents   the arrays dout, one per output; nothing is differentiated without them
    changed      arrays to bring back as they are after the call, for what works in place
    numpy        True: the callee gets NumPy arrays and generators, not torch's
    play         `module:function` of this package that makes the call, where one call is not enough; see `call`
    setting      plain JSON values for the play
    """

    target: str
    arguments: Sequence[Argument] = ()
    named: Mapping[str, Argument] = field(default_factory=dict)
    make: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    gradients: Sequence[str] = ()
    cotangents: Sequence[str] = ()
    changed: Sequence[str] = ()
    numpy: bool = False
    play: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A job with the arrays it names."""

    job: Job
    arrays: Arrays


class WrongResult(Exception):
    """The call came back with something that is not a tensor, or no gradient reaches an input."""


def call(module: ModuleType, case: Case) -> Arrays:
    """Runs the job on the module: `out` (or `out 0`, `out 1`, …), `gradient of NAME` and `NAME afterwards`.

    A play is a function (module, job, values) -> what the callee would have returned. It runs in the child beside the
    student's code, so it must hold no answer, and its file must not import the module under test.
    Raises: WrongResult if what comes back is no tensor or no gradient arrives, and whatever the module raises.
    """
    job = case.job
    values: Values = {name: np.array(array) if job.numpy else torch.from_numpy(np.array(array))
                      for name, array in case.arrays.items()}  # fmt: skip
    for name in job.gradients:
        values[name].requires_grad_()
    returned = play_of(job)(module, job, values) if job.play else plain(module, job, values)
    found: Arrays = {}
    if returned is not None or not job.changed:
        parts = returned if isinstance(returned, tuple) and len(job.cotangents) != 1 else (returned,)
        for i, part in enumerate(parts):
            if not (flatten(found, "out", part) if len(parts) == 1 else inside(found, f"out {i}", part)):
                wanted = "an array or a number" if job.numpy else "a tensor"
                raise WrongResult(f"{job.target} returned {type(part).__name__}, expected {wanted}")
        if job.gradients:
            found |= gradients(list(parts), values, job)
    return found | {f"{name} afterwards": as_array(values[name]) for name in job.changed}


def plain(module: ModuleType, job: Job, values: Values) -> Any:
    """The job's one call."""
    arguments = [build(argument, values, job.numpy) for argument in job.arguments]
    named = {name: build(argument, values, job.numpy) for name, argument in job.named.items()}
    return callee(module, job, values)(*arguments, **named)


def play_of(job: Job) -> Callable[..., Any]:
    module, _, name = job.play.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f"minirlhf.course.assignments.{module}"), name)
    return function


def gradients(parts: list[Any], values: Values, job: Job) -> Arrays:
    """`gradient of NAME` for the job's gradients."""
    if len(parts) != len(job.cotangents):
        raise WrongResult(f"{job.target} returned {len(parts)} tensors, expected {len(job.cotangents)}")
    for part, name in zip(parts, job.cotangents, strict=True):
        if not isinstance(part, torch.Tensor):
            raise WrongResult(f"{job.target} returned {type(part).__name__}, expected a tensor")
        if part.shape != values[name].shape:
            return {}  # the wrong shape of the output is said, and enough
        if not part.requires_grad:
            raise WrongResult(f"no gradient: the result of {job.target} does not depend on its inputs (detached?)")
    total = sum((part * values[name]).sum() for part, name in zip(parts, job.cotangents, strict=True))
    assert isinstance(total, torch.Tensor)
    total.backward()
    for name in job.gradients:
        if values[name].grad is None:
            raise WrongResult(f"no gradient reaches {name}: {job.target} detaches or ignores it")
    return {f"gradient of {name}": as_array(values[name].grad) for name in job.gradients}


def callee(module: ModuleType, job: Job, values: Values) -> Callable[..., Any]:
    """The function, or the method of an object made with the job's settings and weights."""
    owner, _, method = job.target.rpartition(".")
    if not owner:
        function: Callable[..., Any] = getattr(module, method)
        return function
    made = getattr(module, owner)(**job.make)
    if isinstance(made, torch.nn.Module):
        made = made.double()
        with torch.no_grad():
            parameters = dict(made.named_parameters())
            for name, array in job.weights.items():
                parameters[name].copy_(values[array])
    bound: Callable[..., Any] = getattr(made, method)
    return bound


def build(argument: Argument, values: Values, numpy: bool = False) -> Any:
    """The value an argument stands for."""
    if isinstance(argument, str):
        return values[argument]
    if isinstance(argument, list | tuple):
        return tuple(build(part, values, numpy) for part in argument)
    if "list" in argument:
        return [build(part, values, numpy) for part in argument["list"]]
    if "items" in argument:
        return {build(key, values, numpy): build(value, values, numpy) for key, value in argument["items"]}
    if "bytes" in argument:
        return argument["bytes"].encode("latin-1")
    if "generator" in argument:
        seed = argument["generator"]
        return np.random.default_rng(seed) if numpy else torch.Generator().manual_seed(seed)
    return argument["value"]


# -- on the way ---------------------------------------------------------------------------------------------------


def pack_cases(cases: Sequence[Case]) -> tuple[str, bytes]:
    """The jobs as JSON, and all their arrays in one safetensors file, `i/name` for case i."""
    arrays = {f"{i}/{name}": np.array(array, order="C") for i, case in enumerate(cases)
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
