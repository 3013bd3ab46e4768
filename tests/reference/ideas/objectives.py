"""The losses: likelihood, preferences, policies."""

import numpy as np
import torch

from minirlhf.objectives.advantages import clip_magnitude
from minirlhf.objectives.bradley_terry import bradley_terry, preference_probability
from minirlhf.objectives.cross_entropy import cross_entropy
from minirlhf.objectives.dpo import dpo, implicit_rewards
from minirlhf.objectives.grpo import grpo_loss
from minirlhf.objectives.ipo import ipo
from minirlhf.objectives.kl import exact_kl, k1, k2, k3
from minirlhf.objectives.kto import kto
from minirlhf.objectives.likelihood import token_log_probs, token_log_probs_and_entropy
from minirlhf.objectives.masked import masked_mean, masked_sum
from minirlhf.objectives.plackett_luce import plackett_luce
from minirlhf.objectives.ppo import clipped_value_loss, ppo_policy_loss
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.reference import advantages as by_hand_advantages
from minirlhf.reference import bradley_terry as by_hand_bradley_terry
from minirlhf.reference import cross_entropy as by_hand_cross_entropy
from minirlhf.reference import dpo as by_hand_dpo
from minirlhf.reference import grpo as by_hand_grpo
from minirlhf.reference import ipo as by_hand_ipo
from minirlhf.reference import kl as by_hand_kl
from minirlhf.reference import kto as by_hand_kto
from minirlhf.reference import likelihood as by_hand_likelihood
from minirlhf.reference import masked as by_hand_masked
from minirlhf.reference import plackett_luce as by_hand_plackett_luce
from minirlhf.reference import ppo as by_hand_ppo
from minirlhf.reference import reinforce as by_hand_reinforce
from tests.reference.ideas.idea import Case, Idea, drawn, weighed


def logits_and_targets(size, rng) -> Case:
    tokens, vocab = size(1, 4), size(2, 5)
    return rng.normal(0, 2, (tokens, vocab)), rng.integers(0, vocab, tokens)


def token_case(size, rng) -> Case:
    logits, targets = logits_and_targets(size, rng)
    return logits, targets, float(rng.uniform(0.3, 3)), rng.normal(size=len(targets))


def supervised_case(size, rng) -> Case:
    return *(case := logits_and_targets(size, rng)), rng.random(len(case[1])) < 0.7


def two_logits(size, rng) -> Case:
    logits, targets = logits_and_targets(size, rng)
    return logits, rng.normal(0, 2, logits.shape), float(rng.uniform(0.3, 3)), rng.normal(size=len(targets))


def masked_case(size, rng) -> Case:
    return rng.normal(size=(2, n := size(1, 4))), some_true(rng, (2, n))


def some_true(rng, shape) -> np.ndarray:
    mask = rng.random(shape) < 0.6
    mask.flat[rng.integers(mask.size)] = True
    return mask


def responses(size, rng) -> np.ndarray:
    """response_mask [B R]: each row some Trues, then Falses."""
    rows, tokens = size(1, 3), size(1, 4)
    return np.arange(tokens) < rng.integers(1, tokens + 1, (rows, 1))


def kl_case(size, rng) -> Case:
    log_probs, dout = rng.normal(-2, 1, 5), rng.normal(size=5)
    return log_probs, rng.normal(-2, 1, 5), dout


def clip_case(size, rng) -> Case:
    return rng.normal(0, 2, n := size(1, 5)), float(rng.uniform(0.5, 3)), rng.normal(size=n)


def pair_case(size, rng) -> Case:
    return tuple(rng.normal(0, 3, (2, size(1, 5))))


def pair_weighed(size, rng) -> Case:
    return *(pair := pair_case(size, rng)), rng.normal(size=len(pair[0]))


def margin_case(size, rng) -> Case:
    return *(pair := pair_case(size, rng)), np.abs(rng.normal(size=len(pair[0])))


def ties_case(size, rng) -> Case:
    return *(pair := pair_case(size, rng)), rng.integers(0, 3, len(pair[0])), rng.normal(size=())


def ranking_case(size, rng) -> Case:
    rows, answers = size(1, 3), size(1, 4)
    return rng.normal(0, 2, (rows, answers)), rng.integers(1, answers + 1, rows)


def four_log_probs(size, rng) -> Case:
    return tuple(-np.abs(rng.normal(0, 8, (4, size(1, 4)))))


def dpo_case(size, rng) -> Case:
    return *four_log_probs(size, rng), float(rng.uniform(0.05, 1)), float(rng.choice([0, 0.1, 0.4]))


def ipo_case(size, rng) -> Case:
    return *four_log_probs(size, rng), float(rng.uniform(0.05, 1))


def implicit_case(size, rng) -> Case:
    log_probs, ref_log_probs, dout, _ = four_log_probs(size, rng)
    return log_probs, ref_log_probs, float(rng.uniform(0.05, 1)), dout


def kto_case(size, rng) -> Case:
    log_probs, ref_log_probs, _, _ = four_log_probs(size, rng)
    weights = [float(x) for x in (*rng.uniform(0, 3, 1), *rng.uniform(0.05, 1, 1), *rng.uniform(0.3, 2, 2))]
    return log_probs, ref_log_probs, rng.random(len(log_probs)) < 0.5, *weights


def policy_case(size, rng) -> Case:
    mask = responses(size, rng)
    old, shift, advantages = rng.normal(-2, 1, mask.shape), rng.normal(0, 0.4, mask.shape), rng.normal(size=mask.shape)
    return old + shift, old, advantages, mask, float(rng.uniform(0.1, 0.5))


def reinforce_case(size, rng) -> Case:
    return policy_case(size, rng)[1:4]


def value_case(size, rng) -> Case:
    mask = responses(size, rng)
    return *rng.normal(size=(3, *mask.shape)), mask, float(rng.uniform(0.1, 1))


def grpo_case(size, rng) -> Case:
    log_probs, old, _, mask, clip_range = policy_case(size, rng)
    ref, advantages = old + rng.normal(0, 0.5, mask.shape), rng.normal(size=len(mask))
    return log_probs, old, ref, advantages, mask, clip_range, float(rng.uniform(0, 0.3))


def torch_cross_entropy(logits, targets, loss_mask):
    return cross_entropy(token_log_probs(logits, targets), loss_mask)


def torch_ties(scores, others, outcomes, log_tie):
    logits = torch.stack((scores, others, log_tie + (scores + others) / 2), dim=-1)
    return torch.nn.functional.cross_entropy(logits, outcomes)


def ratio_kinks(log_probs, old_log_probs, *rest) -> list[np.ndarray]:
    ratio, clip_range = np.exp(log_probs - old_log_probs), next(x for x in rest if isinstance(x, float))
    return [ratio - (1 + clip_range), ratio - (1 - clip_range)]


def value_kinks(values, old_values, returns, mask, clip_range) -> list[np.ndarray]:
    clipped = old_values + np.clip(values - old_values, -clip_range, clip_range)
    moved = np.abs(values - old_values) - clip_range
    return [moved, np.where(moved > 0, np.abs(values - returns) - np.abs(clipped - returns), 1.0)]


LIKELIHOOD: tuple[Idea, ...] = (
    weighed(
        "token_log_probs",
        drawn(token_case),
        by_hand_likelihood.token_log_probs,
        lambda z, y, t, dout: (by_hand_likelihood.token_log_probs_grad(dout, z, y, t),),
        token_log_probs,
        (0,),
    ),
    weighed(
        "entropy",
        drawn(token_case),
        lambda z, y, t: by_hand_likelihood.entropy(z, t),
        lambda z, y, t, dout: (by_hand_likelihood.entropy_grad(dout, z, t),),
        lambda z, y, t: token_log_probs_and_entropy(z, y, t)[1],
        (0,),
    ),
    Idea(
        "cross_entropy",
        drawn(supervised_case),
        by_hand_cross_entropy.cross_entropy,
        lambda *case: (by_hand_cross_entropy.cross_entropy_grad(*case),),
        torch_cross_entropy,
        (0,),
    ),
    Idea(
        "masked_sum",
        drawn(masked_case),
        by_hand_masked.masked_sum,
        lambda x, mask: (by_hand_masked.masked_sum_grad(mask),),
        masked_sum,
        (0,),
    ),
    Idea(
        "masked_mean",
        drawn(masked_case),
        by_hand_masked.masked_mean,
        lambda x, mask: (by_hand_masked.masked_mean_grad(mask),),
        masked_mean,
        (0,),
    ),
    weighed(
        "exact_kl",
        drawn(two_logits),
        by_hand_kl.exact_kl,
        lambda z, ref, t, dout: (by_hand_kl.exact_kl_grad(dout, z, ref, t),),
        exact_kl,
        (0,),
    ),
    *(
        weighed(
            name,
            drawn(kl_case),
            lambda p, q, formula=formula: formula(p, q)[0],
            lambda p, q, dout, formula=formula: (dout * formula(p, q)[1], -dout * formula(p, q)[1]),
            code,
            (0, 1),
        )
        for name, formula, code in (("k1", by_hand_kl.k1, k1), ("k2", by_hand_kl.k2, k2), ("k3", by_hand_kl.k3, k3))
    ),
)

PREFERENCES: tuple[Idea, ...] = (
    weighed(
        "preference_probability",
        drawn(pair_weighed),
        by_hand_bradley_terry.preference_probability,
        by_hand_bradley_terry.preference_probability_grad,
        preference_probability,
        (0, 1),
    ),
    Idea(
        "bradley_terry",
        drawn(pair_case),
        by_hand_bradley_terry.bradley_terry,
        by_hand_bradley_terry.bradley_terry_grad,
        bradley_terry,
        (0, 1),
    ),
    Idea(
        "bradley_terry with a margin",
        drawn(margin_case),
        by_hand_bradley_terry.with_margin,
        by_hand_bradley_terry.with_margin_grad,
        lambda chosen, rejected, margins: bradley_terry(chosen - margins, rejected),
        (0, 1),
    ),
    Idea(
        "bradley_terry with ties",
        drawn(ties_case),
        by_hand_bradley_terry.with_ties,
        by_hand_bradley_terry.with_ties_grad,
        torch_ties,
        (0, 1, 3),
    ),
    Idea(
        "plackett_luce",
        drawn(ranking_case),
        by_hand_plackett_luce.plackett_luce,
        lambda *case: (by_hand_plackett_luce.plackett_luce_grad(*case),),
        plackett_luce,
        (0,),
    ),
    weighed(
        "implicit_rewards",
        drawn(implicit_case),
        by_hand_dpo.implicit_rewards,
        lambda p, q, beta, dout: (beta * dout,),
        implicit_rewards,
        (0,),
    ),
    Idea("dpo", drawn(dpo_case), by_hand_dpo.dpo, by_hand_dpo.dpo_grad, dpo, (0, 1)),
    Idea("ipo", drawn(ipo_case), by_hand_ipo.ipo, by_hand_ipo.ipo_grad, ipo, (0, 1)),
    Idea("kto", drawn(kto_case), by_hand_kto.kto, lambda *case: (by_hand_kto.kto_grad(*case),), kto, (0,)),
)

POLICY: tuple[Idea, ...] = (
    weighed(
        "clip_magnitude",
        drawn(clip_case),
        by_hand_advantages.clip_magnitude,
        lambda x, limit, dout: (by_hand_advantages.clip_magnitude_grad(x, limit, dout),),
        clip_magnitude,
        (0,),
        kinks=lambda x, limit: [np.abs(x) - limit],
    ),
    Idea(
        "reinforce_loss",
        drawn(reinforce_case),
        by_hand_reinforce.reinforce_loss,
        lambda *case: (by_hand_reinforce.reinforce_loss_grad(*case),),
        reinforce_loss,
        (0,),
    ),
    Idea(
        "ppo_policy_loss",
        drawn(policy_case),
        by_hand_ppo.ppo_policy_loss,
        lambda *case: (by_hand_ppo.ppo_policy_loss_grad(*case),),
        ppo_policy_loss,
        (0,),
        kinks=ratio_kinks,
    ),
    Idea(
        "clipped_value_loss",
        drawn(value_case),
        by_hand_ppo.clipped_value_loss,
        lambda *case: (by_hand_ppo.clipped_value_loss_grad(*case),),
        clipped_value_loss,
        (0,),
        kinks=value_kinks,
    ),
    Idea(
        "grpo_loss",
        drawn(grpo_case),
        by_hand_grpo.grpo_loss,
        lambda *case: (by_hand_grpo.grpo_loss_grad(*case),),
        grpo_loss,
        (0,),
        kinks=ratio_kinks,
    ),
)
