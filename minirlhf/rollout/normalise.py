"""Bringing a reward model's scores to a known scale before PPO: mean 0, std 1 on the reference policy's own answers.

Huang et al. 2023, "The N Implementation Details of RLHF with PPO": gain and bias from reference samples. Then one
KL coefficient, one clip range for values and one missing-end penalty mean the same for every reward model.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.models.heads import RewardModel
from minirlhf.records import PromptBatch
from minirlhf.rollout.collect import check_plain_sampling, cut_at_stop
from minirlhf.tokenizers.tokenizer import Tokenizer


@torch.no_grad()
def normalise_reward_model(
    reward_model: RewardModel,
    reference: GPT,
    prompts: Iterable[PromptBatch],
    tokenizer: Tokenizer,
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Set the reward model's gain and shift from the reference's answers to these prompts; returns their scores [n].

    Answers are drawn and cut as in a rollout. Only the two numbers change, so the order of any two answers stays.
    """
    check_plain_sampling(sampling)
    reward_model.eval()
    scores = []
    for batch in prompts:
        generation = generate(reference, batch, sampling, (tokenizer.end_id,), tokenizer.pad_id, generator)
        generation = cut_at_stop(generation, (tokenizer.end_id,), tokenizer.pad_id)
        scores.append(reward_model(generation.ids, generation.attention_mask))
    before = torch.cat(scores)
    old_gain, old_shift = reward_model.gain.clone(), reward_model.bias_shift.clone()
    reward_model.normalise(before)
    return (before - old_shift) / old_gain * reward_model.gain + reward_model.bias_shift
