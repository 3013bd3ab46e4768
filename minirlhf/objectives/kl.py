"""How far the policy has moved: KL(policy || reference) in nats, estimated and exact, and the adaptive coefficient.

The policy's own samples x give three estimators of one token's KL, with d = log policy(x) - log reference(x)
(Schulman 2020, "Approximating KL Divergence", joschu.net/blog/kl-approx.html):

         value                                  mean over x ~ policy of its gradient through log policy(x)
    k1   d                unbiased, signed      0: as a loss it teaches nothing (it belongs inside the reward)
    k2   d^2 / 2          biased, >= 0          exactly the gradient of KL(policy || reference)
    k3   e^-d - 1 + d     unbiased, >= 0        the gradient of the other KL, KL(reference || policy)
"""

import math

import torch
from torch import Tensor

from minirlhf.objectives.likelihood import log_probs_of


def _log_ratio(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    if log_probs.shape != ref_log_probs.shape:
        shapes = f"{tuple(log_probs.shape)}, {tuple(ref_log_probs.shape)}"
        raise ValueError(f"log_probs and ref_log_probs differ in shape: {shapes}")
    return log_probs - ref_log_probs


def k1(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Per-token KL(policy || reference), nats: unbiased and signed, the one the reward is penalised with.

    Shapes: two of [...], of tokens sampled from the policy; returns [...].  Raises: ValueError if shapes differ.
    """
    return _log_ratio(log_probs, ref_log_probs)


def k2(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Per-token KL(policy || reference), nats: biased (second order in the distance), never negative.

    Shapes: two of [...], of tokens sampled from the policy; returns [...].  Raises: ValueError if shapes differ.
    """
    return _log_ratio(log_probs, ref_log_probs).square() / 2


def k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Per-token KL(policy || reference), nats: unbiased, never negative, low variance.

    e^-d - 1 is written expm1(-d): when the two are close, 1 would swallow the digits that matter.
    Shapes: two of [...], of tokens sampled from the policy; returns [...].  Raises: ValueError if shapes differ.
    """
    d = _log_ratio(log_probs, ref_log_probs)
    return torch.expm1(-d) + d


def exact_kl(logits: Tensor, ref_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(policy || reference) of each position by summing over the whole vocabulary (Kullback and Leibler 1951).

    Shapes: logits, ref_logits float [... V]; returns [...], nats, never negative up to rounding.
    A token forbidden to both (-inf) adds 0; one forbidden to the reference only makes the KL infinite.
    Raises: ValueError if shapes differ or the temperature is not positive and finite.
    """
    if logits.shape != ref_logits.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and ref_logits {tuple(ref_logits.shape)} differ in shape")
    log_probs, ref_log_probs = log_probs_of(logits, temperature), log_probs_of(ref_logits, temperature)
    probs = log_probs.exp()
    difference = torch.where(probs > 0, log_probs - ref_log_probs, 0.0)  # 0 * (-inf + inf) would be NaN
    return (probs * difference).sum(-1)


def next_kl_coef(kl_coef: float, kl_nats_per_response: float, target: float, horizon: float, episodes: int) -> float:
    """The KL coefficient for the next batch: raised when the policy strays further than target, lowered when less.

    Ziegler et al. 2019, arXiv:1909.08593, section 2.2, with the gain written as episodes / horizon:
    kl_coef * (1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon).
    Units:  KL and target in nats per response; horizon and episodes count responses.
    Raises: ValueError if kl is not finite, or a target, horizon or coefficient makes no sense.
    """
    if not math.isfinite(kl_nats_per_response):
        raise ValueError(f"kl_nats_per_response is {kl_nats_per_response}")
    if not (target > 0 and horizon > 0 and kl_coef >= 0 and 0 <= episodes <= horizon):
        raise ValueError(
            f"expected target > 0, kl_coef >= 0 and 0 <= episodes <= horizon, got target {target}, "
            f"kl_coef {kl_coef}, episodes {episodes}, horizon {horizon}"
        )
    error = min(max(kl_nats_per_response / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)
