"""--precision bfloat16: matrix products of numbers of eight bits; what is summed up stays float32."""

import copy
from dataclasses import replace

import pytest
import torch

from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import RewardModel, ValueModel
from minirlhf.models.speed import compile_blocks, find_attend, set_attend, set_precision
from minirlhf.nn.mlp import gelu
from minirlhf.nn.norm import LayerNorm, RMSNorm
from minirlhf.objectives.likelihood import chunked_cross_entropy, sequence_cross_entropy, sequence_log_probs
from minirlhf.parallel.ranks import ALONE
from minirlhf.records import PromptBatch, TokenBatch
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.trainers.optim import AdamW, OptimConfig
from minirlhf.trainers.ppo import PPOConfig, actor_critic, train_ppo
from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain
from tests.helpers.tiny_rl import TOKENIZER, length_score, prompt_batch

ROUNDING = 2.0**-8  # of one number in bfloat16, at most: 8 bits, the first of which is always 1
SHAPES = {
    "gpt2": GPTConfig(vocab_size=61, context=32, layers=2, heads=4, width=64),
    "qwen": GPTConfig(
        61, 32, 2, 4, width=64, positions="rope", norm="rms", mlp="swiglu", bias=False, qk_norm=True,
        tie_embeddings=False,
    ),
    "relu2": GPTConfig(61, 32, 2, 4, 2, 64, norm="rms", mlp="relu2"),
}  # fmt: skip


def batch(config, rows=4):
    ids = torch.randint(config.vocab_size, (rows, config.context + 1), generator=torch.Generator().manual_seed(2))
    return ids, torch.rand(rows, config.context, generator=torch.Generator().manual_seed(3)) < 0.8


def apart(found, wanted):
    """How far two tensors lie apart, as a share of the second's length."""
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def by_waist(model, ids, mask):
    return -(sequence_log_probs(model, ids) * mask).sum()


@pytest.mark.parametrize("loss", [sequence_cross_entropy, by_waist])
@pytest.mark.parametrize("attend", ["eager", "lean"])
@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradients_are_those_of_float32_up_to_rounding(name, attend, loss):
    model = GPT(SHAPES[name], torch.Generator().manual_seed(1), find_attend(attend))
    half = copy.deepcopy(model)
    set_precision(half, "bfloat16")
    ids, mask = batch(SHAPES[name])
    wanted, found = loss(model, ids, mask), loss(half, ids, mask)
    assert found.dtype == torch.float32
    assert 0 < abs(found.item() - wanted.item()) < 1e-3 * wanted.item()  # roundings of many tokens cancel
    wanted.backward()
    found.backward()
    for (parameter, ours), theirs in zip(half.named_parameters(), model.parameters(), strict=True):
        assert ours.dtype == ours.grad.dtype == torch.float32
        assert apart(ours.grad, theirs.grad) < 6 * ROUNDING, parameter  # a dozen products in a row


def test_precision_is_told_to_every_decoder_and_can_be_taken_back():
    trunk = GPT(SHAPES["gpt2"])
    for model in (trunk, ValueModel.from_trunk(trunk), RewardModel.from_trunk(trunk)):
        set_precision(model, "bfloat16")
        decoder = model if model is trunk else model.trunk
        assert decoder.precision == copy.deepcopy(decoder).precision == torch.bfloat16
        ids, _ = batch(trunk.config)
        assert model(ids[:, :-1]).dtype == (torch.bfloat16 if model is trunk else torch.float32)
        set_precision(model, "float32")
        assert decoder.precision is None


def test_the_residual_stream_stays_float32():
    model, kinds = GPT(SHAPES["qwen"]), set()
    set_precision(model, "bfloat16")
    for module in model.modules():
        if isinstance(module, RMSNorm | torch.nn.Identity):
            module.register_forward_hook(lambda module, given, made: kinds.add((type(module).__name__, made.dtype)))
    x, _ = model.hidden(batch(model.config)[0][:, :-1])
    assert x.dtype == torch.float32
    assert ("RMSNorm", torch.float32) in kinds and ("RMSNorm", torch.bfloat16) not in kinds


@pytest.mark.parametrize("norm", [LayerNorm(64), RMSNorm(64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_not_rounded_by_autocast(norm, dtype):
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    mine, theirs = x.clone().requires_grad_(), x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(mine)
        with torch.no_grad():
            assert torch.equal(norm(x), found)
    wanted = norm(theirs)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad.to(dtype), rtol=0, atol=0)


def test_the_slope_of_gelu_is_rounded_once():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0)).bfloat16()
    mine, theirs = x.clone().requires_grad_(), x.float().requires_grad_()
    gelu(mine).sum().backward()
    gelu(theirs).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad.bfloat16(), rtol=0, atol=0)


def test_chunks_sum_the_weight_gradient_in_float32():
    """Added up in bfloat16, a thousand parts of one size would stop growing at 256."""
    x, weight = torch.ones(1024, 1, dtype=torch.bfloat16), torch.zeros(2, 1, requires_grad=True)
    chunked_cross_entropy(x, weight, torch.zeros(1024, dtype=torch.int64), chunk=1).backward()
    assert weight.grad.dtype == torch.float32
    assert weight.grad.flatten().tolist() == [-512.0, 512.0]


def test_a_model_of_bfloat16_weights_still_computes():
    for config in SHAPES.values():
        model = GPT(config, attend=find_attend("lean")).bfloat16()
        model(batch(config)[0][:, :-1]).float().sum().backward()
        assert all(p.grad.dtype == torch.bfloat16 for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("attend", ["eager", "lean"])
def test_decoding_has_the_precision_of_the_model(attend):
    model = GPT(SHAPES["qwen"], torch.Generator().manual_seed(1), find_attend(attend)).eval()
    set_precision(model, "bfloat16")
    assert model.empty_cache(1).keys[0].dtype == torch.bfloat16
    ids, _ = batch(model.config, rows=3)
    prompts = PromptBatch(ids[:, :4], torch.ones(3, 4, dtype=torch.bool), ("",) * 3)
    made = generate(model, prompts, SamplingConfig(12), (), 0, torch.Generator().manual_seed(4))
    assert made.log_probs.dtype == torch.float32
    with torch.no_grad():
        again = sequence_log_probs(model, made.ids)[:, -12:]
    assert (again - made.log_probs).abs().max() < 2 * ROUNDING * model(made.ids).abs().max()


def test_a_compiled_model_keeps_its_precision():
    model = GPT(SHAPES["qwen"], torch.Generator().manual_seed(1))
    set_precision(model, "bfloat16")
    compiled = copy.deepcopy(model)
    compile_blocks(compiled)
    ids, mask = batch(model.config)
    losses = [sequence_cross_entropy(each, ids, mask) for each in (model, compiled)]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)
    for loss in losses:
        loss.backward()
    for ours, theirs in zip(compiled.parameters(), model.parameters(), strict=True):
        assert apart(ours.grad, theirs.grad) < 6 * ROUNDING


def test_pretraining_learns_as_in_float32():
    def last_losses(precision):
        config = SHAPES["qwen"]
        model = GPT(config, torch.Generator().manual_seed(1), find_attend("lean"))
        set_precision(model, precision)
        optim = OptimConfig(learning_rate=3e-3, warmup_steps=5)
        ids = torch.arange(config.context + 1).repeat(8, 1) + torch.arange(8)[:, None] * 5  # count upwards
        made = [TokenBatch(ids % config.vocab_size, torch.ones(8, config.context, dtype=torch.bool))]
        steps = PretrainConfig(steps=40, batch_size=8, optim=optim)
        reports = list(train_pretrain(model, lambda step: made, AdamW(model.named_parameters(), optim), steps))
        assert all(p.dtype == torch.float32 for p in model.parameters())
        return reports[0].metrics["loss_nats_per_token"], reports[-1].metrics["loss_nats_per_token"]

    (first, wanted), (first_half, found) = last_losses("float32"), last_losses("bfloat16")
    assert first == pytest.approx(first_half, abs=0.01) and first > 3.5
    assert wanted < 0.5 and found < wanted + 0.05


def test_the_first_ratio_of_ppo_is_one_up_to_the_rounding_of_logits():
    """Rollout and update multiply in the same precision, so they differ as two orders of summation do, no more."""
    policy = GPT(GPTConfig(TOKENIZER.vocab_size, 24, 2, 2, width=32), torch.Generator().manual_seed(1))
    for parameter in policy.parameters():
        parameter.data.mul_(3)  # logits of the size that a trained model has
    reference, value_model = copy.deepcopy(policy), ValueModel.from_trunk(policy)
    for model in (policy, reference, value_model):
        set_attend(model, find_attend("lean"))
        set_precision(model, "bfloat16")
    config = PPOConfig(steps=1, batch_size=6, epochs=1, minibatches=1, max_new_tokens=12, missing_end_penalty=None)
    (report,) = train_ppo(
        policy,
        value_model,
        reference,
        reward_fn_scorer(length_score),
        lambda step: prompt_batch(),
        TOKENIZER,
        AdamW(actor_critic(policy, value_model).named_parameters(), replace(config.optim, learning_rate=0.0)),
        config,
        0,
        world=ALONE,
    )
    largest = policy(prompt_batch().ids).abs().max().item()
    assert largest > 1
    assert abs(report.metrics["first_ratio_max"] - 1) < 2 * ROUNDING * largest
    assert report.metrics["kl_exact_probe_nats_per_token"] == 0.0  # policy and reference are one function
