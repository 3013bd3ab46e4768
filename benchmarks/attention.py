"""Fused attention on a GPU: TFLOP/s and memory against torch's SDPA back-ends, FlexAttention and the definition.

    python -m benchmarks.attention [--quick]                     needs a CUDA GPU and Triton

Causal, bfloat16, 16,384 tokens a call in rows of 512 ... 16,384, width 2048 in heads of 64 and of 128. First every
contestant is held against the definition in float64, in float32, float16 and bfloat16, forward and gradients. Then they
take turns in one process, since what FlexAttention compiles lives in one; each figure is the median of the rounds, with
CUDA events around calls that fill at least a few milliseconds. Operations are counted as 4 · T²/2 · K a head forward
and 2.5 times that backward; memory is the peak a call adds to its inputs.
"""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.suite import Bar, Growth, Measurement, Table, options, write

TOKENS, WIDTH = 16384, 2048
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
HEAD_WIDTHS = (64, 128)
FROM = 2048  # the bars hold from this length on
DEFINITION_UP_TO = 4096  # its [T T] weights fill the memory beyond
TOLERANCE = {"float32": 2e-3, "float16": 4e-3, "bfloat16": 3e-2}  # of the largest entry; float32 may multiply in TF32


def contestants() -> dict[str, Callable[..., Any]]:
    """(q, k, v) [B H T K] -> [B H T K], causal."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    from minirlhf.nn.attention import eager_attend
    from minirlhf.nn.fused_attention import fused_attention

    def sdpa(backend: Any) -> Callable[..., Any]:
        def attend(q: Any, k: Any, v: Any) -> Any:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return attend

    compiled, masks = torch.compile(flex_attention, dynamic=False), {}

    def flex(q: Any, k: Any, v: Any) -> Any:
        tokens = q.shape[2]
        if tokens not in masks:
            masks[tokens] = create_block_mask(lambda b, h, t, s: t >= s, None, None, tokens, tokens, device=q.device)
        return compiled(q, k, v, block_mask=masks[tokens])

    def definition(q: Any, k: Any, v: Any) -> Any:
        return eager_attend(q, k, v, torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril())

    return {
        "minirlhf": fused_attention,
        "SDPA, FlashAttention": sdpa(SDPBackend.FLASH_ATTENTION),
        "SDPA, cuDNN": sdpa(SDPBackend.CUDNN_ATTENTION),
        "FlexAttention, compiled": flex,
        "minirlhf, the definition": definition,
    }


def inputs(length: int, head_width: int, dtype: Any, tokens: int = TOKENS) -> list[Any]:
    """q, k, v and the gradient of the result, [B H T K]."""
    import torch

    generator = torch.Generator("cuda").manual_seed(0)
    shape = (max(1, tokens // length), WIDTH // head_width, length, head_width)
    made = [torch.randn(shape, generator=generator, device="cuda", dtype=dtype) for _ in range(4)]
    return [each.requires_grad_(place < 3) for place, each in enumerate(made)]


def errors(name: str, dtype: Any, head_width: int) -> float:
    """The largest error of the result and of the three gradients, relative to the largest entry of the true one."""
    import torch

    attend, given = contestants()[name], inputs(384, head_width, dtype, tokens=384)
    exact = [each.detach().double().requires_grad_(each.requires_grad) for each in given]
    truth = contestants()["minirlhf, the definition"](*exact[:3])
    found = attend(*given[:3])
    truths = [truth, *torch.autograd.grad(truth, exact[:3], exact[3])]
    founds = [found, *torch.autograd.grad(found, given[:3], given[3])]
    return max(((f.double() - t).abs().max() / t.abs().max()).item() for f, t in zip(founds, truths, strict=True))


def milliseconds(call: Callable[[], Any], at_least: float = 5.0) -> float:
    """The time of one call, from a stretch of so many milliseconds."""
    import torch

    def stretch(calls: int) -> float:
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for _ in range(calls):
            call()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last)

    calls = max(1, int(at_least / max(stretch(1), 1e-3)))
    return stretch(calls) / calls


def measure(attend: Callable[..., Any], given: list[Any], backward: bool) -> Measurement:
    """TFLOP/s, milliseconds and MiB of one call. Backward alone is what forward and backward take beyond forward."""
    import torch

    q, k, v, gradient = given
    batch, heads, tokens, width = q.shape

    def forward() -> Any:
        with torch.no_grad():
            return attend(q, k, v)

    def both() -> Any:
        return torch.autograd.grad(attend(q, k, v), (q, k, v), gradient)

    call = both if backward else forward
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    mib = (torch.cuda.max_memory_allocated() - before) / 2**20
    spent = milliseconds(call) - (milliseconds(forward) if backward else 0.0)
    operations = 2.0 * batch * heads * tokens * tokens * width * (2.5 if backward else 1.0)
    return {"tflop_per_second": operations / spent / 1e9, "milliseconds": spent, "mib": mib}


def compare(rounds: int, lengths: tuple[int, ...]) -> dict[tuple[int, bool], dict[str, dict[int, list[Measurement]]]]:
    """Measurements by (head width, backward), contestant and length."""
    import torch

    found: dict[tuple[int, bool], dict[str, dict[int, list[Measurement]]]] = {}
    for head_width in HEAD_WIDTHS:
        for length in lengths:
            given = inputs(length, head_width, torch.bfloat16)
            for _ in range(rounds):
                for name, attend in contestants_once().items():
                    if "definition" in name and length > DEFINITION_UP_TO:
                        continue
                    for backward in (False, True):
                        run = measure(attend, given, backward)
                        by_length = found.setdefault((head_width, backward), {}).setdefault(name, {})
                        by_length.setdefault(length, []).append(run)
            best = {
                n: runs[length][-1]["tflop_per_second"] for n, runs in found[head_width, True].items() if length in runs
            }
            print(
                f"heads of {head_width}, {length} tokens, backward:", {n: round(t) for n, t in best.items()}, flush=True
            )
    return found


def contestants_once() -> dict[str, Callable[..., Any]]:
    """The same functions at every call, so that what they compiled is kept."""
    if not KEPT:
        KEPT.update(contestants())
    return KEPT


KEPT: dict[str, Callable[..., Any]] = {}


def main() -> None:
    import torch

    flags = options(__doc__, rounds=5).parse_args()
    if not torch.cuda.is_available():
        print("no CUDA GPU here: nothing is measured")
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    bars = []
    for dtype in TOLERANCE:
        for name in contestants_once():
            if dtype == "float32" and name.startswith("SDPA"):
                continue  # half precision only
            worst = max(errors(name, getattr(torch, dtype), head_width) for head_width in HEAD_WIDTHS)
            print(f"{dtype:<9} {name:<26} error {worst:.1e}", flush=True)
            if name == "minirlhf":
                bars.append(Bar(f"error in {dtype}, of the largest entry", worst, "<=", TOLERANCE[dtype]))
    lengths = LENGTHS[:3] if flags.quick else LENGTHS
    found = compare(1 if flags.quick else flags.rounds, lengths)

    def middle(runs: dict[int, list[Measurement]], key: str) -> list[tuple[float, float]]:
        return [(length, statistics.median(run[key] for run in each)) for length, each in runs.items()]

    tables, growth, curves = [], [], []
    for (head_width, backward), by_name in found.items():
        part = "backward" if backward else "forward"
        title = f"{part}, heads of {head_width}"
        shown = lengths[-1] if flags.quick else 8192
        runs = {name: by_length[shown] for name, by_length in by_name.items() if shown in by_length}
        tables.append(Table(f"{title}, {shown} tokens", "tflop_per_second", runs))
        speeds = {name: middle(by_length, "tflop_per_second") for name, by_length in by_name.items()}
        curves.append({"title": title, "x": "tokens in a row", "y": "TFLOP/s", "series": speeds, "log": True})
        times = {name: middle(by_length, "milliseconds") for name, by_length in by_name.items()}
        growth.append(Growth(f"{title}, {TOKENS:,} tokens a call", "tokens in a row", "milliseconds", times))
        if backward:
            memory = {name: middle(by_length, "mib") for name, by_length in by_name.items()}
            growth.append(Growth(f"forward and {title}: memory added", "tokens in a row", "MiB", memory))
        ours = by_name["minirlhf"]
        peers = [runs for name, runs in by_name.items() if name.startswith("SDPA")]
        ratios = [
            statistics.median(
                run["tflop_per_second"] / max(peer[length][number]["tflop_per_second"] for peer in peers)
                for number, run in enumerate(ours[length])
            )
            for length in lengths
            if length >= FROM
        ]
        bars.append(
            Bar(f"{title}: the best SDPA back-end's TFLOP/s, worst length", min(ratios), ">=", 0.8 if backward else 0.9)
        )
    write("attention", "Fused attention on a GPU", flags, tables, bars, growth, curves=curves)


if __name__ == "__main__":
    main()
