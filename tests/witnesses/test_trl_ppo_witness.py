"""TRL's PPO, the last release that could be called piece by piece: rewards, GAE, whitening, losses, KL, controller.

From 0.12 on TRL reckons advantages in the middle of `PPOTrainer.train`, and 1.13 took PPO out; so this file wants TRL
0.11, and `make witnesses` gives it an environment of its own. Called are `PPOTrainer.compute_rewards`,
`compute_advantages`, `loss` and `_kl_penalty`, the functions of `trl.core`, the adaptive KL controller, and
`DPOTrainer.dpo_loss` and `KTOTrainer.kto_loss`, which that release still had as methods of summed log-probabilities.

Where TRL says something else under the same name:
    whitening           divides the sum of squares by n - 1, ours by n: scaled by sqrt((n - 1) / n); one value gives NaN
    what is masked      is left in place: rewards keep the penalty of padding, whitened padding is a number; ours are 0
    a large ratio       above 10 in the mean turns the whole loss to 0; ours skips the step if one token's is above 100
    the value loss      comes out multiplied by vf_coef
    "mse"               as KL penalty is k2, "full" the exact KL
"""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.objectives.advantages import gae, shape_rewards
from minirlhf.objectives.dpo import dpo, implicit_rewards
from minirlhf.objectives.guards import ratio_too_large
from minirlhf.objectives.ipo import ipo
from minirlhf.objectives.kl import exact_kl, k1, k2, next_kl_coef
from minirlhf.objectives.kto import kto
from minirlhf.objectives.likelihood import token_log_probs, token_log_probs_and_entropy
from minirlhf.objectives.masked import masked_mean, masked_whiten
from minirlhf.objectives.ppo import clipped_value_loss, ppo_policy_loss
from tests.witnesses.compare import EXACT, assert_same, randn
from tests.witnesses.trl_stand_in import OneProcess

trl = pytest.importorskip("trl")
if not trl.__version__.startswith("0.11."):
    pytest.skip(f"TRL {trl.__version__} has no PPO that can be called; this asks TRL 0.11", allow_module_level=True)
from trl import core  # noqa: E402
from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402
from trl.trainer.kto_trainer import KTOTrainer  # noqa: E402
from trl.trainer.ppo_trainer import PPOTrainer  # noqa: E402
from trl.trainer.utils import AdaptiveKLController  # noqa: E402

seeds = st.integers(0, 2**31)
fractions = st.sampled_from([0.0, 0.5, 0.95, 1.0])
few = settings(max_examples=40)


def a_mask(seed, rows=3, tokens=5):
    """bool [rows tokens], each row at least two Trues and then Falses; and the same in TRL's floating point."""
    lengths = torch.randint(2, tokens + 1, (rows, 1), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(tokens) < lengths
    return mask, mask.double()


def ppo(**config):
    defaults = {"gamma": 1.0, "lam": 0.95, "whiten_rewards": False, "kl_penalty": "kl", "ratio_threshold": 10.0}
    return SimpleNamespace(config=SimpleNamespace(**{**defaults, **config}))


def bessel(mask):
    """What TRL's whitened values are multiplied by to become ours, but for the 1e-8 below both roots."""
    return (mask.sum() / (mask.sum() - 1.0)).double().sqrt()


@few
@given(seeds, st.booleans())
def test_whitening(seed, shift_mean):
    mask, theirs_mask = a_mask(seed)
    x = 3 + 2 * randn(seed, 3, 5)
    torch.testing.assert_close(masked_mean(x, mask), core.masked_mean(x, theirs_mask), **EXACT)
    ours, theirs = masked_whiten(x, mask, shift_mean), core.masked_whiten(x, theirs_mask, shift_mean)
    kept = 0.0 if shift_mean else core.masked_mean(x, theirs_mask)
    wanted = (theirs[mask] - kept) * bessel(theirs_mask) + kept
    torch.testing.assert_close(ours[mask], wanted, rtol=1e-6, atol=1e-6)  # 1e-8 below the root, beside variances near 1
    variance = core.masked_var(x, theirs_mask)
    exact = (theirs[mask] - kept) * (variance + 1e-8).sqrt() / (core.masked_var(x, theirs_mask, False) + 1e-8).sqrt()
    torch.testing.assert_close(ours[mask], exact + kept, **EXACT)
    assert (ours[~mask] == 0).all() and (mask.all() or (theirs[~mask] != 0).any())


def test_whitening_a_single_value():
    mask = torch.tensor([[True, False]])
    assert masked_whiten(torch.tensor([[2.0, 7.0]]), mask, shift_mean=True).tolist() == [[0.0, 0.0]]
    assert core.masked_whiten(torch.tensor([[2.0, 7.0]]), mask.float()).isnan().any()


@few
@given(seeds, st.sampled_from([0.0, 0.1, 1.5]))
def test_rewards(seed, kl_coef):
    mask, theirs_mask = a_mask(seed)
    scores, log_probs, ref_log_probs = randn(seed, 3), randn(seed + 1, 3, 5), randn(seed + 2, 3, 5)
    trainer = ppo()
    trainer.kl_ctl = SimpleNamespace(value=kl_coef)
    trainer._kl_penalty = lambda log_prob, ref: PPOTrainer._kl_penalty(trainer, log_prob, ref)
    theirs, _, kls = PPOTrainer.compute_rewards(trainer, scores, log_probs, ref_log_probs, theirs_mask)
    ours = shape_rewards(scores, log_probs, ref_log_probs, mask, kl_coef)
    torch.testing.assert_close(ours, theirs * theirs_mask, **EXACT)
    torch.testing.assert_close(kls, k1(log_probs, ref_log_probs), **EXACT)


@few
@given(seeds)
def test_kl_penalties(seed):
    log_probs, ref_log_probs = randn(seed, 3, 5), randn(seed + 1, 3, 5)
    for name, ours in (("kl", k1), ("mse", k2)):
        trainer = ppo(kl_penalty=name)
        assert_same(ours, lambda p, r, t=trainer: PPOTrainer._kl_penalty(t, p, r), log_probs, ref_log_probs)
    logits, ref_logits = 2 * randn(seed, 3, 6), 2 * randn(seed + 1, 3, 6)
    assert_same(
        exact_kl,
        lambda z, r: PPOTrainer._kl_penalty(ppo(kl_penalty="full"), z.log_softmax(-1), r.log_softmax(-1)),
        logits,
        ref_logits,
    )


@few
@given(seeds, fractions, fractions, st.booleans())
def test_gae(seed, gamma, gae_lambda, whiten_rewards):
    """Returns are equal as they are; advantages come out of TRL whitened, and are compared whitened, by TRL's rule."""
    mask, theirs_mask = a_mask(seed)
    rewards, values = randn(seed, 3, 5), randn(seed + 1, 3, 5)
    trainer = ppo(gamma=gamma, lam=gae_lambda, whiten_rewards=whiten_rewards)
    _, advantages, returns = PPOTrainer.compute_advantages(trainer, values, rewards, theirs_mask)
    if whiten_rewards:
        rewards = core.masked_whiten(rewards * theirs_mask, theirs_mask, shift_mean=False) * theirs_mask
    # Whitened padding is a reward in TRL, which then flows back into the answer; only whole rows can be compared.
    rows = mask.all(1) if whiten_rewards else torch.ones(3, dtype=torch.bool)
    our_advantages, our_returns = gae(rewards, values, mask, gamma, gae_lambda)
    torch.testing.assert_close(our_returns[rows], (returns * theirs_mask)[rows], **EXACT)
    if rows.all():
        theirs = core.masked_whiten(our_advantages, theirs_mask)
        torch.testing.assert_close(theirs[mask], advantages[mask], **EXACT)
        ours = masked_whiten(our_advantages, mask, shift_mean=True)
        torch.testing.assert_close(ours[mask], advantages[mask] * bessel(theirs_mask), rtol=1e-5, atol=1e-6)


def test_whitened_padding_flows_back_into_their_answers():
    """Two tokens and a pad: TRL whitens the pad's reward of 0 along, and does not mask it again before GAE."""
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rewards, values = randn(0, 2, 3), randn(1, 2, 3)
    trainer = ppo(whiten_rewards=True)
    _, _, returns = PPOTrainer.compute_advantages(trainer, values, rewards, mask.double())
    whitened = core.masked_whiten(rewards * mask, mask.double(), shift_mean=False)
    _, ours = gae(whitened, values, mask)
    torch.testing.assert_close(ours[1], returns[1], **EXACT)
    leak = whitened[0, 2] * 0.95 ** torch.tensor([2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(ours[0, :2] + leak, returns[0, :2], **EXACT)
    assert leak.abs().min() > 1e-3


@few
@given(seeds, st.sampled_from([0.1, 0.2]), st.sampled_from([0.2, 1.0]))
def test_losses(seed, clip_range, value_clip_range):
    mask, theirs_mask = a_mask(seed)
    log_probs, values = randn(seed, 3, 5), randn(seed + 1, 3, 5)
    old_log_probs, old_values = log_probs + 0.3 * randn(seed + 2, 3, 5), values + randn(seed + 3, 3, 5)
    advantages, returns, logits = randn(seed + 4, 3, 5), randn(seed + 5, 3, 5), randn(seed + 6, 3, 5, 4)
    trainer = ppo(cliprange=clip_range, cliprange_value=value_clip_range, vf_coef=0.1)

    def theirs(log_probs, values):
        policy, value, _ = PPOTrainer.loss(
            trainer, old_log_probs, old_values, logits, values, log_probs, theirs_mask, advantages, returns
        )
        return torch.stack((policy, value))

    def ours(log_probs, values):
        policy = ppo_policy_loss(log_probs, old_log_probs, advantages, mask, clip_range)
        return torch.stack((policy, 0.1 * clipped_value_loss(values, old_values, returns, mask, value_clip_range)))

    assert_same(ours, theirs, log_probs, values)


@pytest.mark.filterwarnings("ignore:The average ratio")
def test_a_ratio_that_is_too_large():
    """TRL looks at the mean of the ratios, ours at the largest: one token of 150 among ten is skipped by both; one of
    50 by neither; a hundred of 11 by TRL alone."""
    trainer = ppo(cliprange=0.2, cliprange_value=0.2, vf_coef=0.1)
    cases = (([150.0] + [1.0] * 9, True, True), ([50.0] + [1.0] * 9, False, False), ([11.0] * 100, True, False))
    for ratios, by_trl, by_us in cases:
        log_probs = torch.tensor([ratios], dtype=torch.float64).log()
        zeros, ones = torch.zeros_like(log_probs), torch.ones_like(log_probs)
        logits = zeros[..., None].expand(*zeros.shape, 2)
        policy, _, _ = PPOTrainer.loss(trainer, zeros, zeros, logits, zeros, log_probs, ones, -ones, zeros)
        assert (policy == 0) == by_trl
        assert ratio_too_large(log_probs, zeros, ones.bool(), 100.0) == by_us


@few
@given(seeds)
def test_log_probs_and_entropy(seed):
    logits = 3 * randn(seed, 2, 4, 6)
    targets = torch.randint(6, (2, 4), generator=torch.Generator().manual_seed(seed))
    assert_same(lambda z: token_log_probs(z, targets), lambda z: core.logprobs_from_logits(z, targets), logits)
    assert_same(lambda z: token_log_probs_and_entropy(z, targets)[1], core.entropy_from_logits, logits)


@few
@given(st.floats(0, 1), st.floats(-1, 50), st.floats(0.1, 20), st.integers(0, 64))
def test_the_adaptive_kl_coefficient(kl_coef, kl_nats, target, episodes):
    controller = AdaptiveKLController(kl_coef, target, 1000)
    controller.update(kl_nats, episodes)
    assert next_kl_coef(kl_coef, kl_nats, target, 1000, episodes) == pytest.approx(controller.value, rel=1e-12)


@few
@given(seeds, st.sampled_from([0.1, 0.5]), st.sampled_from([0.0, 0.1, 0.4]))
def test_preference_losses_of_summed_log_probs(seed, beta, label_smoothing):
    """Label smoothing was cDPO then, and IPO's mean over tokens stood outside the loss: both equal ours as they are."""
    chosen, rejected, ref_chosen, ref_rejected = (5 * randn(seed + place, 4) for place in range(4))

    def theirs(chosen, rejected, loss_type="sigmoid", at=0):
        trainer = SimpleNamespace(
            accelerator=OneProcess(), reference_free=False, f_divergence_type="reverse_kl", f_divergence_params=None,
            beta=beta, label_smoothing=label_smoothing, loss_type=loss_type,
        )  # fmt: skip
        return DPOTrainer.dpo_loss(trainer, chosen, rejected, ref_chosen, ref_rejected)[at].mean()

    references = ref_chosen, ref_rejected
    assert_same(lambda c, r: dpo(c, r, *references, beta, label_smoothing), theirs, chosen, rejected)
    assert_same(lambda c, r: ipo(c, r, *references, beta), lambda c, r: theirs(c, r, "ipo"), chosen, rejected)
    rewards = implicit_rewards(chosen, ref_chosen, beta).mean()
    torch.testing.assert_close(rewards, theirs(chosen, rejected, at=1), **EXACT)

    weights, others = (1.3, 0.7), (randn(seed + 5, 4), randn(seed + 6, 4))
    kl_nats = max(0.0, (others[0] - others[1]).mean().item())
    trainer = SimpleNamespace(
        accelerator=OneProcess(), calculate_KL=True, loss_type="kto", beta=beta,
        desirable_weight=weights[0], undesirable_weight=weights[1],
    )  # fmt: skip
    desirable = torch.arange(8) < 4
    assert_same(
        lambda c, r: kto(torch.cat((c, r)), torch.cat(references), desirable, kl_nats, beta, *weights),
        lambda c, r: KTOTrainer.kto_loss(trainer, c, r, others[0], *references, others[1])[0].mean(),
        chosen,
        rejected,
    )
