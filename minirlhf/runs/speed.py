"""Throughput metrics: tokens and arithmetic per second of a step, and what compiling cost."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
from tqdm import tqdm

from minirlhf.models.flops import peak_flops_per_second
from minirlhf.parallel.ranks import World
from minirlhf.records import Report
from minirlhf.runs.options import RunOptions

SETTLED = 8  # steps after which a compiled model has met its kinds of batches


def with_throughput(
    options: RunOptions,
    reports: Iterable[Report],
    steps: int,
    device: torch.device,
    world: World,
    flops: Callable[[int], float] | None = None,
) -> Iterator[Report]:
    """Hands the reports on with what their steps' seconds say; steps: the last step of the run.

    flops(k) is the arithmetic that the step after k steps asks for, of all ranks together. With --compile, one row says
    how long compiling took: that of the step by which it is over, or the last one.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = peak_flops_per_second(name, options.precision)
    reports, seconds = iter(reports), list[float]()
    while True:
        started = perf_counter()
        report = next(reports, None)
        if report is None:
            return
        seconds.append(perf_counter() - started)
        metrics = dict(report.metrics)
        if flops is not None:
            rate = metrics["model_flops_per_second"] = flops(report.step - 1) / seconds[-1]
            if peak is not None:
                metrics["model_flop_utilisation"] = rate / (peak * world.size)
        over = len(seconds) == SETTLED or (report.step >= steps and 1 < len(seconds) < SETTLED)
        if options.compile and over:
            metrics["compile_seconds"], usual = cold_start(seconds)
            if world.leads:
                tqdm.write(f"compiling took {metrics['compile_seconds']:.1f} s; a step now takes {usual:.3g} s")
        yield replace(report, metrics=metrics)


def cold_start(seconds: Sequence[float]) -> tuple[float, float]:
    """What the first steps took beyond as many usual ones, and a usual one: the median of the later half."""
    usual = median(seconds[len(seconds) // 2 :])
    return max(0.0, sum(seconds) - len(seconds) * usual), usual
