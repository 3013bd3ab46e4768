"""Writing with a cache: a prompt of 16 tokens, 128 new ones; ours, transformers' generate, and the products alone.

    python -m benchmarks.generate [--quick] [--only a b growth]

Temperature 1, the whole vocabulary, nothing stops early, float32, random weights. Ours is `generation.generate`, which
also keeps the log-prob of every token it draws. Greedily, both must write the same tokens from the same weights, which
get there through `minirlhf export`'s writer. The configurations:

(a) 4 layers, 4 heads, width 128, context 256, vocabulary 512
(b) 6 layers, 6 heads, width 384, context 256, vocabulary 4096
"""

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.products import Shape, generation_passes, prepare
from benchmarks.suite import (
    Bar,
    Growth,
    Job,
    Measurement,
    Table,
    interleave,
    options,
    ratio,
    run,
    throughput,
    wanted,
    write,
)


@dataclass(frozen=True)
class Setting:
    """A model and how much it writes."""

    layers: int = 4
    heads: int = 4
    width: int = 128
    vocabulary: int = 512
    context: int = 256
    prompt: int = 16
    new_tokens: int = 128
    batch: int = 1


SMALL, MEDIUM = Setting(), Setting(6, 6, 384, 4096)
TOLD_APART = 8.0  # random weights this much larger than GPT-2's start, so that the likeliest token is ahead clearly


def model_of(size: Setting, scale: float = 1.0):
    """Our GPT with random weights."""
    import torch

    from benchmarks.ours import as_the_command
    from minirlhf.models.gpt import GPT, GPTConfig

    model = GPT(GPTConfig(size.vocabulary, size.context, size.layers, size.heads, width=size.width)).eval()
    as_the_command(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
    return model


def prompts_of(size: Setting):
    """Random prompts [batch prompt]."""
    import torch

    return torch.randint(size.vocabulary, (size.batch, size.prompt), generator=torch.Generator().manual_seed(1))


def minirlhf_writes(size: Setting, model: Any, greedy: bool = False):
    """ids [batch prompt + new_tokens], by our generate."""
    import torch

    from minirlhf.generation.generate import generate
    from minirlhf.generation.sampling import SamplingConfig
    from minirlhf.records import PromptBatch

    ids = prompts_of(size)
    prompts = PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), ("",) * size.batch)
    sampling = SamplingConfig(max_new_tokens=size.new_tokens, greedy=greedy)
    draws = torch.Generator().manual_seed(2)
    return lambda: generate(model, prompts, sampling, (), 0, draws).ids


def transformers_writes(size: Setting, model: Any, greedy: bool = False):
    """The same by a transformers model's generate."""
    import torch
    from transformers import GenerationConfig

    ids = prompts_of(size)
    drawing: dict[str, Any] = {} if greedy else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=size.new_tokens,
        do_sample=not greedy,
        use_cache=True,
        pad_token_id=0,
        eos_token_id=None,
        **drawing,
    )
    mask = torch.ones_like(ids)
    return lambda: model.generate(ids, attention_mask=mask, generation_config=config)


def measured(writes: Any, size: Setting, seconds: float) -> Measurement:
    """Tokens per second, after checking that all of them are written."""
    if writes().shape != (size.batch, size.prompt + size.new_tokens):
        raise RuntimeError("an answer ended early")
    rate = throughput(lambda: writes().shape[0] * size.new_tokens, seconds, warmup=1)
    return {"tokens_per_second": rate, "call_seconds": size.batch * size.new_tokens / rate}


# Workers


def minirlhf_generate(setting: dict[str, int], seconds: float, compiled: bool = False) -> Measurement:
    from minirlhf.models.speed import compile_decoding

    size = Setting(**setting)
    model = model_of(size)
    if compiled:
        compile_decoding(model)
    started = time.perf_counter()
    writes = minirlhf_writes(size, model)
    writes()
    return {"first_call_seconds": time.perf_counter() - started} | measured(writes, size, seconds)


def transformers_generate(setting: dict[str, int], seconds: float) -> Measurement:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size = Setting(**setting)
    torch.manual_seed(0)
    sizes = {"n_layer": size.layers, "n_head": size.heads, "n_embd": size.width, "n_positions": size.context}
    ends = {"bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=size.vocabulary, attn_implementation="sdpa", **sizes, **ends)).eval()
    return measured(transformers_writes(size, model), size, seconds)


def bound_generate(setting: dict[str, int], seconds: float) -> Measurement:
    """The matrix products of reading the prompt and of every token after it, the faster way round."""
    size = Setting(**setting)
    shape = Shape(size.layers, size.heads, size.width, size.vocabulary)
    passes = generation_passes(shape, size.batch, size.prompt, size.new_tokens)

    def rate(weight_first: bool) -> float:
        work = prepare(passes, weight_first=weight_first)

        def step() -> int:
            work()
            return size.batch * size.new_tokens

        return throughput(step, seconds / 2, warmup=1)

    best = max(rate(weight_first) for weight_first in (False, True))
    return {"tokens_per_second": best, "call_seconds": size.batch * size.new_tokens / best}


def same_text(setting: dict[str, int]) -> Measurement:
    """The share of greedy tokens on which ours and an exported transformers model agree."""
    from transformers import AutoModelForCausalLM

    from minirlhf.models.hugging_face import export_hugging_face
    from minirlhf.tokenizers.tokenizer import byte_tokenizer

    size = Setting(**setting)
    model = model_of(size, TOLD_APART)
    with tempfile.TemporaryDirectory() as folder:
        export_hugging_face(model, byte_tokenizer(), f"{folder}/model")
        theirs = AutoModelForCausalLM.from_pretrained(f"{folder}/model").eval()
    theirs.generation_config.eos_token_id = None
    ours, others = minirlhf_writes(size, model, greedy=True)(), transformers_writes(size, theirs, greedy=True)()
    return {"agreement": (ours == others)[:, size.prompt :].double().mean().item(), "distinct": len(ours.unique())}


# The benchmark


def jobs_of(setting: Setting, seconds: float) -> dict[str, Job]:
    arguments = {"setting": asdict(setting), "seconds": seconds}
    return {
        "minirlhf": Job("generate", "minirlhf_generate", arguments),
        "minirlhf, compiled": Job("generate", "minirlhf_generate", arguments | {"compiled": True}),
        "transformers": Job("generate", "transformers_generate", arguments),
        "bound: matrix products": Job("generate", "bound_generate", arguments),
    }


def growth(quick: bool) -> list[Growth]:
    """A call of (a) with more rows, and with more tokens to write."""
    axes = {
        "batch": ("answers written together", SMALL, (1, 16) if quick else (1, 4, 16, 64, 128)),
        "new_tokens": (
            "tokens written, 16 answers",
            replace(SMALL, batch=16, context=1024),
            (16, 64) if quick else (32, 128, 512, 1000),
        ),
    }
    found = []
    for field, (label, setting, sizes) in axes.items():
        print(f"growth: {label}", flush=True)
        series: dict[str, list[tuple[float, float]]] = {}
        for size in sizes:
            jobs = jobs_of(replace(setting, **{field: size}), 0.1 if quick else 1.0)
            del jobs["minirlhf, compiled"]
            for name, (measurement,) in interleave(jobs, 1, "call_seconds").items():
                series.setdefault(name, []).append((size, measurement["call_seconds"]))
        found.append(Growth("a call of generate", label, "seconds", series))
    return found


def main() -> None:
    flags = options(__doc__, 3, ("a", "b", "growth")).parse_args()
    rounds, tables, bars = 1 if flags.quick else flags.rounds, [], []
    for label, setting, targets in (("a", SMALL, {1: 3.0, 32: 3.0}), ("b", MEDIUM, {1: 2.5, 32: 2.5})):
        if not wanted(flags, label):
            continue
        for batch, target in targets.items():
            setting = replace(setting, batch=batch)
            title = f"({label}) {setting.layers} layers of {setting.width}, batch {batch}"
            print(title, flush=True)
            runs = interleave(jobs_of(setting, 0.2 if flags.quick else 2.5), rounds, "tokens_per_second")
            tables.append(Table(title, "tokens_per_second", runs))
            for kind in ("", ", compiled"):
                value = ratio(tables[-1], f"minirlhf{kind}", "transformers")
                bars.append(Bar(f"({label}) batch {batch}, times transformers' tokens/s{kind}", value, ">=", target))
        same = run(Job("generate", "same_text", {"setting": asdict(setting)}))
        if same is not None:
            bars.append(Bar(f"({label}) greedy tokens that agree with transformers'", same["agreement"], ">=", 1.0))
        write("generate", "Generation", flags, tables, bars, done=False)
    write("generate", "Generation", flags, tables, bars, growth(flags.quick) if wanted(flags, "growth") else [])


if __name__ == "__main__":
    main()
