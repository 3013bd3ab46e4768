"""TRL's DPO, IPO, KTO and reward-model losses against ours: on the same ids and models, through to every gradient.

Called are the methods `_compute_loss` and `compute_loss` of TRL's trainers (trl_stand_in.py says how), with its own
shift, masks and log-probabilities.

Where TRL says something else under the same name:
    IPO                 takes the mean over an answer's tokens where the paper's eq. 17, and ours, takes the sum
    label smoothing     "sigmoid" ignores it; "robust" is the unbiased loss of Chowdhury et al. 2024, not the cDPO of
                        Mitchell 2023 that is ours, which stands in "aot" when a batch is one pair
    KTO                 estimates its reference point from the batch, ours is handed to the loss
    the reward model    can take a margin and can be pulled towards scores of mean 0
"""

from dataclasses import dataclass
from types import MethodType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.objectives.dpo import dpo
from minirlhf.objectives.ipo import ipo
from minirlhf.objectives.kto import kto
from minirlhf.objectives.likelihood import sequence_log_probs
from tests.witnesses.compare import assert_same, randn
from tests.witnesses.trl_stand_in import our_model, stand_in, their_model

pytest.importorskip("trl", minversion="1.13")
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer

V, P, R = 5, 2, 4  # vocabulary, prompt tokens, longest answer
seeds = st.integers(0, 2**31)
betas = st.sampled_from([0.1, 0.5, 2.0])
few = settings(max_examples=25)


@dataclass(frozen=True)
class Answers:
    """ids int64 [B P+R]; counts bool [B P+R], True on the answers' tokens; the policy's and the reference's table."""

    ids: Tensor
    counts: Tensor
    table: Tensor
    ref_table: Tensor

    @property
    def batch(self):
        """As TRL's collators hand it to a trainer."""
        real = self.counts.clone()
        real[:, :P] = True
        return {
            "input_ids": self.ids,
            "attention_mask": real.long(),
            "completion_mask": self.counts.long(),
        }

    def log_probs(self, table):
        """Summed over each answer's tokens, [B], by our own waist."""
        per_token = sequence_log_probs(our_model(table), self.ids)
        return per_token.masked_fill(~self.counts[:, 1:], 0.0).sum(1)


def answers(seed, rows):
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (rows, P + R), generator=draws)
    lengths = torch.randint(1, R + 1, (rows, 1), generator=draws)
    place = torch.arange(P + R)
    return Answers(ids, (place >= P) & (place < P + lengths), 2 * randn(seed, V, V), 2 * randn(seed + 1, V, V))


def trl_dpo(case, table, loss_type, beta, label_smoothing=0.0):
    trainer = stand_in(
        ld_alpha=None, precompute_ref_logps=False, ref_model=their_model(case.ref_table), use_weighting=False,
        f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0],
        beta=beta, label_smoothing=label_smoothing,
    )  # fmt: skip
    return DPOTrainer._compute_loss(trainer, their_model(table), case.batch, False)


def in_pairs(case, table):
    """Our objectives' four arguments, [pairs] each: the first half of the rows is chosen, the second rejected."""
    chosen, rejected = case.log_probs(table).chunk(2)
    return chosen, rejected, *case.log_probs(case.ref_table).chunk(2)


@few
@given(seeds, st.integers(1, 4), betas)
def test_dpo(seed, pairs, beta):
    case = answers(seed, 2 * pairs)
    assert_same(
        lambda table: dpo(*in_pairs(case, table), beta), lambda table: trl_dpo(case, table, "sigmoid", beta), case.table
    )


@few
@given(seeds, betas, st.sampled_from([0.0, 0.1, 0.4]))
def test_dpo_with_label_smoothing_is_their_aot_of_one_pair(seed, beta, label_smoothing):
    """AOT compares the sorted margins of the policy with the sorted ones of the reference. One pair is sorted already,
    and what is left is cDPO. (Over several pairs the two are different losses.)"""
    case = answers(seed, 2)
    assert_same(
        lambda table: dpo(*in_pairs(case, table), beta, label_smoothing),
        lambda table: trl_dpo(case, table, "aot", beta, label_smoothing),
        case.table,
    )


@few
@given(seeds, st.integers(1, 4), betas, st.sampled_from([0.1, 0.4]))
def test_robust_dpo_is_not_ours_but_can_be_had_from_it(seed, pairs, beta, share):
    """With share of the labels flipped, robust is ((1 - share) L - share L') / (1 - 2 share), L' the loss of the
    swapped pair: it undoes the flips in the mean. Ours is (1 - share) L + share L': it believes them."""
    case = answers(seed, 2 * pairs)

    def by_ours(table):
        chosen, rejected, ref_chosen, ref_rejected = in_pairs(case, table)
        swapped = dpo(rejected, chosen, ref_rejected, ref_chosen, beta)
        smoothed = dpo(chosen, rejected, ref_chosen, ref_rejected, beta, share)
        return (smoothed - 2 * share * swapped) / (1 - 2 * share)

    assert_same(by_ours, lambda table: trl_dpo(case, table, "robust", beta, share), case.table)
    plain, ignored = (trl_dpo(case, case.table, "sigmoid", beta, smoothing) for smoothing in (0.0, share))
    assert torch.equal(plain, ignored)
    robust = trl_dpo(case, case.table, "robust", beta, share)
    assert (robust - dpo(*in_pairs(case, case.table), beta, share)).abs() > 1e-6


@few
@given(seeds, st.integers(1, 4), betas)
def test_ipo_is_theirs_on_the_mean_over_an_answers_tokens(seed, pairs, beta):
    """TRL divides each answer's log-ratio by its number of tokens, so that beta means the same for all lengths; the
    paper's eq. 17 and ours take the log-probability of the whole answer. Answers of one token: no difference."""
    case = answers(seed, 2 * pairs)
    lengths = case.counts.sum(1).chunk(2)

    def per_token(table):
        summed = in_pairs(case, table)
        return ipo(*(summed[place] / lengths[place % 2] for place in range(4)), beta)

    assert_same(per_token, lambda table: trl_dpo(case, table, "ipo", beta), case.table)
    first_only = Answers(case.ids, case.counts & (torch.arange(P + R) == P), case.table, case.ref_table)
    assert_same(
        lambda table: ipo(*in_pairs(first_only, table), beta),
        lambda table: trl_dpo(first_only, table, "ipo", beta),
        case.table,
    )
    long_ones = Answers(case.ids, (torch.arange(P + R) >= P).expand_as(case.counts), case.table, case.ref_table)
    ours, theirs = ipo(*in_pairs(long_ones, case.table), beta), trl_dpo(long_ones, case.table, "ipo", beta)
    assert (ours - theirs).abs() > 1e-6


@few
@given(seeds, st.integers(2, 5), betas, st.sampled_from([(1.0, 1.0), (1.3, 0.7)]))
def test_kto(seed, rows, beta, weights):
    """TRL's reference point is the mean log-ratio of answers that belong to other prompts, at least 0, and carries no
    gradient; that number, reckoned from the same answers, is our kl_nats."""
    case, other = answers(seed, rows), answers(seed + 7, rows)
    desirable = torch.arange(rows) % 2 == seed % 2
    ratio = other.log_probs(case.table) - other.log_probs(case.ref_table)
    kl_nats = max(0.0, ratio.mean().item())

    def theirs(table):
        trainer = stand_in(
            calculate_KL=True, use_liger_kernel=False, precompute_ref_logps=False,
            ref_model=their_model(case.ref_table), loss_type="kto", beta=beta,
            desirable_weight=weights[0], undesirable_weight=weights[1],
        )  # fmt: skip
        trainer._compute_kl_logps = MethodType(KTOTrainer._compute_kl_logps, trainer)
        unmatched = {f"KL_{name}": value for name, value in other.batch.items()}
        return KTOTrainer._compute_loss(
            trainer, their_model(table), {**case.batch, **unmatched, "label": desirable}, False
        )

    def ours(table):
        return kto(case.log_probs(table), case.log_probs(case.ref_table), desirable, kl_nats, beta, *weights)

    assert_same(ours, theirs, case.table)


@few
@given(seeds, st.integers(1, 4))
def test_reward_model(seed, pairs):
    """A margin is a handicap for the chosen answer; the pull towards 0 is on the sum of a pair's scores."""
    scores, margin = 3 * randn(seed, 2 * pairs), randn(seed + 1, pairs).abs()

    def theirs(scores, coefficient=None, **inputs):
        trainer = stand_in()
        trainer.args.center_rewards_coefficient = coefficient
        mask = torch.ones(2 * pairs, 1, dtype=torch.int64)

        def model(**_):
            return type("Output", (), {"logits": scores[:, None]})

        return RewardTrainer.compute_loss(trainer, model, {"attention_mask": mask, **inputs})

    assert_same(lambda s: bradley_terry(*s.chunk(2)), theirs, scores)

    def handicapped(scores):
        chosen, rejected = scores.chunk(2)
        return bradley_terry(chosen - margin, rejected)

    assert_same(handicapped, lambda s: theirs(s, margin=margin), scores)

    def centred(scores):
        chosen, rejected = scores.chunk(2)
        return bradley_terry(chosen, rejected) + 0.01 * (chosen + rejected).square().mean()

    assert_same(centred, lambda s: theirs(s, 0.01), scores)
