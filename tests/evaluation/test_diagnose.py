"""Planted faults are named, each by its own name and alone; healthy runs, noise and all, have no findings."""

import json

import numpy as np
import pytest

from minirlhf.errors import UserError
from minirlhf.evaluation.diagnose import diagnose, diagnose_rows
from tests.helpers.curves import likelihood_rows, policy_rows, reward_rows

SEEDS = range(25)


def names(rows):
    return [finding.what for finding in diagnose_rows(rows)]


@pytest.mark.parametrize(
    ("jump", "precision", "named"), [(0.1, "bfloat16", False), (0.1, "float32", True), (0.2, "bfloat16", True)]
)
def test_a_run_in_bfloat16_may_begin_with_a_rounded_ratio(tmp_path, jump, precision, named):
    rows = [row | {"first_ratio_max": 1 + jump} for row in policy_rows(0, 30)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {"settings": {"stage": {"run": {"precision": precision}}}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert ("the ratio is not 1 at the first minibatch" in [finding.what for finding in diagnose(tmp_path)]) is named


@pytest.mark.parametrize("make", [likelihood_rows, reward_rows, policy_rows])
@pytest.mark.parametrize("n", [8, 30, 100, 400])
def test_healthy_runs_of_any_length_have_no_findings(make, n):
    for seed in SEEDS:
        assert names(make(seed, n)) == []


def test_a_healthy_reinforce_run_is_not_blamed_for_having_no_critic():
    for seed in SEEDS:
        assert names(policy_rows(seed, critic=False)) == []


def test_a_run_that_ends_by_levelling_off_or_by_noise_is_healthy():
    for seed in SEEDS:
        assert names(likelihood_rows(seed, loss_nats_per_token=lambda t, x, g: x + g.normal(0, 0.2, len(t)))) == []
        # the true reward levels off while the score creeps on: no hack yet
        assert (
            names(policy_rows(seed, true_reward_mean=lambda t, x, g: np.minimum(x, 2.2) + g.normal(0, 0.05, len(t))))
            == []
        )


def jump(at, size):
    return lambda t, x, g: x + size * (t > at)


LIKELIHOOD_FAULTS = {
    "the loss diverges": {"loss_nats_per_token": lambda t, x, g: x + 6 * np.clip(t - 0.6, 0, 1)},
    "the loss never moved": {"loss_nats_per_token": lambda t, x, g: 6.2 + g.normal(0, 0.05, len(t))},
    "the loss has spikes": {"loss_nats_per_token": lambda t, x, g: x + 2.0 * (np.arange(len(t)) % 70 == 5)},
    "the loss is still falling in a straight line": {
        "loss_nats_per_token": lambda t, x, g: 6 - t + g.normal(0, 0.05, len(t))
    },
    "over-fitting": {
        "loss_nats_per_token": lambda t, x, g: x - 0.8 * np.clip(t - 0.4, 0, 1),
        "val_loss_nats_per_token": lambda t, x, g: x + 0.8 * np.clip(t - 0.4, 0, 1),
    },
    "a metric is not a number": {"grad_norm": lambda t, x, g: np.where(t > 0.995, np.nan, x)},
    "the gradients blow up": {"grad_norm": lambda t, x, g: x * np.exp(5 * t)},
}
REWARD_FAULTS = {
    "the scores are at chance": {
        "accuracy": lambda t, x, g: 0.5 + g.normal(0, 0.1, len(t)),
        "val_accuracy": lambda t, x, g: 0 * t + 0.51,
    },
    "the pairs are learnt by heart": {"accuracy": lambda t, x, g: np.minimum(0.5 + t, 0.98)},
    "the scores are over-confident": {"val_loss_nats_per_pair": lambda t, x, g: 0.72 + 0 * t},
}
POLICY_FAULTS = {
    "the ratio is not 1 at the first minibatch": {"first_ratio_max": jump(0, 0.35)},
    "the policy differs from its reference before the first update": {"kl_nats_per_response": jump(0, 1.0)},
    "KL explosion": {"kl_nats_per_response": lambda t, x, g: x * 12},
    "the KL is negative": {"kl_nats_per_response": lambda t, x, g: -x},
    "entropy collapse": {"entropy_nats_per_token": lambda t, x, g: x * np.exp(-5 * t)},
    "loss of variety": {"distinct_2": lambda t, x, g: x * np.exp(-t)},
    "the answers stopped ending": {"eos_rate": lambda t, x, g: x - 0.8 * t},
    "the answers never end": {"eos_rate": lambda t, x, g: 0.1 + 0 * t},
    "length explosion": {"response_tokens_mean": lambda t, x, g: x * (1 + 3 * t)},
    "length collapse": {"response_tokens_mean": lambda t, x, g: x * np.exp(-4 * t)},
    "the critic is dead": {"explained_variance": lambda t, x, g: -0.1 + g.normal(0, 0.05, len(t))},
    "the critic diverges": {"value_loss": lambda t, x, g: x * np.exp(5 * t)},
    "the updates are too large": {"approx_kl_nats_per_token": jump(0, 0.3)},
    "the updates do nothing": {
        "approx_kl_nats_per_token": lambda t, x, g: 0 * t,
        "clip_fraction": lambda t, x, g: 0 * t,
    },
    "the score falls": {"score_mean": lambda t, x, g: -x},
    "the score never moved": {"score_mean": lambda t, x, g: g.normal(0, 0.1, len(t))},
    "reward hacking": {"true_reward_mean": lambda t, x, g: x - 3 * np.clip(t - 0.4, 0, 1)},
}
# a dying length drags the KL per token up with it, and a fall of the score may come with what caused it
MAY_COME_ALONG = {"length collapse": {"KL explosion"}}
CASES = [
    (make, what, faults)
    for make, table in (
        (likelihood_rows, LIKELIHOOD_FAULTS),
        (reward_rows, REWARD_FAULTS),
        (policy_rows, POLICY_FAULTS),
    )
    for what, faults in table.items()
]


@pytest.mark.parametrize("make, what, faults", CASES, ids=[case[1] for case in CASES])
def test_a_planted_fault_is_named_and_nothing_else_is(make, what, faults):
    for seed in SEEDS:
        found = names(make(seed, **faults))
        assert what in found
        assert set(found) - {what} <= MAY_COME_ALONG.get(what, set())


def test_why_the_loss_never_moved_is_told_apart():
    flat = lambda t, x, g: 5 + g.normal(0, 0.01, len(t))  # noqa: E731
    cause = lambda **faults: diagnose_rows(likelihood_rows(**faults))[0].likely_cause  # noqa: E731
    assert "mask" in cause(loss_nats_per_token=lambda t, x, g: 0 * t)
    assert "no gradient" in cause(loss_nats_per_token=flat, grad_norm=lambda t, x, g: 0 * t)
    assert "learning rate is too low" in cause(loss_nats_per_token=flat)


def test_reward_hacking_from_the_first_step_on():
    for seed in SEEDS:
        assert names(policy_rows(seed, true_reward_mean=lambda t, x, g: 2.4 - x)) == ["reward hacking"]


def test_the_worst_comes_first_and_every_finding_says_what_to_do():
    rows = policy_rows(0, **POLICY_FAULTS["the critic is dead"], **POLICY_FAULTS["KL explosion"])
    findings = diagnose_rows(rows)
    assert [finding.severity for finding in findings] == ["critical", "warning"]
    for finding in findings:
        assert all((finding.what, finding.evidence, finding.likely_cause, finding.what_to_do))
        assert finding.what in str(finding) and finding.what_to_do in str(finding)


def test_a_length_bias_found_by_the_evaluation_is_reported(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reward_rows()), encoding="utf-8")
    assert diagnose(tmp_path) == []
    length = {"length_bias": True, "labels_prefer_longer": {"mean": 0.5}, "model_prefers_longer": 0.8}
    (tmp_path / "evaluation.json").write_text(json.dumps({"length": length}), encoding="utf-8")
    assert [finding.what for finding in diagnose(tmp_path)] == ["length bias"]
    (tmp_path / "evaluation.json").write_text(json.dumps({"length": length | {"length_bias": False}}), encoding="utf-8")
    assert diagnose(tmp_path) == []


def test_a_folder_without_metrics_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        diagnose(tmp_path)
