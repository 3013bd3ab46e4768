"""TRL's GRPO and RLOO, advantages and losses, and what they share with PPO, against ours.

Called are the methods `_compute_loss`, `_get_per_token_logps_and_entropies` and `_generate_and_score_completions` of
TRL's trainers (trl_stand_in.py says how), and functions of its utilities. PPO, its GAE and its whitening left TRL in
1.13; test_trl_ppo_witness.py asks the last release whose PPO can be called piece by piece.

Where TRL says something else under the same name:
    GRPO's loss         by default, "dapo": the mean over all tokens of the accumulated batch, and no KL (beta 0); ours
                        and the paper's eq. 3, its "grpo": the mean over each answer's tokens, then over answers
    group advantages    divide by std + 1e-4, ours by std + 1e-6; both std have n - 1 below them
    k3                  the same estimate of KL(policy || reference), but written so that small values lose their digits
    RLOO                clips one ratio per answer, of its summed log-probabilities; ours one ratio per token
    entropy             of logits with a forbidden token (-inf) is NaN, ours is that of what is left
"""

import dataclasses
from collections import defaultdict, deque
from types import MethodType, SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.objectives.advantages import shape_rewards
from minirlhf.objectives.grpo import group_advantages, grpo_loss
from minirlhf.objectives.kl import k3
from minirlhf.objectives.likelihood import response_log_probs, token_log_probs, token_log_probs_and_entropy
from minirlhf.objectives.ppo import ppo_policy_loss
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.objectives.rloo import rloo_advantages
from tests.witnesses.compare import EXACT, assert_same, randn
from tests.witnesses.trl_stand_in import our_model, stand_in, their_model

pytest.importorskip("trl", minversion="1.13")
from trl import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

V, P, R = 5, 3, 4  # vocabulary, prompt tokens, longest answer
seeds = st.integers(0, 2**31)
few = settings(max_examples=25)


@dataclasses.dataclass(frozen=True)
class Responses:
    """A rollout of a bigram policy: ids [B P+R], prompts left-padded, answers right-padded; three tables [V V]."""

    ids: torch.Tensor
    attention_mask: torch.Tensor
    response_mask: torch.Tensor
    table: torch.Tensor
    old_table: torch.Tensor
    ref_table: torch.Tensor
    temperature: float

    def log_probs(self, table):
        """[B R], 0 off the mask."""
        found, _ = response_log_probs(our_model(table), self.ids, self.attention_mask, R, self.temperature)
        return found.masked_fill(~self.response_mask, 0.0)

    @property
    def inputs(self):
        """As TRL's trainers hand it to their losses."""
        return {
            "prompt_ids": self.ids[:, :P],
            "prompt_mask": self.attention_mask[:, :P].long(),
            "completion_ids": self.ids[:, P:],
            "completion_mask": self.response_mask.long(),
            "old_per_token_logps": self.log_probs(self.old_table),
            "ref_per_token_logps": self.log_probs(self.ref_table),
            "num_items_in_batch": self.response_mask.sum(),
        }


def responses(seed, rows, temperature=1.0):
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (rows, P + R), generator=draws)
    lengths = torch.randint(1, R + 1, (rows, 1), generator=draws)
    pads = torch.randint(P, (rows, 1), generator=draws)
    response_mask = torch.arange(R) < lengths
    mask = torch.cat((torch.arange(P) >= pads, response_mask), dim=1)
    table = 2 * randn(seed, V, V)
    old_table, ref_table = table + 0.3 * randn(seed + 1, V, V), table + 0.5 * randn(seed + 2, V, V)
    return Responses(ids, mask, response_mask, table, old_table, ref_table, temperature)


def trainer_of(case, trainer_class, **settings):
    trainer = stand_in(temperature=case.temperature, model_kwarg_keys=(), _entropy_bonus_enabled=False, **settings)
    trainer._get_per_token_logps_and_entropies = MethodType(trainer_class._get_per_token_logps_and_entropies, trainer)
    return trainer


def grpo_trainer(case, loss_type, beta, clip_range):
    trainer = trainer_of(
        case, GRPOTrainer, loss_type=loss_type, beta=beta, epsilon_low=clip_range, epsilon_high=clip_range,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", use_vllm=False,
        current_gradient_accumulation_steps=1, max_completion_length=R,
    )  # fmt: skip
    trainer.args = SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
    return trainer


def trl_grpo(case, table, advantages, loss_type="grpo", beta=0.0, clip_range=0.2):
    trainer = grpo_trainer(case, loss_type, beta, clip_range)
    return GRPOTrainer._compute_loss(
        trainer, their_model(table, case.temperature), {**case.inputs, "advantages": advantages}
    )


def our_grpo(case, table, advantages, clip_range=0.2, kl_coef=0.0, **options):
    old, ref = case.log_probs(case.old_table), case.log_probs(case.ref_table)
    return grpo_loss(case.log_probs(table), old, ref, advantages, case.response_mask, clip_range, kl_coef, **options)


@few
@given(seeds, st.sampled_from([0.7, 1.0, 1.4]))
def test_log_probs_and_entropies_of_a_response(seed, temperature):
    """Temperature, shift and alignment with the response, by TRL's own code on the whole sequence."""
    case = responses(seed, 3, temperature)

    def theirs(table):
        trainer = trainer_of(case, GRPOTrainer)
        trainer._entropy_bonus_enabled = True  # or the entropies carry no gradient
        found = trainer._get_per_token_logps_and_entropies(
            their_model(table, case.temperature), case.ids, case.attention_mask.long(), R, compute_entropy=True
        )
        return torch.stack(found[:2]) * case.response_mask

    def ours(table):
        found = response_log_probs(our_model(table), case.ids, case.attention_mask, R, temperature)
        return torch.stack(found) * case.response_mask

    assert_same(ours, theirs, case.table)
    logits, targets = 3 * randn(seed, 2, 3, V), case.ids[:2, :3]
    assert_same(lambda z: token_log_probs(z, targets), lambda z: selective_log_softmax(z, targets), logits)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_log_probs_their_fused_head_finds(temperature):
    """From 1.14 on TRL's losses take log-probabilities and entropies from a head that never builds the logits. Held
    against our waist on a small GPT-2 of transformers, value and gradient; its kernel works in float32."""
    utils = pytest.importorskip("trl.trainer.utils")
    if not hasattr(utils, "add_fused_lm_head"):
        pytest.skip("TRL before 1.14 builds the logits: test_log_probs_and_entropies_of_a_response")
    transformers = pytest.importorskip("transformers")
    shape = {"vocab_size": 13, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0))
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.copy_(0.5 * randn(place, *parameter.shape))
    ids = torch.randint(13, (3, 8), generator=torch.Generator().manual_seed(0))
    logits = model(ids).logits[:, :-1]
    ours = token_log_probs_and_entropy(logits, ids[:, 1:], temperature)
    utils.add_fused_lm_head(model, temperature, outputs=("log_probs", "entropy"))
    fused = model(ids, labels=ids, fused_lm_head=True)
    weight = model.transformer.wte.weight
    for mine, theirs in zip(ours, (fused.log_probs, fused.entropy), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
        gradients = [torch.autograd.grad(x.square().sum(), weight, retain_graph=True)[0] for x in (mine, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_the_entropy_of_what_is_left_when_a_token_is_forbidden():
    logits = torch.tensor([[[0.0, 1.0, -torch.inf]]], dtype=torch.float64)
    _, entropy = token_log_probs_and_entropy(logits, torch.zeros(1, 1, dtype=torch.int64))
    torch.testing.assert_close(entropy, entropy_from_logits(logits[..., :2]), **EXACT)
    assert entropy_from_logits(logits).isnan().all()


def trl_k3(policy, reference):
    """GRPO's loss of answers of one token without advantage, at beta 1, is the mean of their k3."""
    rows = len(policy)
    case = responses(0, rows)
    one = torch.zeros(rows, R, dtype=torch.bool)
    one[:, 0] = True
    case = dataclasses.replace(case, response_mask=one)
    zeros = torch.zeros(rows, R, dtype=torch.float64)
    trainer = grpo_trainer(case, "grpo", 1.0, 0.2)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (torch.where(one, policy[:, None], 0.0), zeros, None)
    known = torch.where(one, reference[:, None], 0.0)
    inputs = {**case.inputs, "ref_per_token_logps": known, "advantages": zeros[:, 0]}
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@few
@given(seeds)
def test_k3_and_its_direction(seed):
    """TRL writes log reference - log policy where we write d; both estimate KL(policy || reference), not the other."""
    policy, reference = 2 * randn(seed, 6), 2 * randn(seed + 1, 6)
    assert_same(lambda p: k3(p, reference).mean(), lambda p: trl_k3(p, reference), policy)
    assert not torch.allclose(k3(reference, policy).mean(), trl_k3(policy, reference))


def test_k3_close_to_the_reference():
    """At a distance of 1e-6 the value is 5e-13. Written e^-d + d - 1, as TRL has it, four of its digits are left."""
    policy = torch.tensor([1e-6], dtype=torch.float64)
    exact = 5e-13 - 1e-18 / 6
    assert abs(k3(policy, torch.zeros_like(policy)).item() / exact - 1) < 1e-9
    assert 1e-6 < abs(trl_k3(policy, torch.zeros_like(policy)).item() / exact - 1) < 1e-2


@few
@given(seeds, st.integers(1, 4), st.sampled_from([0.1, 0.2]), st.sampled_from([0.0, 0.04, 1.0]))
def test_grpo(seed, rows, clip_range, kl_coef):
    case, advantages = responses(seed, rows, 1.3), randn(seed + 3, rows)
    assert_same(
        lambda table: our_grpo(case, table, advantages, clip_range, kl_coef),
        lambda table: trl_grpo(case, table, advantages, "grpo", kl_coef, clip_range),
        case.table,
    )


@few
@given(seeds, st.integers(1, 4), st.sampled_from([0.1, 0.2]))
def test_ppos_policy_loss_is_grpos_mean_over_tokens(seed, rows, clip_range):
    """TRL has no PPO any more; its "bnpo", with an advantage per token and no KL, is PPO's clipped loss. Its "dr_grpo"
    divides the same sum by rows times the longest answer allowed: our count."""
    case, advantages = responses(seed, rows), randn(seed + 3, rows, R)

    def ours(table, **options):
        old = case.log_probs(case.old_table)
        return ppo_policy_loss(case.log_probs(table), old, advantages, case.response_mask, clip_range, **options)

    for loss_type in ("bnpo", "dapo"):
        assert_same(ours, lambda table, t=loss_type: trl_grpo(case, table, advantages, t, 0.0, clip_range), case.table)
    assert_same(
        lambda table: ours(table, count=rows * R),
        lambda table: trl_grpo(case, table, advantages, "dr_grpo", 0.0, clip_range),
        case.table,
    )


@few
@given(seeds, st.integers(2, 4))
def test_their_default_loss_weighs_an_answer_by_its_length(seed, rows):
    """ "dapo" is the mean over all tokens: each answer's loss of ours, weighted by its tokens. TRL's other defaults of
    GRPO are no KL at all, where the paper's and ours is 0.04."""
    case, advantages = responses(seed, rows), randn(seed + 3, rows)
    lengths = case.response_mask.sum(1)

    def by_ours(table):
        total = 0.0
        for row in range(rows):
            one = dataclasses.replace(
                case,
                ids=case.ids[row : row + 1],
                attention_mask=case.attention_mask[row : row + 1],
                response_mask=case.response_mask[row : row + 1],
            )
            total = total + lengths[row] * our_grpo(one, table, advantages[row : row + 1], kl_coef=0.1)
        return total / lengths.sum()

    assert_same(by_ours, lambda table: trl_grpo(case, table, advantages, "dapo", 0.1), case.table)
    if len(set(lengths.tolist())) > 1:
        assert not torch.allclose(by_ours(case.table), our_grpo(case, case.table, advantages, kl_coef=0.1), rtol=1e-9)
    defaults = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    assert (defaults["loss_type"], defaults["beta"], defaults["epsilon"]) == ("dapo", 0.0, 0.2)


def trl_advantages(trainer_class, case, scores, group_size, beta=0.0, **settings):
    """TRL's advantages of answers with these scores, by the method that would also write the answers."""
    prompts = [row[mask].tolist() for row, mask in zip(case.ids[:, :P], case.attention_mask[:, :P], strict=True)]
    completions = [row[mask].tolist() for row, mask in zip(case.ids[:, P:], case.response_mask, strict=True)]
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=1, batch_decode=lambda ids, **_: [""] * len(ids))
    trainer = trainer_of(
        case, trainer_class, environment_factories=None, environments=None, tools=None, _tokenizer=tokenizer,
        processing_class=tokenizer, pad_to_multiple_of=None, mask_truncated_completions=False, use_vllm=False,
        num_iterations=1, beta=beta, num_generations=group_size,
        ref_model=their_model(case.ref_table, case.temperature),
        reward_weights=torch.ones(1), reward_func_names=["score"], multi_objective_aggregation="sum_then_normalize",
        reward_clip_range=None, _pending_extra_logs={}, _pending_metrics={}, log_multimodal=False,
        _logs={name: deque() for name in ("prompt", "completion", "advantages")}
        | {"rewards": defaultdict(deque), "extra": defaultdict(deque)},
        **settings,
    )  # fmt: skip
    table = their_model(case.table, case.temperature)

    class Model:
        training, is_gradient_checkpointing = True, False

        def __call__(self, **inputs):
            return table(**inputs)

    trainer.model = Model()
    trainer.args = SimpleNamespace(
        per_device_train_batch_size=len(scores), steps_per_generation=1, gradient_accumulation_steps=1,
        gradient_checkpointing_kwargs=None,
    )  # fmt: skip
    written = (prompts, completions, None, [""] * len(scores), None, {}, None, None)
    trainer._generate = lambda prompts: written if trainer_class is GRPOTrainer else written[:2] + written[3:4]
    trainer._calculate_rewards = lambda *_: scores[:, None]
    return trainer_class._generate_and_score_completions(trainer, [{"prompt": ""} for _ in scores])["advantages"]


@few
@given(seeds, st.integers(2, 5), st.integers(1, 3))
def test_group_advantages(seed, group_size, groups):
    """Both put n - 1 under the variance, TRL by a factor n / (n - 1) that it rounds to float32. TRL adds 1e-4 to the
    std, ours 1e-6; without the division they are equal."""
    scores = 3 * randn(seed, groups * group_size)
    case = responses(seed, len(scores))
    plain = trl_advantages(GRPOTrainer, case, scores, group_size, scale_rewards="none")
    torch.testing.assert_close(group_advantages(scores, group_size, divide_by_std=False), plain, **EXACT)
    scaled = trl_advantages(GRPOTrainer, case, scores, group_size, scale_rewards="group")
    std = scores.view(groups, group_size).std(dim=1).repeat_interleave(group_size)
    ours = group_advantages(scores, group_size)
    torch.testing.assert_close(ours * (std + 1e-6), scaled * (std + 1e-4), rtol=1e-7, atol=1e-11)
    assert not torch.allclose(ours, scaled, rtol=1e-6)


@few
@given(seeds, st.integers(2, 5), st.integers(1, 3), st.sampled_from([0.0, 0.3]))
def test_rloo_advantages(seed, group_size, groups, kl_coef):
    """With the KL inside the score: TRL subtracts the summed k1, which is what a row of our rewards sums to."""
    scores = 3 * randn(seed, groups * group_size)
    case = responses(seed, len(scores))
    theirs = trl_advantages(RLOOTrainer, case, scores, group_size, kl_coef, normalize_advantages=False)
    log_probs, ref_log_probs = case.log_probs(case.table), case.log_probs(case.ref_table)
    rewards = shape_rewards(scores, log_probs, ref_log_probs, case.response_mask, kl_coef)
    torch.testing.assert_close(rloo_advantages(rewards.sum(1), group_size), theirs, **EXACT)


@few
@given(seeds, st.integers(2, 5))
def test_their_rloo_loss_has_one_ratio_per_answer(seed, rows):
    """It clips the ratio of whole answers, the exponent of summed log-probabilities: PPO's loss with an answer as its
    one token. Ours clips token by token. On the first step both are REINFORCE, apart from what they divide by."""
    case, advantages = responses(seed, rows), randn(seed + 3, rows)

    def theirs(table, old_table=case.old_table):
        trainer = trainer_of(case, RLOOTrainer, epsilon_low=0.2, epsilon_high=0.2)
        old = case.log_probs(old_table).sum(1)
        inputs = {**case.inputs, "old_logps": old, "advantages": advantages}
        return RLOOTrainer._compute_loss(trainer, their_model(table, case.temperature), inputs)

    def by_ours(table):
        old, one = case.log_probs(case.old_table).sum(1)[:, None], torch.ones(rows, 1, dtype=torch.bool)
        return ppo_policy_loss(case.log_probs(table).sum(1)[:, None], old, advantages[:, None], one)

    assert_same(by_ours, theirs, case.table)

    spread = advantages[:, None].expand(rows, R)
    gradients = []
    for loss in (
        lambda table: theirs(table, case.table),
        lambda table: reinforce_loss(case.log_probs(table), spread, case.response_mask, count=rows),
    ):
        leaf = case.table.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss(leaf), leaf)[0])
    torch.testing.assert_close(*gradients, **EXACT)
