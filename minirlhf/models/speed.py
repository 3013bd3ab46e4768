"""How a model computes, which changes no result but for rounding: the way to attend, precision, and compilation."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from minirlhf.errors import UserError
from minirlhf.models.decoding_graph import replaying
from minirlhf.models.gpt import GPT, Block, read_tokens
from minirlhf.nn.attention import Attend, CausalSelfAttention, eager_attend
from minirlhf.nn.lean_attention import lean_attend

AttendName = Literal["lean", "eager", "fused"]
PrecisionName = Literal["float32", "bfloat16"]


def find_attend(name: AttendName) -> Attend:
    """The function of this name: "eager" is the definition, "lean" the same in fewer passes, "fused" a Triton kernel.

    Raises UserError for "fused" where Triton is not installed or has nothing to run on.
    """
    if name == "fused":
        from minirlhf.nn.fused_attention import fused_attend, interpreted, kernels

        kernels()  # complains here, not in the middle of the first step
        if not torch.cuda.is_available() and not interpreted():
            raise UserError(
                "fused attention runs on a GPU",
                found="no CUDA device",
                fix="--attend lean; or, to try the kernel slowly on a CPU, start Python with TRITON_INTERPRET=1",
            )
        return fused_attend
    return {"eager": eager_attend, "lean": lean_attend}[name]


def set_attend(model: nn.Module, attend: Attend) -> None:
    """Every attention layer of the model computes in this way from now on."""
    for module in model.modules():
        if isinstance(module, CausalSelfAttention):
            module.attend = attend


def set_precision(model: nn.Module, name: PrecisionName) -> None:
    """Every decoder in the model multiplies its matrices in this precision from now on.

    The weights, their gradients and the optimizer stay float32, and so do norms, softmax and log-probs, so a loss needs
    no scaling: bfloat16 reaches as far as float32, with 8 bits for a number's digits instead of 24. Micikevicius et al.
    2018, arXiv:1710.03740; Kalamkar et al. 2019, arXiv:1905.12322.
    """
    for module in model.modules():
        if isinstance(module, GPT):
            module.precision = None if name == "float32" else torch.bfloat16


def compile_blocks(model: nn.Module) -> None:
    """Each transformer block becomes compiled code, made when it is first used; all blocks share it.

    A block is most of a model and the same in every layer, so it compiles in seconds. A second shape of batch compiles
    once more, for all shapes: lengths that vary cost nothing further. The definition of attention is compiled with it,
    since a compiler fuses it better than lean_attention's loop.
    """
    for module in model.modules():
        if isinstance(module, CausalSelfAttention) and module.attend is lean_attend:
            module.attend = eager_attend
        if isinstance(module, Block):
            module.compile()


def compile_decoding(model: GPT) -> None:
    """Reading one more token, through all layers, becomes one piece, made when the first answer is written.

    On a GPU it is a CUDA graph. Elsewhere it is compiled code: one piece serves every length of the cache and every
    number of rows above FEW_ROWS, which `generate` therefore keeps; a single row, few rows, and padding before the
    prompts make another each.
    """
    if model.causal.is_cuda:
        model.read_one = replaying()
        return
    # From one kernel to the next it goes in C++: from Python that takes a seventh of a small model's step.
    compiled = torch.compile(read_tokens, dynamic=True, fullgraph=True, options={"cpp_wrapper": True})

    def read_one(*arguments: Any) -> Any:
        with torch.compiler.set_stance("default"):  # whoever writes has asked for `uncompiled`, for the prompt's sake
            return compiled(*arguments)

    model.read_one = read_one if has_compiled_blocks(model) else compiled


def decoding_compiled(model: GPT) -> bool:
    """Is decoding compiled?"""
    return model.read_one is not read_tokens


def has_compiled_blocks(model: nn.Module) -> bool:
    """Has compile_blocks been here?"""
    return any(getattr(module, "_compiled_call_impl", None) for module in model.modules())


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Compiled blocks run as they are written inside: decoding changes its shapes with every token."""
    if not has_compiled_blocks(model):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed for the next tensor; True if it could be asked (glibc only).

    Left alone, glibc hands large tensors back to the system at once, and the next step gets every page of them anew,
    filled with zeros: a tenth of a step of a middling model on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30)) and bool(mallopt(trim_threshold, (1 << 31) - 1))
