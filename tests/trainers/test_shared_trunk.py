"""PPO with policy and critic on one trunk: the numbers of two passes from one, and the gradient of both losses."""

import copy
import dataclasses

import pytest
import torch

from minirlhf.errors import UserError
from minirlhf.models.heads import ValueModel
from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.parallel.ranks import World
from minirlhf.rollout.collect import response_log_probs_and_values, response_values
from minirlhf.runs.run import RunOptions
from minirlhf.stages.policy import PolicyOptions
from minirlhf.stages.ppo import PPOStage, run_ppo
from minirlhf.trainers.ppo import actor_critic, ppo_backward
from tests.helpers.tiny_rl import (
    CONSTANT,
    assert_same,
    experience_of,
    fingerprint,
    gradients,
    nudged,
    tiny_generation,
    tiny_gpt,
    tiny_rollout,
    tiny_value_model,
)
from tests.trainers.test_ppo import Run, changed, without_clock


def one_trunk(dropout=0.0):
    """A policy, and a value model on it whose head has learnt something."""
    policy = tiny_gpt(layers=2, dropout=dropout)
    value_model = ValueModel(policy).eval()
    with torch.no_grad():
        value_model.head.weight.copy_(torch.linspace(-1, 1, 8)[None])
        value_model.head.bias.fill_(0.3)
    return policy, value_model


def shared_run(config=None, **options):
    policy = tiny_gpt(dropout=0.5)
    return Run(*([config] if config else []), policy=policy, value_model=ValueModel(policy), **options)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("critic", ["shared", "its own"])
def test_log_probs_entropies_and_values_are_those_of_two_passes(critic, temperature):
    policy, value_model = one_trunk()
    value_model = value_model if critic == "shared" else tiny_value_model()
    generation = tiny_generation(policy)
    sequence = generation.ids, generation.attention_mask, generation.response_mask.shape[1]
    log_probs, entropies, values = response_log_probs_and_values(policy, value_model, *sequence, temperature)
    assert torch.equal(values, response_values(value_model, *sequence))
    for found, expected in zip((log_probs, entropies), response_log_probs(policy, *sequence, temperature), strict=True):
        assert torch.equal(found, expected)


def test_the_gradient_is_the_sum_of_both_losses_gradients():
    policy, value_model = one_trunk()
    apart = copy.deepcopy(policy), copy.deepcopy(value_model)  # the same numbers on two trunks
    experience = experience_of(tiny_rollout(policy, value_model))
    config, rows = changed(micro_batch_size=2, entropy_coef=0.1), torch.arange(6)
    metrics, _ = ppo_backward(policy, value_model, experience, rows, config)
    expected_metrics, _ = ppo_backward(*apart, experience, rows, config)
    assert metrics == pytest.approx(expected_metrics, rel=1e-12)
    ours, critics = gradients(apart[0]), gradients(apart[1])
    assert min(float(critics[f"trunk.{name}"].norm()) for name in ours if not name.startswith("unembedding")) > 1e-6
    sums = {name: grad + critics.get(f"trunk.{name}", 0.0) for name, grad in ours.items()}
    assert_same(gradients(policy), sums)
    assert_same(gradients(value_model.head), gradients(apart[1].head))


def test_a_micro_batch_costs_one_pass(monkeypatch):
    policy, value_model = one_trunk()
    experience, passes = experience_of(tiny_rollout(policy, value_model)), []
    hidden = policy.hidden
    monkeypatch.setattr(policy, "hidden", lambda *ids, **asked: passes.append(ids) or hidden(*ids, **asked))
    ppo_backward(policy, value_model, experience, torch.arange(6), changed(micro_batch_size=2))
    assert len(passes) == 3


def test_the_optimizer_holds_every_weight_once():
    run = shared_run()
    policy_names = {f"policy.{name}" for name, _ in run.policy.named_parameters()}
    assert set(run.optimizer.names) == policy_names | {"value.head.weight", "value.head.bias"}
    assert len({id(parameter) for parameter in run.optimizer.parameters}) == len(run.optimizer.names)
    assert run.value_model.trunk is run.policy


def test_values_start_at_0_the_first_ratio_is_1_and_a_step_moves_both():
    run = shared_run(changed(steps=1, epochs=1, minibatches=1))
    assert (tiny_rollout(run.policy.eval(), run.value_model.eval()).values == 0).all()
    before = fingerprint(run.policy)
    metrics = next(run.reports()).metrics
    assert metrics["first_ratio_max"] == pytest.approx(1, abs=1e-12)
    assert metrics["kl_exact_probe_nats_per_token"] == pytest.approx(0, abs=1e-12)
    assert fingerprint(run.policy) != before
    assert (tiny_rollout(run.policy, run.value_model).values[:, 0] != 0).all()


def test_a_stopped_run_resumes_bit_identical():
    config = changed(optim=dataclasses.replace(CONSTANT, schedule="linear"))
    whole, before, after = shared_run(config), shared_run(config), shared_run(config)
    reports = list(whole.reports())
    first = next(before.reports())
    after.policy.load_state_dict(before.policy.state_dict())
    after.value_model.head.load_state_dict(before.value_model.head.state_dict())
    after.optimizer.load_state_tensors(before.optimizer.state_tensors())
    resumed = list(after.reports(start_step=1, state=first.state))
    assert [without_clock(r.metrics) for r in resumed] == [without_clock(r.metrics) for r in reports[1:]]
    assert fingerprint(after.value_model) == fingerprint(whole.value_model)  # its trunk is the policy


def test_a_reference_on_the_same_trunk_is_refused():
    run = shared_run()
    run.reference = run.policy
    with pytest.raises(ValueError, match="shares"):
        next(run.reports())
    assert actor_critic(run.policy, nudged(run.value_model)).value.trunk is not run.policy  # a copy parts them


def test_a_shared_trunk_is_not_cut_up_among_processes(tmp_path):
    stage = PPOStage(RunOptions(out=tmp_path / "out"), PolicyOptions(tmp_path, "a:b"), value_from="shared")
    with pytest.raises(UserError, match="cannot be cut up"):
        run_ppo(stage, World(0, 1, sharded=True))
    assert not (tmp_path / "out").exists()
