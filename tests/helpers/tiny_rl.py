"""A world small enough to check by hand: byte tokens, float64 networks of width 8, prompts of unequal length."""

import copy
import hashlib

import torch
from torch import nn

from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import RewardModel, ValueModel
from minirlhf.records import Experience, Generation, PromptBatch, Rollout
from minirlhf.rollout.collect import collect
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.tokenizers.tokenizer import byte_tokenizer
from minirlhf.trainers.optim import OptimConfig

TOKENIZER = byte_tokenizer()
CONSTANT = OptimConfig(learning_rate=1e-2, eps=1e-5, weight_decay=0.0, warmup_steps=0, schedule="constant")


def tiny_gpt(seed: int = 0, dropout: float = 0.0, end_logit: float = 2.8, layers: int = 1, width: int = 8) -> GPT:
    """A float64 GPT with lively logits that ends an answer after a few tokens (the larger end_logit, the sooner)."""
    config = GPTConfig(
        TOKENIZER.vocab_size,
        24,
        layers,
        heads=2,
        width=width,
        dropout=dropout,
        tie_embeddings=False,
        positions="learned",
    )
    model = GPT(config, torch.Generator().manual_seed(seed)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
        model.final_norm.bias[0] = 1.0
        model.unembedding.weight[TOKENIZER.end_id] = 0.0
        model.unembedding.weight[TOKENIZER.end_id, 0] = end_logit
    return model


def nudged(model: nn.Module, seed: int = 0, size: float = 0.1) -> nn.Module:
    """A copy whose every parameter has moved a little, so that no two numbers agree by accident."""
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return moved


def tiny_value_model(seed: int = 3) -> ValueModel:
    return nudged(ValueModel.from_trunk(tiny_gpt(seed)), seed).eval()


def tiny_reward_model(seed: int = 5) -> RewardModel:
    return nudged(RewardModel.from_trunk(tiny_gpt(seed)), seed).eval()


def prompt_batch(texts=("a", "bcd", "ef", "ghij", "k", "lm")) -> PromptBatch:
    """Left-padded byte prompts."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), TOKENIZER.pad_id)
    for row, text in enumerate(texts):
        ids[row, longest - len(text) :] = torch.tensor(TOKENIZER.encode(text))
    return PromptBatch(ids, ids != TOKENIZER.pad_id, tuple(texts))


def count_e(prompts, responses):
    """A rule anyone can learn: which share of the answer is the letter e."""
    return [response.count("e") / max(1, len(response)) for response in responses]


def length_score(prompts, responses):
    return [0.1 * len(response) + 0.01 * len(prompt) for prompt, response in zip(prompts, responses, strict=True)]


def tiny_rollout(
    policy=None, value_model=None, reference=None, temperature=1.0, max_new_tokens=6, seed=0, **options
) -> Rollout:
    policy = policy or tiny_gpt()
    return collect(
        policy,
        value_model,
        reference or nudged(policy, 1),
        options.pop("scorer", reward_fn_scorer(length_score)),
        options.pop("prompts", prompt_batch()),
        TOKENIZER,
        SamplingConfig(max_new_tokens, temperature),
        options.pop("generator", None) or torch.Generator().manual_seed(seed),
        **options,
    )


def tiny_generation(policy=None, max_new_tokens=6, seed=0) -> Generation:
    sampling = SamplingConfig(max_new_tokens)
    generator = torch.Generator().manual_seed(seed)
    return generate(policy or tiny_gpt(), prompt_batch(), sampling, (TOKENIZER.end_id,), TOKENIZER.pad_id, generator)


def widened(record, left: int, right: int, junk_ids: torch.Tensor, junk: float):
    """A Rollout or Experience with more padding columns, planted with junk: what is masked must not matter."""
    rows, response_tokens = record.response_mask.shape

    def pad(array, before, after, fill):
        shape = (rows, before), (rows, after)
        return torch.cat([array.new_full(shape[0], fill), array, array.new_full(shape[1], fill)], dim=1)

    fields = dict(vars(record))
    fields["ids"] = pad(record.ids, left, right, 0)
    fields["attention_mask"] = pad(record.attention_mask, left, right, False)
    hidden = ~fields["attention_mask"]
    fields["ids"] = torch.where(hidden, junk_ids[: hidden.numel()].reshape(hidden.shape), fields["ids"])
    fields["response_mask"] = pad(record.response_mask, 0, right, False)
    for name, array in vars(record).items():
        if isinstance(array, torch.Tensor) and array.is_floating_point() and array.shape == (rows, response_tokens):
            fields[name] = pad(array, 0, right, junk).masked_fill(~fields["response_mask"], junk)
    return type(record)(**fields)


def junk_ids(seed: int = 0, n: int = 400) -> torch.Tensor:
    return torch.randint(TOKENIZER.vocab_size, (n,), generator=torch.Generator().manual_seed(seed))


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def zero_gradients(*models: nn.Module) -> None:
    for model in models:
        model.zero_grad(set_to_none=True)


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float = 1e-12) -> None:
    assert first.keys() == second.keys()
    assert first
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-10, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def experience_of(rollout: Rollout, seed: int = 0) -> Experience:
    """An Experience over a rollout with advantages and returns of our own choosing."""
    generator = torch.Generator().manual_seed(seed)
    advantages, returns = torch.randn((2, *rollout.response_mask.shape), generator=generator, dtype=torch.float64)
    mask = rollout.response_mask
    return Experience(
        rollout.ids,
        rollout.attention_mask,
        mask,
        rollout.old_log_probs,
        rollout.values,
        advantages * mask,
        returns * mask,
    )
