"""Tokens per second: cached generation, and a training step, each beside torch's own attention in the same run.

    python benchmarks/generate.py [--quick]

Prints a table and writes benchmarks/results/generate.json with date and machine. The peer is this same decoder with
torch.nn.functional.scaled_dot_product_attention as its `attend`, so the two differ in attention only.
Rounds alternate between the two and the best round counts, so that other work on the machine disturbs both alike.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.nn.attention import Attend, eager_attend
from minirlhf.records import PromptBatch


def fused_attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """torch's own attention, mask and all."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=q.shape[1] != k.shape[1])


ATTENDS: dict[str, Attend] = {"ours": eager_attend, "torch_sdpa": fused_attend}


def training_step(attend: Attend, batch: int = 12, tokens: int = 64) -> Callable[[], int]:
    """Forward, backward and AdamW on 4 layers, 4 heads, width 128, 261 tokens of vocabulary."""
    model = GPT(GPTConfig(261, context=tokens), torch.Generator().manual_seed(0), attend)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(261, (batch, tokens + 1), generator=torch.Generator().manual_seed(1))

    def step() -> int:
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return batch * tokens

    return step


def generation(attend: Attend, batch: int, context: int, new_tokens: int, padded: bool) -> Callable[[], int]:
    """One call of generate on prompts of 16 tokens, no stop token, vocabulary 1024."""
    model = GPT(GPTConfig(1024, context=context), torch.Generator().manual_seed(0), attend)
    ids = torch.randint(1024, (batch, 16), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids, dtype=torch.bool)
    if padded:
        mask[1:, :4] = False
    prompts = PromptBatch(ids, mask, ("",) * batch)
    sampling = SamplingConfig(max_new_tokens=new_tokens)

    def run() -> int:
        generate(model, prompts, sampling, (), 0, torch.Generator().manual_seed(0))
        return batch * new_tokens

    return run


def tokens_per_second(build: Callable[[Attend], Callable[[], int]], rounds: int) -> dict[str, float]:
    """The best of so many rounds for each way to attend, the ways taking turns."""
    works = {name: build(attend) for name, attend in ATTENDS.items()}
    best = dict.fromkeys(works, 0.0)
    for round_number in range(rounds + 1):  # the first round warms up
        for name, work in works.items():
            start = time.perf_counter()
            tokens = work()
            if round_number:
                best[name] = max(best[name], tokens / (time.perf_counter() - start))
    return best


def main() -> None:
    quick = "--quick" in sys.argv
    rounds, new_tokens = (2, 16) if quick else (5, 112)
    table = {"training_step": tokens_per_second(training_step, 3 if quick else 30)}
    for batch, padded in ((1, False), (32, False), (64, False), (64, True)):
        name = f"generate_batch_{batch}" + ("_padded" if padded else "")

        def build(attend: Attend, batch: int = batch, padded: bool = padded) -> Callable[[], int]:
            return generation(attend, batch, 128, new_tokens, padded)

        table[name] = tokens_per_second(build, rounds)
    print(f"{'tokens per second':<28}" + "".join(f"{name:>14}" for name in ATTENDS))
    for name, row in table.items():
        print(f"{name:<28}" + "".join(f"{value:>14,.0f}" for value in row.values()))
    if not quick:
        results = Path(__file__).parent / "results" / "generate.json"
        results.parent.mkdir(exist_ok=True)
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
        content = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {**machine, "torch": torch.__version__},
            "tokens_per_second": table,
        }
        results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
