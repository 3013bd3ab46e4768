"""The arithmetic that a decoder asks for, and the share of a processor that it gets to use (MFU).

Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, appendix B: training costs 6 N + 12 L D T floating-point operations a
token, for N weights in matrix products, L layers of width D and T tokens in a row. 2 N are forward: a weight multiplies
and adds once. So are 4 L D T: queries meet keys, weights meet values, T of each. Backward is twice that, one product
for the gradient of either factor. What a kernel leaves out (the hidden half of attention) or reckons again counts as
the model asks for it, so that a better kernel raises the figure.

Letters: L layers, D width, T tokens in a row, V vocabulary.
"""

import re
from collections.abc import Iterable

from minirlhf.models.gpt import GPTConfig

# Operations a second at most says NVIDIA's data sheet, by a GPU's name: in bfloat16 (dense), in float32 (no TF32).
PEAKS = {
    r"\bH[12]00\b(?!.*(PCIe|NVL))": (989e12, 67e12),
    r"\bA100\b": (312e12, 19.5e12),
    r"\bL4$": (121e12, 30e12),
    r"\bRTX 4090$": (165e12, 82.6e12),
}


def forward_flops(config: GPTConfig, lengths: Iterable[int], predicted: int | None = None) -> float:
    """Floating-point operations of one pass over sequences of these lengths, padding not counted.

    predicted: for how many of the tokens the logits of the whole vocabulary are wanted; all when None.
    """
    lengths = list(lengths)
    tokens, width = sum(lengths), config.width
    queries_keys_values_out = 2 * width + 2 * config.key_value_heads * config.head_width
    mlp = (3 if config.mlp == "swiglu" else 2) * config.hidden_width
    weights = config.layers * width * (queries_keys_values_out + mlp)  # of the blocks' matrices
    attention = 4.0 * config.layers * width * sum(length * length for length in lengths)
    predicted = tokens if predicted is None else predicted
    return 2.0 * weights * tokens + attention + 2.0 * config.vocab_size * width * predicted


def training_flops(config: GPTConfig, lengths: Iterable[int], predicted: int | None = None) -> float:
    """The same forward and backward: three times forward_flops."""
    return 3 * forward_flops(config, lengths, predicted)


def peak_flops_per_second(device_name: str, precision: str) -> float | None:
    """What a GPU could do at most in "bfloat16" or "float32", as its maker says; None where PEAKS does not know it."""
    for pattern, (bfloat16, float32) in PEAKS.items():
        if re.search(pattern, device_name):
            return bfloat16 if precision == "bfloat16" else float32
    return None
