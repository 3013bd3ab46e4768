"""The arithmetic of a model by its formula, and as torch counts it."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minirlhf.models.flops import forward_flops, peak_flops_per_second, training_flops
from minirlhf.models.gpt import GPT, GPTConfig

SHAPES = {
    "gpt2": GPTConfig(vocab_size=11, context=12, layers=2, heads=2, width=8),
    "llama": GPTConfig(11, 12, 3, 4, 2, 16, positions="rope", norm="rms", mlp="swiglu", bias=False, qk_norm=True),
    "relu2": GPTConfig(11, 12, 1, 2, width=8, mlp_width=5, mlp="relu2", tie_embeddings=False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_formula_counts_what_torch_counts(name):
    config = SHAPES[name]
    model, ids = GPT(config), torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counted:
        logits = model(ids)
    assert counted.get_total_flops() == forward_flops(config, [9] * 3)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model.logits(model.hidden(ids)[0][:, -2:])
    assert counted.get_total_flops() == forward_flops(config, [9] * 3, predicted=6)
    with FlopCounterMode(display=False) as counted:
        logits.sum().backward()
    assert counted.get_total_flops() == 2 * forward_flops(config, [9] * 3)


def test_training_is_the_papers_formula():
    """6 N + 12 L D T a token: GPT-2 small, whose N without the table of positions, norms and biases is known."""
    config = GPTConfig(vocab_size=50257, context=1024, layers=12, heads=12, width=768)
    weights = 12 * 12 * 768**2 + 50257 * 768
    assert training_flops(config, [1024] * 2) == 2048 * (6 * weights + 12 * 12 * 768 * 1024)


def test_rows_of_unequal_length_are_counted_one_by_one():
    config = replace(SHAPES["gpt2"], context=64)
    assert forward_flops(config, [5, 9]) == forward_flops(config, [5]) + forward_flops(config, [9])
    assert forward_flops(config, iter([5, 9]), 0) + 2 * 11 * 8 * 14 == forward_flops(config, [5, 9])


@pytest.mark.parametrize(
    ("name", "bfloat16"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", None),  # another chip under the same name, slower
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", None),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("", None),
    ],
)
def test_a_gpu_is_known_by_its_name(name, bfloat16):
    assert peak_flops_per_second(name, "bfloat16") == bfloat16
    in_float32 = peak_flops_per_second(name, "float32")
    assert in_float32 is None if bfloat16 is None else 0 < in_float32 < bfloat16
