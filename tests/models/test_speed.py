"""What changes how a model computes changes no result."""

import copy
import sys

import pytest
import torch

from minirlhf.errors import UserError
from minirlhf.generation.generate import generate, write_one
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.speed import compile_blocks, compile_decoding, find_attend, keep_freed_memory, set_attend
from minirlhf.nn.attention import eager_attend
from minirlhf.nn.fused_attention import kernels
from minirlhf.nn.lean_attention import lean_attend
from minirlhf.nn.linear import FEW_ROWS
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.objectives.likelihood import sequence_cross_entropy, sequence_log_probs
from minirlhf.records import PromptBatch

SHAPES = {
    "gpt2": GPTConfig(vocab_size=11, context=12, layers=2, heads=2, width=8),
    "llama": GPTConfig(11, 12, 2, 2, 1, 8, positions="rope", norm="rms", mlp="swiglu", bias=False),
}


def losses_and_gradients(model, batches):
    result = []
    for ids, mask in batches:
        model.zero_grad()
        log_probs = sequence_log_probs(model, ids, mask)
        (log_probs * log_probs.detach()).sum().backward()
        result.append((log_probs.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    return result


def batches():
    """Of three shapes, with padding and without."""
    generator = torch.Generator().manual_seed(0)
    for rows, tokens in ((2, 8), (3, 6), (4, 11)):
        ids = torch.randint(11, (rows, tokens), generator=generator)
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[0, :2] = False
        yield ids, None
        yield ids, mask


@pytest.mark.parametrize("name", SHAPES)
def test_compiled_blocks_equal_the_definition_over_many_shapes(name):
    model = GPT(SHAPES[name], torch.Generator().manual_seed(1), lean_attend)
    compiled = copy.deepcopy(model)
    set_attend(model, eager_attend)
    compile_blocks(compiled)
    assert compiled.blocks[0].attention.attend is eager_attend
    counters = torch._dynamo.utils.counters
    counters.clear()
    for (wanted, gradients), (out, ours) in zip(
        losses_and_gradients(model, batches()), losses_and_gradients(compiled, batches()), strict=True
    ):
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(ours[parameter], gradient, rtol=1e-3, atol=1e-5, msg=parameter)
    assert not counters["graph_break"], f"the block falls apart: {dict(counters['graph_break'])}"
    assert counters["stats"]["unique_graphs"] <= 6, "compiled again for every shape"


def test_a_compiled_model_writes_what_it_wrote_before():
    model = GPT(SHAPES["llama"], torch.Generator().manual_seed(1))
    compiled = copy.deepcopy(model)
    compile_blocks(compiled)
    ids = torch.randint(11, (2, 3), generator=torch.Generator().manual_seed(2))
    prompts = PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), ("", ""))
    torch._dynamo.utils.counters.clear()
    answers = [
        generate(each, prompts, SamplingConfig(6), (), 0, torch.Generator().manual_seed(3)).ids
        for each in (model, compiled)
    ]
    assert torch.equal(*answers)
    assert not torch._dynamo.utils.counters["stats"], "decoding was compiled, for every length anew"


def test_a_copy_of_a_compiled_model_can_be_made_and_saved():
    compiled = GPT(SHAPES["gpt2"])
    compile_blocks(compiled)
    twin = copy.deepcopy(compiled)
    assert twin.state_dict().keys() == GPT(SHAPES["gpt2"]).state_dict().keys()


def test_every_way_to_attend_has_a_name():
    assert find_attend("lean") is lean_attend and find_attend("eager") is eager_attend


def test_the_kernel_is_refused_where_nothing_can_run_it(monkeypatch):
    pytest.importorskip("triton")
    kernels()  # what is imported without the interpreter stays so
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="runs on a GPU"):
        find_attend("fused")


def test_a_model_with_the_kernel_equals_the_definition():
    pytest.importorskip("triton")
    model = GPT(SHAPES["llama"], torch.Generator().manual_seed(1))
    fused = copy.deepcopy(model)
    set_attend(fused, find_attend("fused"))
    ids = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 8, dtype=torch.bool)
    for each in (model, fused):
        each.zero_grad()
        sequence_cross_entropy(each, ids, mask).backward()
    for one, other in zip(fused.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
    padded = torch.ones(2, 9, dtype=torch.bool)
    padded[0, :3] = False
    with torch.no_grad():
        torch.testing.assert_close(
            sequence_log_probs(fused, ids, padded)[:, 3:], sequence_log_probs(model, ids, padded)[:, 3:]
        )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_the_c_library_can_be_asked_to_keep_memory():
    assert keep_freed_memory() in (True, False)


@pytest.mark.parametrize("padded", [False, True])
def test_compiled_decoding_writes_what_it_wrote_before(padded):
    """One graph for every length, and the rows that have ended stay until few rows would ask for another."""
    model = GPT(SHAPES["llama"], torch.Generator().manual_seed(1), lean_attend)
    compiled = copy.deepcopy(model)
    compile_blocks(compiled)
    compile_decoding(compiled)
    ids = torch.randint(11, (FEW_ROWS + 4, 3), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :2] = not padded
    prompts = PromptBatch(ids, mask, ("",) * len(ids))
    torch._dynamo.utils.counters.clear()
    one, other = (
        generate(each, prompts, SamplingConfig(8), (3,), 0, torch.Generator().manual_seed(3))
        for each in (model, compiled)
    )
    assert torch.equal(one.ids, other.ids) and not one.response_mask.all()
    torch.testing.assert_close(other.log_probs, one.log_probs, rtol=1e-4, atol=1e-5)  # fused: other roundings
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 2, (
        "compiled again for every length"
    )  # the first may take two equal sizes for one


def test_compiled_decoding_refuses_logits_that_are_not_finite():
    """Compiled code cannot stop by itself: whoever called it looks at the log-prob."""
    model = GPT(SHAPES["llama"], torch.Generator().manual_seed(1), lean_attend)
    compile_decoding(model)
    ids = torch.zeros(1, 3, dtype=torch.int64)
    prompts = PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool), ("",))
    assert (
        generate(model, prompts, SamplingConfig(2), (), 0, torch.Generator().manual_seed(3)).log_probs.isfinite().all()
    )
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    cache = model.empty_cache(1, 8)
    uniforms = torch.full((1,), 0.5, dtype=torch.float64)
    with torch.inference_mode(), pytest.raises(NonFiniteError, match="logits are not finite"):
        write_one(model, ids[:, :1], None, cache, (), SamplingConfig(2), uniforms)
