"""A training step of GPT-2 small on a GPU: ours, compiled, in bfloat16 with fused attention, against transformers.

    python -m benchmarks.gpt2                                    needs a CUDA GPU and Triton; some minutes
    python -m benchmarks.gpt2 --quick                            also without: a tiny shape, to see that it works

12 layers, 12 heads, width 768, 1024 tokens in a row, vocabulary 50257 rounded up to 50304 for both, random ids, dropout
0. Ours is `trainers.pretrain.train_pretrain` with what `--compile --precision bfloat16 --attend fused` asks for: blocks
compiled, cross-entropy by chunks. The peer is the shortest loop around GPT2LMHeadModel (sdpa), compiled as a whole,
under torch's autocast with its fused AdamW. Both keep weights and optimizer in float32, clip to norm 1, and read the
loss once a step. The model's operations are counted as `models/flops.py` says, for both alike.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.suite import Bar, Job, Measurement, Table, interleave, options, ratio, write


@dataclass(frozen=True)
class Setting:
    """A model, its batch, and how long to measure."""

    layers: int = 12
    heads: int = 12
    width: int = 768
    tokens: int = 1024
    batch: int = 16
    vocabulary: int = 50304
    seconds: float = 20.0


TINY = Setting(2, 2, 32, 64, 2, 128, 0.5)
BATCHES = 4  # different batches of random ids, in turn


def config_of(size: Setting) -> Any:
    """GPT-2's shape in this size."""
    from minirlhf.models.gpt import GPTConfig

    return GPTConfig(size.vocabulary, size.tokens, size.layers, size.heads, width=size.width)


def device_of() -> Any:
    """The GPU, or the CPU where there is none."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random_ids(size: Setting, more: int) -> list[Any]:
    """Batches [batch tokens + more] of random ids, on the device already."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (size.batch, size.tokens + more)
    return [torch.randint(size.vocabulary, shape, generator=generator).to(device_of()) for _ in range(BATCHES)]


def measured(step: Any, size: Setting, warm_up: int = 10) -> Measurement:
    """Tokens per second of step(), what the first steps took, memory of the GPU, and the share of its peak."""
    import torch

    from minirlhf.models.flops import peak_flops_per_second, training_flops

    def seconds_of(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    cold = seconds_of(warm_up)
    once = seconds_of(2) / 2
    steps = max(4, int(size.seconds / once))
    step_seconds = seconds_of(steps) / steps
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    rate = training_flops(config_of(size), [size.tokens] * size.batch) / step_seconds
    result = {
        "tokens_per_second": size.batch * size.tokens / step_seconds,
        "step_seconds": step_seconds,
        "compile_seconds": max(0.0, cold - warm_up * step_seconds),
        "tflop_per_second": rate / 1e12,
    }
    if peak := peak_flops_per_second(name, "bfloat16"):
        result["model_flop_utilisation"] = rate / peak
    if torch.cuda.is_available():
        result["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return result


# Workers


def minirlhf_step(setting: dict[str, Any], attend: str, compiled: bool = True) -> Measurement:
    """Our GPT in our training loop."""
    import torch

    from minirlhf.models.gpt import GPT
    from minirlhf.models.speed import compile_blocks, find_attend, set_attend, set_precision
    from minirlhf.records import TokenBatch
    from minirlhf.trainers.optim import AdamW, OptimConfig
    from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain

    size = Setting(**setting)
    model = GPT(config_of(size)).to(device_of())
    set_attend(model, find_attend(attend))  # type: ignore[arg-type]
    set_precision(model, "bfloat16")
    if compiled:
        compile_blocks(model)
    optim = OptimConfig(learning_rate=1e-4, betas=(0.9, 0.95), weight_decay=0.1, max_grad_norm=1.0)
    counts = torch.ones(size.batch, size.tokens, dtype=torch.bool, device=device_of())
    batches = [[TokenBatch(ids, counts)] for ids in random_ids(size, 1)]
    config = PretrainConfig(steps=10**9, batch_size=size.batch, optim=optim)
    optimizer = AdamW(model.named_parameters(), optim)
    reports = train_pretrain(model, lambda step: batches[step % BATCHES], optimizer, config)
    return measured(lambda: next(reports), size)


def transformers_step(setting: dict[str, Any], compiled: bool = True) -> Measurement:
    """GPT2LMHeadModel in the shortest loop."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size = Setting(**setting)
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"n_layer": size.layers, "n_head": size.heads, "n_embd": size.width, "n_positions": size.tokens}
    config = GPT2Config(vocab_size=size.vocabulary, attn_implementation="sdpa", use_cache=False, **sizes, **dropouts)
    model = GPT2LMHeadModel(config).train().to(device_of())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    forward, batches, count = torch.compile(model) if compiled else model, random_ids(size, 0), 0

    def step() -> None:
        nonlocal count
        ids = batches[count % BATCHES]
        count += 1
        with torch.autocast(device_of().type, torch.bfloat16):
            loss = forward(ids, labels=ids).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return measured(step, size)


# The benchmark


def jobs_of(size: Setting, fused: bool, quick: bool) -> dict[str, Job]:
    """Both compiled, and, to see what that gains, both as they are written."""
    setting = {"setting": asdict(size)}
    ours = setting | {"attend": "fused" if fused else "lean"}
    as_written = {"compiled": False}
    jobs = {"minirlhf": Job("gpt2", "minirlhf_step", ours), "transformers": Job("gpt2", "transformers_step", setting)}
    if quick:  # compiling all of transformers' model takes most of a minute on a CPU
        jobs["transformers"] = Job("gpt2", "transformers_step", setting | as_written)
        return jobs
    jobs["minirlhf, not compiled"] = Job("gpt2", "minirlhf_step", ours | as_written)
    jobs["transformers, not compiled"] = Job("gpt2", "transformers_step", setting | as_written)
    return jobs


def main() -> None:
    import torch

    parser = options(__doc__, 3)
    parser.add_argument("--batch", type=int, default=Setting.batch, help="rows in a batch; fewer for a small GPU")
    flags = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not flags.quick:
        print("no CUDA GPU here: nothing is measured (--quick tries the script at a tiny shape)")
        return
    size = TINY if flags.quick else Setting(batch=flags.batch)
    gpu = torch.cuda.get_device_name() if on_gpu else "no GPU"
    title = f"{size.layers} layers of {size.width}, {size.batch} × {size.tokens} tokens, bfloat16 ({gpu})"
    print(title, flush=True)
    rounds = 1 if flags.quick else flags.rounds
    runs = interleave(jobs_of(size, on_gpu, flags.quick), rounds, "tokens_per_second")
    table = Table(title, "tokens_per_second", runs)
    for name, each in runs.items():
        share = max((run.get("model_flop_utilisation", 0.0) for run in each), default=0.0)
        print(f"  {name}: {f'{share:.1%} of the peak' if share else 'utilisation unknown'}")
    bars = [Bar("times transformers' tokens/s, both compiled", ratio(table, "minirlhf", "transformers"), ">=", 1.0)]
    write("gpt2", "Training GPT-2 small on a GPU", flags, [table], [] if flags.quick else bars)


if __name__ == "__main__":
    main()
