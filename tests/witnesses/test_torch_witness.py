"""torch's own layers, losses, optimizers and schedules against ours, in value and gradient. Needs no extra package."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.nn.attention import CausalSelfAttention, eager_attend
from minirlhf.nn.mlp import GeluMLP, SquaredReluMLP, SwiGLU
from minirlhf.nn.norm import LayerNorm, RMSNorm
from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.objectives.cross_entropy import cross_entropy
from minirlhf.objectives.dpo import dpo
from minirlhf.objectives.kl import exact_kl
from minirlhf.objectives.likelihood import token_log_probs
from minirlhf.objectives.masked import masked_whiten
from minirlhf.objectives.plackett_luce import plackett_luce
from minirlhf.objectives.ppo import clipped_value_loss
from minirlhf.reference import optimizers as reference
from minirlhf.trainers.optim import OptimConfig, clip_grad_norm, learning_rate_at
from tests.witnesses.compare import assert_same, randn

seeds = st.integers(0, 2**31)
few = settings(max_examples=25)


@few
@given(seeds, st.sampled_from([1e-3, 1.0, 100.0]), st.booleans())
def test_norms(seed, scale, bias):
    x, weight, shift = scale * randn(seed, 2, 3, 7), randn(seed + 1, 7), randn(seed + 2, 7)
    layer_norm, rms_norm = LayerNorm(7, bias, eps=1e-4).double(), RMSNorm(7, eps=1e-4).double()

    def ours(x, weight, shift):
        values = {"weight": weight, "bias": shift} if bias else {"weight": weight}
        return torch.func.functional_call(layer_norm, values, x)

    def theirs(x, weight, shift):
        return F.layer_norm(x, (7,), weight, shift if bias else None, 1e-4)

    assert_same(ours, theirs, x, weight, shift, rtol=1e-9, atol=1e-10)  # x of size 1e-3: the root is near that of eps
    assert_same(
        lambda x, weight: torch.func.functional_call(rms_norm, {"weight": weight}, x),
        lambda x, weight: F.rms_norm(x, (7,), weight, 1e-4),
        x,
        weight,
        rtol=1e-9,
        atol=1e-10,
    )


@few
@given(seeds)
def test_mlps(seed):
    """Torch's Linear layers around its tanh GELU, or around a ReLU squared; SwiGLU is its glu with SiLU as the gate."""
    gelu, swiglu = GeluMLP(4, 6, bias=True).double(), SwiGLU(4, 6, bias=False).double()
    layers = nn.Sequential(gelu.to_hidden, nn.GELU("tanh"), gelu.to_out)
    x = randn(seed, 2, 3, 4)
    assert_same(gelu, layers, x)
    squared = SquaredReluMLP(4, 6, bias=True).double()
    assert_same(squared, lambda x: squared.to_out(nn.ReLU()(squared.to_hidden(x)) ** 2), x)
    gate, up = swiglu.to_gate_and_up.weight.split(6)
    assert_same(swiglu, lambda x: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), swiglu.to_out.weight), x)


@few
@given(seeds, st.sampled_from([(4, 4), (4, 2), (6, 1)]))
def test_attention_with_is_causal_and_grouped_heads(seed, heads):
    heads, kv_heads = heads
    q, k, v = randn(seed, 2, heads, 5, 4), randn(seed + 1, 2, kv_heads, 5, 4), randn(seed + 2, 2, kv_heads, 5, 4)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    assert_same(
        lambda q, k, v: eager_attend(q, k, v, causal),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads),
        q,
        k,
        v,
    )


@few
@given(seeds)
def test_the_whole_attention_layer_is_multihead_attention(seed):
    """Same stacked projection, same head order; torch's mask says what is hidden, ours what is visible."""
    ours = CausalSelfAttention(8, 2, 2, bias=True).double()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(randn(seed, *parameter.shape))
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.to_qkv.weight,
            "in_proj_bias": ours.to_qkv.bias,
            "out_proj.weight": ours.to_out.weight,
            "out_proj.bias": ours.to_out.bias,
        }
    )
    visible = torch.ones(5, 5, dtype=torch.bool).tril()
    x = randn(seed + 1, 2, 5, 8)
    assert_same(lambda x: ours(x, visible), lambda x: theirs(x, x, x, attn_mask=~visible, need_weights=False)[0], x)


def test_the_whole_decoder_is_a_stack_of_pre_norm_encoder_layers():
    """GPT-2's block is torch's TransformerEncoderLayer with norm_first and the tanh GELU, under a causal mask."""
    config = GPTConfig(11, context=6, layers=2, heads=2, width=8)
    ours = GPT(config, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for place, parameter in enumerate(ours.parameters()):
            parameter.add_(0.3 * randn(place, *parameter.shape))
    layers = []
    for block in ours.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 32, 0.0, lambda x: F.gelu(x, approximate="tanh"), 1e-5, True, True, dtype=torch.float64
        )
        names = {
            "self_attn.in_proj_": block.attention.to_qkv,
            "self_attn.out_proj.": block.attention.to_out,
            "linear1.": block.mlp.to_hidden,
            "linear2.": block.mlp.to_out,
            "norm1.": block.attention_norm,
            "norm2.": block.mlp_norm,
        }
        layer.load_state_dict({name + p: getattr(part, p) for name, part in names.items() for p in ("weight", "bias")})
        layers.append(layer)
    ids = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(1))
    hidden = ~torch.ones(6, 6, dtype=torch.bool).tril()

    def theirs(tokens, places):
        x = F.embedding(ids, tokens) + places
        for layer in layers:
            x = layer(x, src_mask=hidden)
        x = F.layer_norm(x, (8,), ours.final_norm.weight, ours.final_norm.bias, 1e-5)
        return x @ tokens.T

    def by_us(tokens, places):
        changed = {"token_embedding.weight": tokens, "position_embedding.weight": places}
        return torch.func.functional_call(ours, changed, (ids,))

    assert_same(by_us, theirs, ours.token_embedding.weight, ours.position_embedding.weight, rtol=1e-9, atol=1e-10)


@few
@given(seeds, st.sampled_from([0.7, 1.0, 1.6]))
def test_cross_entropy_with_what_does_not_count_left_out(seed, temperature):
    logits = 3 * randn(seed, 2, 5, 7)
    draws = torch.Generator().manual_seed(seed)
    targets, mask = torch.randint(7, (2, 5), generator=draws), torch.rand(2, 5, generator=draws) < 0.6
    mask[0, 0] = True
    labels = targets.masked_fill(~mask, -100)
    assert_same(
        lambda z: cross_entropy(token_log_probs(z, targets, temperature), mask),
        lambda z: F.cross_entropy((z / temperature).flatten(0, 1), labels.flatten(), ignore_index=-100),
        logits,
    )


@few
@given(seeds)
def test_exact_kl_is_kl_div_with_its_arguments_swapped(seed):
    """F.kl_div(input, target) is KL(target || input): the policy is the target."""
    logits, ref_logits = 2 * randn(seed, 3, 6), 2 * randn(seed + 1, 3, 6)
    assert_same(
        exact_kl,
        lambda z, r: F.kl_div(r.log_softmax(-1), z.log_softmax(-1), reduction="none", log_target=True).sum(-1),
        logits,
        ref_logits,
    )


@few
@given(seeds, st.sampled_from([0.0, 0.1, 0.4]))
def test_preference_losses_are_binary_cross_entropies(seed, label_smoothing):
    chosen, rejected = 5 * randn(seed, 4), 5 * randn(seed + 1, 4)
    truth = torch.ones(4, dtype=torch.float64)
    assert_same(bradley_terry, lambda c, r: F.binary_cross_entropy_with_logits(c - r, truth), chosen, rejected)
    references = randn(seed + 2, 4), randn(seed + 3, 4)
    assert_same(
        lambda c, r: dpo(c, r, *references, beta=0.3, label_smoothing=label_smoothing),
        lambda c, r: F.binary_cross_entropy_with_logits(
            0.3 * ((c - references[0]) - (r - references[1])), truth - label_smoothing
        ),
        chosen,
        rejected,
    )


@few
@given(seeds)
def test_plackett_luce_is_a_running_logsumexp_from_the_end(seed):
    scores = 3 * randn(seed, 3, 5)
    assert_same(plackett_luce, lambda s: (s.flip(1).logcumsumexp(1).flip(1) - s).sum(1).mean(), scores)


@few
@given(seeds)
def test_a_value_loss_that_never_clips_is_half_the_mean_squared_error(seed):
    values, returns, mask = randn(seed, 3, 4), randn(seed + 1, 3, 4), torch.arange(4) < torch.tensor([[4], [1], [2]])
    assert_same(
        lambda v: clipped_value_loss(v, randn(seed + 2, 3, 4), returns, mask, clip_range=1e6),
        lambda v: F.mse_loss(v[mask], returns[mask]) / 2,
        values,
    )


@few
@given(seeds)
def test_whitening_is_batch_norm_of_one_channel(seed):
    x, mask = 3 + 2 * randn(seed, 3, 4), torch.arange(4) < torch.tensor([[4], [1], [2]])
    whitened = F.batch_norm(x[mask][:, None], None, None, training=True, eps=1e-8)[:, 0]
    torch.testing.assert_close(masked_whiten(x, mask, shift_mean=True)[mask], whitened, rtol=1e-10, atol=1e-12)


@few
@given(seeds, st.floats(0.01, 10))
def test_clipping_by_the_global_norm(seed, max_norm):
    """torch divides by the norm plus 1e-6, ours by the norm, so its gradients are shorter by norm / (norm + 1e-6)."""
    ours = [randn(seed, 3, 2), randn(seed + 1, 4)]
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in ours]
    for parameter, gradient in zip(parameters, ours, strict=True):
        parameter.grad = gradient.clone()
    their_norm = nn.utils.clip_grad_norm_(parameters, max_norm).item()
    our_norm = clip_grad_norm(ours, max_norm)
    assert our_norm == pytest.approx(their_norm, rel=1e-12)
    shorter = min(1.0, max_norm / (our_norm + 1e-6)) / min(1.0, max_norm / our_norm)
    for parameter, gradient in zip(parameters, ours, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * shorter, rtol=1e-10, atol=1e-14)


def their_steps(make, gradients, start):
    """The weights after each step of one of torch's optimizers."""
    parameter = nn.Parameter(start.clone())
    optimizer = make([parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        yield parameter.detach().clone()


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam"])
def test_the_road_to_adam(name):
    """The steps our reference derives, each against torch.optim's."""
    start, gradients = randn(0, 3, 2), [randn(seed, 3, 2) for seed in range(1, 13)]
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.9, eps=1e-5),
        "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-6),
    }
    weight = start.numpy()
    velocity, second, first = 0 * weight, 0 * weight, 0 * weight
    for step, theirs in enumerate(their_steps(makers[name], gradients, start), start=1):
        gradient = gradients[step - 1].numpy()
        if name == "sgd":
            weight = reference.sgd_step(weight, gradient, 0.1)
        elif name == "momentum":
            weight, velocity = reference.momentum_step(weight, gradient, velocity, 0.1, 0.8)
        elif name == "rmsprop":
            weight, second = reference.rmsprop_step(weight, gradient, second, 0.1, 0.9, 1e-5)
        else:
            weight, first, second = reference.adam_step(weight, gradient, first, second, step, 0.1, (0.8, 0.95), 1e-6)
        torch.testing.assert_close(torch.from_numpy(weight), theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_schedule_is_a_chain_of_torchs(schedule):
    """A linear warm-up, then torch's way down from the peak over the steps that are left."""
    warmup, total, last = 4, 21, 0.1
    config = OptimConfig(learning_rate=2.0, warmup_steps=warmup, final_fraction=last, schedule=schedule)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    down = total - 1 - warmup
    schedulers = torch.optim.lr_scheduler
    rise = schedulers.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
    fall = (
        schedulers.LinearLR(optimizer, 1.0, last, down)
        if schedule == "linear"
        else schedulers.CosineAnnealingLR(optimizer, down, eta_min=2.0 * last)
    )
    chain = schedulers.SequentialLR(optimizer, [rise, fall], milestones=[warmup])
    theirs = []
    for _ in range(total):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        chain.step()
    assert theirs == pytest.approx([learning_rate_at(step, total, config) for step in range(total)], rel=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(theirs[warmup:]))
