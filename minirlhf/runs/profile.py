"""`--profile`: where a training step's time goes, recorded by torch.profiler on a few steps of a real run.

    RUN/profile/trace.json.gz   every operator on a time line, for ui.perfetto.dev or chrome://tracing
    RUN/profile/table.txt       the same on one screen, part by part, and the costliest operators

A part is found in three ways. Some operators say it by their name (matrix products, copies). Others do by the module
they run in, which the trace then shows as well: a multiplication may belong to a norm or to a rotation. And what runs
in the backward pass belongs where its forward partner did; the two carry one sequence number. An operator's time is
that of its own work, without the operators it calls; on a GPU, that of the kernels it starts.
"""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from minirlhf.models.gpt import MLPS, Block
from minirlhf.nn.attention import CausalSelfAttention
from minirlhf.nn.linear import Linear
from minirlhf.nn.norm import LayerNorm, RMSNorm
from minirlhf.records import Report
from minirlhf.runs.files import write_text
from minirlhf.trainers.optim import OPTIMIZER

WARM_UP = 3  # steps that run before the recorder does: the first ones allocate, compile and fill caches
RECORDED = 5
ENOUGH_SECONDS = 15.0  # no further step is recorded after so many: a step of PPO is long, and so is its trace

MATRICES, ATTENTION, ACTIVATIONS, NORMS = "matrix products", "attention's other parts", "activations", "norms"
EMBEDDING, SUMS, LOSS, COPIES = "embedding and masks", "residual and gradient sums", "log-softmax and loss", "copies"
COMPILED, OTHER, OVERHEAD = "compiled kernels", "other operators", "Python and overhead"
PARTS = (
    MATRICES, ATTENTION, ACTIVATIONS, NORMS, EMBEDDING, SUMS, LOSS, OPTIMIZER, COPIES, COMPILED, OTHER, OVERHEAD,
)  # fmt: skip

NAMES = {
    MATRICES: ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear", "matmul"),
    COPIES: ("copy_", "clone", "cat", "stack", "to", "_to_copy", "contiguous", "constant_pad_nd", "fill_", "zero_"),
    OVERHEAD: (  # they move no number: arranging, reserving, asking
        "view", "_unsafe_view", "reshape", "transpose", "t", "permute", "expand", "slice", "select", "unsqueeze",
        "squeeze", "as_strided", "split", "split_with_sizes", "chunk", "detach", "alias", "empty", "empty_like",
        "empty_strided", "resize_", "result_type", "item", "_local_scalar_dense", "is_nonzero",
    ),
}  # fmt: skip
BY_NAME = {name: part for part, names in NAMES.items() for name in names}
BY_MODULE: dict[type[nn.Module], str] = {
    Linear: MATRICES,  # what is no product there is the sum that gives a bias its gradient
    CausalSelfAttention: ATTENTION,
    **dict.fromkeys(MLPS.values(), ACTIVATIONS),
    LayerNorm: NORMS,
    RMSNorm: NORMS,
    nn.Embedding: EMBEDDING,
    Block: SUMS,
}
OF_THE_LOSS = ("softmax", "logsumexp", "gather", "multinomial", "topk", "argmax")  # also where there is no gradient
STEP, MODULE, BACKWARD = "training step", "module ", "autograd::engine::evaluate_function: "


@dataclass(frozen=True)
class StepTimes:
    """Where an average step's time went. parts: milliseconds by name of PARTS, whose sum is milliseconds; operators:
    (name, milliseconds, calls), the costliest first."""

    steps: int
    milliseconds: float
    parts: dict[str, float]
    operators: list[tuple[str, float, float]]


def profiled(reports: Iterable[Report], folder: Path, steps: int, device: torch.device) -> Iterator[Report]:
    """Hands the reports on as they come, and records a few of the steps that make them; steps: how many will come.

    What the caller does between two reports (evaluating, saving) is no part of a step. Nothing random is drawn.
    """
    reports, warm_up, plain_ms = iter(reports), min(WARM_UP, steps // 2), 0.0
    with modules_named():
        for _ in range(warm_up):
            started = time.perf_counter()
            report = next(reports, None)
            if report is None:
                return
            plain_ms = 1e3 * (time.perf_counter() - started)
            yield report
        on_gpu = device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        seen: list[Report] = []
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the recorder's own announcements
        started = time.perf_counter()
        with profile(activities=activities) as recorder:
            while len(seen) < RECORDED and time.perf_counter() - started < ENOUGH_SECONDS:
                with record_function(STEP):
                    report = next(reports, None)
                    if on_gpu:
                        torch.cuda.synchronize()
                if report is None:
                    break
                seen.append(report)
                yield report
    if seen:
        times = step_times(recorder.events() or (), len(seen), on_gpu)
        text = table(times, plain_ms, stretches([report.metrics for report in seen]))
        folder.mkdir(exist_ok=True)
        unfinished = folder / "trace.unfinished.json.gz"
        recorder.export_chrome_trace(str(unfinished))
        os.replace(unfinished, folder / "trace.json.gz")
        write_text(folder / "table.txt", text + "\n")
        tqdm.write(f"\n{text}\n\nprofile  {folder / 'table.txt'} and {folder / 'trace.json.gz'}\n")
    yield from reports


@contextmanager
def modules_named() -> Iterator[None]:
    """Inside, every module's forward pass is a stretch of the trace that bears its name."""
    opened: list[Any] = []

    def enter(module: nn.Module, _: Any) -> None:
        if not torch.compiler.is_compiling():
            opened.append(record_function(MODULE + type(module).__name__))
            opened[-1].__enter__()

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        if not torch.compiler.is_compiling():
            opened.pop().__exit__(None, None, None)

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def step_times(events: Iterable[Any], steps: int, on_gpu: bool = False) -> StepTimes:
    """What torch.profiler saw in the first `steps` steps, by part. events: its FunctionEvents."""
    on_cpu = [event for event in events if event.device_type == DeviceType.CPU]
    windows = [event.time_range for event in on_cpu if event.name == STEP][:steps]
    partners = {  # the last to start is the operator that made the node: those it calls have the next one's number
        (event.thread, event.sequence_nr): event
        for event in sorted(on_cpu, key=lambda event: event.time_range.start)
        if event.sequence_nr >= 0 and not event.name.startswith(BACKWARD) and event.scope != IN_BACKWARD
    }
    places: dict[int, str | None] = {}
    parts, spent, calls = defaultdict[str, float](float), defaultdict[str, float](float), Counter[str]()
    for event in on_cpu:
        if not any(window.start <= event.time_range.start < window.end for window in windows):
            continue
        own = (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3 / steps
        part = part_of(event, place_of(event, partners, places))
        parts[part] += own if part != OVERHEAD else 0.0
        if "::" in event.name and not event.name.startswith(BACKWARD):
            spent[event.name] += own
            calls[event.name] += 1
    milliseconds = sum(window.elapsed_us() for window in windows) / 1e3 / steps
    parts[OVERHEAD] = milliseconds - sum(parts.values())  # what is no operator's time: the wall clock knows no more
    shown = {part: parts[part] for part in PARTS if parts[part] or part == OVERHEAD}
    ordered = sorted(spent, key=spent.__getitem__, reverse=True)
    return StepTimes(steps, milliseconds, shown, [(name, spent[name], calls[name] / steps) for name in ordered])


def place_of(event: Any, partners: Mapping[tuple[int, int], Any], known: dict[int, str | None]) -> str | None:
    """The part an event belongs to by where it runs; None outside of every module, of the loss and of the optimizer."""
    if event.id in known:
        return known[event.id]
    parent = event.cpu_parent
    place = place_of(parent, partners, known) if parent is not None else None
    if place == OPTIMIZER:
        pass  # whatever it calls, products of matrices too
    elif event.is_user_annotation:
        if event.name == OPTIMIZER:
            place = OPTIMIZER
        elif event.name.startswith(MODULE):
            place = PLACES.get(event.name.removeprefix(MODULE), place or EMBEDDING)  # a model's own: masks, positions
    elif event.name.startswith(BACKWARD):
        partner = partners.get((event.fwd_thread, event.sequence_nr))
        place = place_of(partner, partners, known) if partner is not None else SUMS
    elif place is None and (event.sequence_nr >= 0 or any(word in event.name for word in OF_THE_LOSS)):
        place = LOSS  # no module's work, and a gradient flows through it
    known[event.id] = place
    return place


PLACES = {module.__name__: part for module, part in BY_MODULE.items()}
IN_BACKWARD = 1  # RecordScope::BACKWARD_FUNCTION


def part_of(event: Any, place: str | None) -> str:
    """The part an event's own time is counted to."""
    space, colons, name = event.name.rpartition("::")
    if "Compiled" in event.name:
        return COMPILED
    if not colons or "autograd" in space or event.is_user_annotation:
        return OVERHEAD  # no operator, but what stands around some: Python, autograd's bookkeeping
    by_name = BY_NAME.get(name)
    if place == OPTIMIZER and by_name != OVERHEAD:
        return OPTIMIZER
    return by_name or place or OTHER


def stretches(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Milliseconds per step of what the trainer itself timed, such as the writing of answers."""
    timed = [key for key in rows[0] if key.endswith("_seconds")]
    return {key.removesuffix("_seconds"): 1e3 * sum(row[key] for row in rows) / len(rows) for key in timed}


def table(times: StepTimes, plain_ms: float, timed: Mapping[str, float], operators: int = 10) -> str:
    """StepTimes on one screen. plain_ms: a step's time without the recorder, 0 if not known."""

    def line(name: str, ms: float, more: str = "") -> str:
        return f"  {name:<34}{ms:>10.2f} ms {ms / times.milliseconds:>7.1%}  {more}".rstrip()

    counted = f"{times.steps} steps" if times.steps > 1 else "one step"
    without = f", {plain_ms:.2f} ms unrecorded" if plain_ms else ""
    bars = {part: "#" * round(24 * ms / times.milliseconds) for part, ms in times.parts.items()}
    ordered = sorted(times.parts, key=times.parts.__getitem__, reverse=True)
    return "\n".join(
        [
            f"Where a step's time went: {counted} recorded, {times.milliseconds:.2f} ms each{without}",
            "",
            *(line(part, times.parts[part], bars[part]) for part in ordered),
            line("together", times.milliseconds),
            f"({OVERHEAD}: the wall clock minus all operators; data and the recorder are in it)",
            *(["", "By the trainer's clock"] if timed else []),
            *(line(name, ms) for name, ms in timed.items()),
            "",
            "The costliest operators, without what they call, and their calls per step",
            *(line(name, ms, f"{calls:.0f}") for name, ms, calls in times.operators[:operators]),
        ]
    )
