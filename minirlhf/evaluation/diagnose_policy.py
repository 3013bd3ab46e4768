"""Checks for reinforcement learning: PPO and REINFORCE."""

import numpy as np

from minirlhf.evaluation.findings import ENOUGH_ROWS, Finding, stretch, surely_changed
from minirlhf.evaluation.metrics_file import Row, Series, series

# One nat per token is about what a small model's whole freedom of choice is worth: beyond it, the answers have
# nothing to do any more with what the reference would write.
KL_LIMIT_NATS_PER_TOKEN = 1.0
# At most. bfloat16 rounds a logit between 16 and 32 by up to 1/16, in the rollout and in the update: e^(1/8) = 1.133.
FIRST_RATIO, FIRST_RATIO_BFLOAT16 = 1.05, 1.15


def diagnose_policy(rows: list[Row], bfloat16: bool = False) -> list[Finding | None]:
    """All checks of a policy's run; those that need many rows stay silent on short ones."""
    score, length = series(rows, "score_mean"), series(rows, "response_tokens_mean")
    findings = [_first_ratio(rows, FIRST_RATIO_BFLOAT16 if bfloat16 else FIRST_RATIO), _first_kl(rows)]
    if len(score) >= ENOUGH_ROWS:
        findings += [
            _kl(rows, length),
            _variety(rows),
            *_length(rows, length),
            _critic(rows),
            _value_loss(rows),
            _step_size(rows),
            _score(rows, score),
            _reward_hacking(rows, score),
        ]
    return findings


def _first_ratio(rows: list[Row], limit: float) -> Finding | None:
    """Where nothing moves the policy, the ratio must be 1: in the first step, and wherever the learning rate is ~ 0."""
    first = rows[0]
    ratio = first.get("first_ratio_max", 1.0)
    evidence = f"first_ratio_max {ratio:.3g} at step {first['step']:.0f}, before any update"
    planted = first["step"] <= 1 and not ratio < limit
    peak = max((row.get("learning_rate", 0.0) for row in rows), default=0.0)
    still = [
        row["clip_fraction"] for row in rows if row.get("learning_rate", peak) < 0.03 * peak and "clip_fraction" in row
    ]
    if not planted and still and np.median(still) > 0.1:
        planted = True
        evidence = f"clip_fraction is {np.median(still):.3g} even where the learning rate is almost 0"
    if not planted:
        return None
    return Finding(
        "critical",
        "the ratio is not 1 at the first minibatch",
        evidence,
        "rollout and update compute different log-probabilities: dropout left on, two temperatures, or top-k/top-p in "
        "the rollout",
        "turn dropout off, use one temperature everywhere, and no top-k/top-p while collecting",
    )


def _first_kl(rows: list[Row]) -> Finding | None:
    kl = rows[0].get("kl_nats_per_response", 0.0)
    if rows[0]["step"] > 1 or not abs(kl) > 0.05:
        return None
    return Finding(
        "critical",
        "the policy differs from its reference before the first update",
        f"kl_nats_per_response is {kl:.3g} at step {rows[0]['step']:.0f}, it must be 0",
        "the reference is another checkpoint, or one of the two runs with dropout or another temperature",
        "start both from the same model; put both into eval mode",
    )


def _kl(rows: list[Row], length: Series) -> Finding | None:
    kl = series(rows, "kl_nats_per_response")
    if len(kl) < ENOUGH_ROWS:
        return None
    tokens = max(length.end, 1.0) if len(length) else 1.0
    if kl.end > KL_LIMIT_NATS_PER_TOKEN * tokens:
        return Finding(
            "critical",
            "KL explosion",
            f"kl_nats_per_response went from {kl.start:.3g} to {kl.end:.3g}, {kl.end / tokens:.2g} nats a token",
            "the penalty is too weak for this learning rate, so the policy has left the language it started from",
            "raise kl_coef (or set a KL target), lower the learning rate, do fewer epochs per batch",
        )
    if kl.end < -0.02 * tokens and kl.end < -0.5:
        return Finding(
            "critical",
            "the KL is negative",
            f"kl_nats_per_response ends at {kl.end:.3g}",
            "a KL cannot be negative, so the answers are no samples of the policy: top-k, top-p or another temperature",
            "sample from the full distribution at the temperature the log-probabilities use",
        )
    return None


def _variety(rows: list[Row]) -> Finding | None:
    entropy, distinct = series(rows, "entropy_nats_per_token"), series(rows, "distinct_2")
    collapsed = len(entropy) >= ENOUGH_ROWS and entropy.end < min(0.15 * entropy.start, 0.2)
    repeats = len(distinct) >= ENOUGH_ROWS and distinct.end < 0.6 * distinct.start
    if not collapsed and not repeats:
        return None
    seen = [
        f"{name} went from {curve.start:.3g} to {curve.end:.3g}"
        for name, curve in (("entropy_nats_per_token", entropy), ("distinct_2", distinct))
        if len(curve)
    ]
    return Finding(
        "critical" if collapsed else "warning",
        "entropy collapse" if collapsed else "loss of variety",
        "; ".join(seen),
        "the policy has found one answer that scores well and gives it to everybody",
        "raise kl_coef, lower the learning rate or the epochs per batch, stop earlier; then read the samples",
    )


def _length(rows: list[Row], length: Series) -> list[Finding | None]:
    eos = series(rows, "eos_rate")
    findings: list[Finding | None] = []
    if len(eos) >= ENOUGH_ROWS and eos.end < 0.7:
        stopped = eos.start >= 0.8
        findings.append(
            Finding(
                "critical",
                "the answers stopped ending" if stopped else "the answers never end",
                f"eos_rate went from {eos.start:.1%} to {eos.end:.1%}",
                "longer answers score higher and nothing punishes a missing end"
                if stopped
                else "fine-tuning did not teach the end token, or the limit of tokens is too small",
                "raise the penalty for a missing end" if stopped else "fine-tune longer, or raise max_new_tokens",
            )
        )
    if len(length) < ENOUGH_ROWS:
        return findings
    evidence = f"response_tokens_mean went from {length.start:.3g} to {length.end:.3g}"
    if length.end > 2.5 * length.start:
        cause = "the reward model takes length for quality"
        fix = "look at the reward model's length bias, balance the pairs by length, raise kl_coef"
        findings.append(Finding("warning", "length explosion", evidence, cause, fix))
    elif length.end < 0.35 * length.start or length.end <= 2 < length.start:
        cause = "saying little is the safest way not to be punished by this reward"
        fix = "check how the reward model scores empty and very short answers, raise kl_coef"
        findings.append(Finding("critical", "length collapse", evidence, cause, fix))
    return findings


def _has_critic(rows: list[Row]) -> bool:
    """REINFORCE logs a value loss of 0 in every row, and its one update per rollout always has ratio 1."""
    return bool((series(rows, "value_loss").values != 0).any())


def _critic(rows: list[Row]) -> Finding | None:
    explained = series(rows, "explained_variance")
    later = explained.values[len(explained) // 2 :]
    if not _has_critic(rows) or len(explained) < ENOUGH_ROWS or np.median(later) > 0.02:
        return None
    return Finding(
        "warning",
        "the critic is dead",
        f"explained_variance in the second half of the run: median {np.median(later):.3g}",
        "the value model foresees nothing of the returns: its learning rate is too low, or its head gets no gradient",
        "raise the value loss's weight or its learning rate, start the critic from the reward model, check the masks",
    )


def _value_loss(rows: list[Row]) -> Finding | None:
    loss = series(rows, "value_loss")
    if len(loss) < ENOUGH_ROWS or loss.end < 20 * max(loss.start, 1e-3):
        return None
    return Finding(
        "critical",
        "the critic diverges",
        f"value_loss went from {loss.start:.3g} to {loss.end:.3g}",
        "the learning rate is too high, or the rewards grow without bound",
        "lower the learning rate; normalise the reward model's scores to standard deviation 1",
    )


def _step_size(rows: list[Row]) -> Finding | None:
    clipped, moved = series(rows, "clip_fraction"), series(rows, "approx_kl_nats_per_token")
    if not _has_critic(rows) or len(moved) < ENOUGH_ROWS or len(clipped) < ENOUGH_ROWS:
        return None
    evidence = (
        f"median approx_kl_nats_per_token {np.median(moved.values):.2g}, clip_fraction {np.median(clipped.values):.2g}"
    )
    if np.median(moved.values) > 0.1 or np.median(clipped.values) > 0.5:
        cause = "the learning rate is too high, or too many epochs are made of each batch"
        return Finding("warning", "the updates are too large", evidence, cause, "lower the learning rate or the epochs")
    if np.median(np.abs(moved.values)) < 1e-6 and clipped.values.max() == 0:
        cause = "the learning rate is too low, or the advantages are all zero (every answer scores the same)"
        fix = "raise the learning rate by ten times; check that scores differ between answers"
        return Finding("warning", "the updates do nothing", evidence, cause, fix)
    return None


def _score(rows: list[Row], score: Series) -> Finding | None:
    quarter = len(score) // 4
    change = surely_changed(score, stretch(score, 0, quarter), stretch(score, -quarter, len(score)), 3.0)
    evidence = f"score_mean went from {score.start:.3g} to {score.end:.3g}"
    if change > 0:
        return None
    if change < 0:
        cause = "updates so large that they undo what was learnt, a KL price above any gain, or a sign turned round"
        return Finding("critical", "the score falls", evidence, cause, "lower the learning rate; check kl_coef")
    cause = "the learning rate is too low, the KL price too high, or the scores do not depend on the answers"
    return Finding(
        "warning", "the score never moved", evidence, cause, "raise the learning rate, lower kl_coef, train longer"
    )


def _reward_hacking(rows: list[Row], score: Series) -> Finding | None:
    """Proxy up, truth down: after the truth's peak the score still rises and the truth surely falls."""
    truth = series(rows, "true_reward_mean")
    if len(truth) < ENOUGH_ROWS:
        return None
    width = max(4, len(truth) // 6)
    stretches = [(first, first + width) for first in range(0, len(truth) - 2 * width + 1)]
    first, last = max(stretches, key=lambda s: truth.mean_of(*s))
    peak, end = stretch(truth, first, last), stretch(truth, -width, len(truth))
    # five standard errors, because the highest of many stretches is partly high by luck
    fallen = -surely_changed(truth, peak, end, 5.0)
    around_peak = (score.steps >= peak.steps[0]) & (score.steps <= peak.steps[-1])
    risen = surely_changed(
        score, Series(score.steps[around_peak], score.values[around_peak]), stretch(score, -width, len(score)), 3.0
    )
    if fallen <= 0 or risen <= 0:
        return None
    return Finding(
        "critical",
        "reward hacking",
        f"since step {peak.steps[-1]:.0f} the score rose by {risen:.3g} while the true reward fell by {fallen:.3g}",
        "the policy has found what the reward model mistakes for quality",
        "stop at the true reward's peak, raise kl_coef, or label answers of this policy and retrain the reward model",
    )
