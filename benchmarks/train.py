"""A training step: forward, backward, clipping to norm 1, AdamW; ours, transformers, and the matrix products alone.

    python -m benchmarks.train [--quick] [--only a b growth] [--eager]

Ours is `trainers.pretrain.train_pretrain`, the loop behind `minirlhf pretrain`. The peer is the shortest loop around
GPT2LMHeadModel (sdpa) with torch's AdamW. Random ids, dropout 0, float32. The configurations:

(a) 4 layers, 4 heads, width 128, 64 tokens, batch 12, vocabulary 65
(b) 6 layers, 6 heads, width 384, 256 tokens, batch 8, vocabulary 4096
"""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.ours import as_the_command
from benchmarks.products import Shape, flops, pass_products, prepare
from benchmarks.suite import (
    Bar,
    Growth,
    Job,
    Measurement,
    Table,
    interleave,
    options,
    peak_rss_mib,
    ratio,
    rss_mib,
    throughput,
    wanted,
    write,
)
from minirlhf.models.gpt import GPTConfig


@dataclass(frozen=True)
class Setting:
    """A model and its batch."""

    layers: int = 4
    heads: int = 4
    width: int = 128
    tokens: int = 64
    batch: int = 12
    vocabulary: int = 65

    @property
    def shape(self) -> Shape:
        return Shape(self.layers, self.heads, self.width, self.vocabulary)


A = Setting()
B = Setting(6, 6, 384, 256, 8, 4096)
BOUND = "bound: matrix products"
BATCHES = 8  # different batches of random ids, in turn


def random_ids(setting: Setting, more: int):
    """Batches [batch tokens + more] of random ids."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (setting.batch, setting.tokens + more)
    return [torch.randint(setting.vocabulary, shape, generator=generator) for _ in range(BATCHES)]


def measured(step: Any, setting: Setting, seconds: float, held: float) -> Measurement:
    """Tokens per second of step(), and the memory the process took on since it held so many MiB."""
    started = time.perf_counter()
    step()
    first = time.perf_counter() - started
    rate = throughput(step, seconds)
    step_seconds = setting.batch * setting.tokens / rate
    more = max(peak_rss_mib() - held, 0.1)
    return {"tokens_per_second": rate, "step_seconds": step_seconds, "first_step_seconds": first, "grown_mib": more}


# Workers


def minirlhf_step(setting: dict[str, int], seconds: float, mlp: str = "gelu", compiled: bool = False) -> Measurement:
    """Our GPT in our training loop."""
    import torch

    from minirlhf.models.gpt import GPT
    from minirlhf.records import TokenBatch
    from minirlhf.trainers.optim import AdamW, OptimConfig
    from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain

    held, size = rss_mib(), Setting(**setting)
    model = GPT(GPTConfig(size.vocabulary, size.tokens, size.layers, size.heads, width=size.width, mlp=mlp))
    as_the_command(model, compiled=compiled)
    optim = OptimConfig(learning_rate=1e-3, betas=(0.9, 0.99), weight_decay=0.1, max_grad_norm=1.0)
    config = PretrainConfig(steps=10**9, batch_size=size.batch, optim=optim)
    counts = torch.ones(size.batch, size.tokens, dtype=torch.bool)
    batches = [[TokenBatch(ids, counts)] for ids in random_ids(size, 1)]
    optimizer = AdamW(model.named_parameters(), optim)
    reports = train_pretrain(model, lambda step: batches[step % BATCHES], optimizer, config)

    def step() -> int:
        next(reports)
        return size.batch * size.tokens

    return measured(step, size, seconds, held)


def transformers_step(
    setting: dict[str, int], seconds: float, fused: bool = False, compiled: bool = False
) -> Measurement:
    """GPT2LMHeadModel in the shortest loop."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    held, size = rss_mib(), Setting(**setting)
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"n_layer": size.layers, "n_head": size.heads, "n_embd": size.width, "n_positions": size.tokens}
    config = GPT2Config(vocab_size=size.vocabulary, attn_implementation="sdpa", **sizes, **dropouts)
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, **({"fused": True} if fused else {})
    )
    forward = torch.compile(model) if compiled else model
    batches, count = random_ids(size, 0), 0

    def step() -> int:
        nonlocal count
        ids = batches[count % BATCHES]
        count += 1
        loss = forward(ids, labels=ids).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        return size.batch * size.tokens

    return measured(step, size, seconds, held)


def bound_step(setting: dict[str, int], seconds: float) -> Measurement:
    """The matrix products of the step and nothing else."""
    held, size = rss_mib(), Setting(**setting)
    forward = [pass_products(size.shape, size.batch, size.tokens, size.tokens)]
    work = prepare(forward, backward=True)

    def step() -> int:
        work()
        return size.batch * size.tokens

    result = measured(step, size, seconds, held)
    return result | {"gflop_per_second": flops(forward, backward=True) / result["step_seconds"] / 1e9}


# The benchmark


def jobs_of(setting: Setting, seconds: float, compiled: bool) -> dict[str, Job]:
    """Everybody who takes part."""
    arguments: dict[str, Any] = {"setting": asdict(setting), "seconds": seconds}
    ours = {"minirlhf": {}, "minirlhf, squared ReLU": {"mlp": "relu2"}}
    theirs = {"transformers": {}, "transformers, fused AdamW": {"fused": True}}
    if compiled:  # torch.compile takes most of a minute for the whole of transformers' model, and gains little
        ours |= {f"{name}, compiled": {**changes, "compiled": True} for name, changes in ours.items()}
    jobs = {name: Job("train", "minirlhf_step", arguments | changes) for name, changes in ours.items()}
    jobs |= {name: Job("train", "transformers_step", arguments | changes) for name, changes in theirs.items()}
    return jobs | {BOUND: Job("train", "bound_step", arguments)}


def bars_of(table: Table, label: str, times: float, share: float, cheap: float | None) -> list[Bar]:
    """Against transformers, and as a share of the bound; as it is and compiled, each against the same peer."""
    bars = []
    for kind in ("", ", compiled"):
        ours, peer = ratio(table, f"minirlhf{kind}", "transformers"), ratio(table, f"minirlhf{kind}", BOUND)
        bars.append(Bar(f"({label}) times transformers' tokens/s{kind}", ours, ">=", times))
        bars.append(Bar(f"({label}) share of the matrix-product bound{kind}", peer, ">=", share))
        if cheap is not None:
            value = ratio(table, f"minirlhf, squared ReLU{kind}", BOUND)
            bars.append(Bar(f"({label}) share of the matrix-product bound, squared ReLU{kind}", value, ">=", cheap))
    return bars


def growth(quick: bool) -> list[Growth]:
    """A step of (a) with more tokens in a row, a larger vocabulary, a larger batch."""
    axes = {
        "tokens": ("tokens in a row", (32, 128, 512) if quick else (32, 64, 128, 256, 512)),
        "vocabulary": ("tokens in the vocabulary", (256, 4096) if quick else (256, 1024, 4096, 16384)),
        "batch": ("rows in a batch", (4, 16) if quick else (4, 8, 16, 32)),
    }
    found = []
    for field, (label, sizes) in axes.items():
        print(f"growth: {label}", flush=True)
        seconds: dict[str, list[tuple[float, float]]] = {}
        memory: dict[str, list[tuple[float, float]]] = {}
        for size in sizes:
            setting = asdict(replace(A, **{field: size}))
            arguments = {"setting": setting, "seconds": 0.3 if quick else 1.0}
            jobs = {
                "minirlhf": Job("train", "minirlhf_step", arguments),
                "transformers": Job("train", "transformers_step", arguments),
                BOUND: Job("train", "bound_step", arguments),
            }
            for name, (run,) in interleave(jobs, 1, "step_seconds").items():
                seconds.setdefault(name, []).append((size, run["step_seconds"]))
                if not name.startswith("bound"):
                    memory.setdefault(name, []).append((size, run["grown_mib"]))
        found.append(Growth("a training step", label, "seconds", seconds))
        found.append(Growth("memory of training, libraries not counted", label, "MiB", memory))
    return found


def main() -> None:
    parser = options(__doc__, 3, ("a", "b", "growth"))
    parser.add_argument("--eager", action="store_true", help="without the compiled steps, which take a while to start")
    flags = parser.parse_args()
    rounds, tables, bars = 1 if flags.quick else flags.rounds, [], []
    for label, setting, seconds, held in (("a", A, 3.0, (1.5, 0.70, 0.76)), ("b", B, 6.0, (1.2, 0.88, None))):
        if not wanted(flags, label):
            continue
        sizes = f"{setting.layers} layers of {setting.width}, {setting.batch} × {setting.tokens} tokens"
        title = f"({label}) {sizes}, vocabulary {setting.vocabulary}"
        print(title, flush=True)
        jobs = jobs_of(setting, 0.5 if flags.quick else seconds, not (flags.eager or flags.quick))
        table = Table(title, "tokens_per_second", interleave(jobs, rounds, "tokens_per_second"))
        tables.append(table)
        bars += bars_of(table, label, *held)
        write("train", "Training step", flags, tables, bars, done=False)
    grown = growth(flags.quick) if wanted(flags, "growth") else []
    write("train", "Training step", flags, tables, bars, grown)


if __name__ == "__main__":
    main()
