"""What `ppo` and `reinforce` share: prompts, the policy and its frozen reference, and who gives the score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from minirlhf.data.batches import batch_indices, prompt_batch
from minirlhf.data.formats import read_prompts
from minirlhf.data.shipped import shipped_path
from minirlhf.data.tokenize import drop_long_prompts
from minirlhf.errors import UserError
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.checkpoint import load_model
from minirlhf.models.gpt import GPT
from minirlhf.models.heads import RewardModel
from minirlhf.models.speed import compile_decoding
from minirlhf.records import Prompt, PromptBatch
from minirlhf.rollout.scoring import (
    Scorer,
    call_reward_function,
    load_reward_function,
    reward_fn_scorer,
    reward_model_scorer,
)
from minirlhf.runs.run import Run, RunOptions
from minirlhf.seeding import derive_seed
from minirlhf.stages.common import DataOptions, fingerprint, load_gpt, pick, restore_model, say
from minirlhf.stages.probes import PROBES, fitting, probe_rows, prompts_to
from minirlhf.tokenizers.tokenizer import Tokenizer

TRIAL_PROMPTS = 4  # a reward function is tried on so many before the run folder is made
SHOW = ("score_mean", "true_reward_mean", "kl_nats_per_response", "tokens_per_second")


@dataclass(frozen=True)
class PolicyOptions:
    """What to improve, and by whose judgement."""

    model: Path  # the model to improve, made by sft; it is also the reference the KL is measured from
    reward: str  # who gives the score: module:function, or the folder of a reward model
    true_reward: str | None = None
    """module:function that is only logged, to see whether the score can be trusted. For the shipped prompts: the
    village's own."""
    source: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True)
class PolicySetup:
    """Everything the two trainers take, ready to use."""

    policy: GPT
    reference: GPT
    tokenizer: Tokenizer
    scorer: Scorer
    reward_model: RewardModel | None
    true_reward: Scorer | None
    prompts_at: Callable[[int], PromptBatch]
    probes: Sequence[Prompt]
    device: torch.device
    settings: dict[str, Any]

    def sample(self, policy: GPT, seed: int, sampling: SamplingConfig) -> list[dict[str, Any]]:
        """The probe prompts answered by the policy as it is now."""
        return probe_rows(policy, self.tokenizer, self.probes, seed, sampling)


def prepare(run: RunOptions, options: PolicyOptions, sampling: SamplingConfig, batch_size: int) -> PolicySetup:
    """Reads everything and checks that it fits together. Raises UserError if it does not; writes nothing."""
    device = pick(run.device)
    policy, tokenizer = load_gpt(options.model, device)
    reference, _ = load_gpt(options.model, device)
    scorer, reward_model = find_scorer(options.reward, tokenizer, device)
    context = policy.config.context
    if reward_model is not None:
        context = min(context, reward_model.trunk.config.context)
    if sampling.max_new_tokens >= context:
        raise UserError(
            "the answers fill the whole context, so no prompt fits before them",
            found=f"answers of up to {sampling.max_new_tokens} tokens in a context of {context}",
            fix=f"for instance --max-new-tokens {context // 2}",
        )
    paths = options.source.paths("prompts_train.jsonl")
    prompts, _ = read_prompts(paths, **options.source.reading())
    prompts, report = drop_long_prompts(prompts, tokenizer, context - sampling.max_new_tokens)
    say("prompts", report)
    order_seed = derive_seed(run.seed, "prompt order")

    def prompts_at(step: int) -> PromptBatch:
        chosen = [prompts[i] for i in batch_indices(len(prompts), batch_size, order_seed, step)]
        return prompts_to(device, prompt_batch(chosen, tokenizer, context - sampling.max_new_tokens))

    named = options.true_reward
    if named is None and not options.source.data:
        named = "minirlhf.data.true_reward:true_reward"
    true_reward = None if named is None else reward_fn_scorer(load_reward_function(named), named)
    first = prompts_at(0).texts[:TRIAL_PROMPTS]
    for name in (named, options.reward if reward_model is None else None):
        if name is not None:  # whatever it says of texts that are no answers, it must be able to say it
            call_reward_function(load_reward_function(name), name, first, first)
    models = [options.model] + ([Path(options.reward)] if reward_model is not None else [])
    settings = {"data": fingerprint(paths, models), "gpt": policy.config}
    held_out = () if options.source.data else read_prompts(shipped_path("prompts_held_out.jsonl"))[0]
    probes = fitting(held_out or prompts, policy, tokenizer, sampling.max_new_tokens)
    probes = probes[:: max(1, len(probes) // PROBES)][:PROBES]  # spread over the file
    return PolicySetup(
        policy, reference, tokenizer, scorer, reward_model, true_reward, prompts_at, probes, device, settings
    )


def restore_policy(run: Run, fresh: GPT) -> GPT:
    """restore_model for a model that writes all through its training: with --compile, decoding is compiled too."""
    policy = restore_model(run, fresh)
    if run.options.compile and not run.world.sharded:  # a sharded one is put together anew for every rollout
        compile_decoding(policy)
    return policy


def names_function(reward: str) -> bool:
    """Does a --reward flag mean module:function, and not a folder?"""
    return not Path(reward).exists() and ":" in reward


def find_scorer(name: str, tokenizer: Tokenizer, device: torch.device) -> tuple[Scorer, RewardModel | None]:
    """The scorer a --reward flag means, and the reward model if it is one.

    Raises UserError if the folder holds another model, or one that reads other tokens than the policy writes.
    """
    if names_function(name):
        return reward_fn_scorer(load_reward_function(name), name), None
    model, reward_tokenizer = load_model(Path(name))
    if not isinstance(model, RewardModel):
        raise UserError(
            "--reward names a model that gives no scores",
            where=name,
            found=type(model).__name__,
            expected="a folder made by `minirlhf reward`, or module:function",
        )
    if reward_tokenizer != tokenizer:
        raise UserError(
            "the reward model reads other tokens than the policy writes",
            where=name,
            found=f"a tokenizer of {reward_tokenizer.vocab_size} ids",
            expected=f"the policy's tokenizer, of {tokenizer.vocab_size} ids",
            fix="train the reward model from the same model that the policy starts from",
        )
    return reward_model_scorer(model.to(device).eval()), model
