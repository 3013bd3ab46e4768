"""A rollout holds facts: the right tokens, the right log-probs, the score of the text that counts, and no graph."""

import dataclasses
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.records import Generation
from minirlhf.rollout.collect import (
    check_plain_sampling,
    cut_at_stop,
    penalise_missing_end,
    response_texts,
    response_values,
)
from minirlhf.rollout.scoring import reward_fn_scorer
from tests.helpers.tiny_rl import (
    TOKENIZER,
    nudged,
    prompt_batch,
    tiny_generation,
    tiny_gpt,
    tiny_reward_model,
    tiny_rollout,
    tiny_value_model,
)

END, PAD = TOKENIZER.end_id, TOKENIZER.pad_id


def test_the_world_of_these_tests_has_short_long_ended_and_cut_answers():
    rollout = tiny_rollout()
    lengths = rollout.response_mask.sum(dim=1).tolist()
    assert len(set(lengths)) > 2
    assert rollout.ended.any()
    assert not rollout.ended.all()


def test_every_fact_belongs_to_its_own_row():
    policy, value_model, reference = tiny_gpt(layers=2), tiny_value_model(), tiny_gpt(9)
    rollout = tiny_rollout(policy, value_model, reference, temperature=0.7)
    for row in range(len(rollout.ids)):
        real, tokens = rollout.attention_mask[row], int(rollout.response_mask[row].sum())
        ids = rollout.ids[row, real][None]  # [1 p+r], no padding at all
        for model, recorded in ((policy, rollout.old_log_probs), (reference, rollout.ref_log_probs)):
            log_softmax = (model(ids[:, :-1]) / 0.7).log_softmax(dim=-1)[0, -tokens:]
            expected = log_softmax[torch.arange(tokens), ids[0, -tokens:]].detach()
            torch.testing.assert_close(recorded[row, :tokens], expected, rtol=1e-10, atol=1e-12)
            assert (recorded[row, tokens:] == 0).all()
        values = value_model(ids)[0, -tokens - 1 : -1].detach()
        torch.testing.assert_close(rollout.values[row, :tokens], values, rtol=1e-10, atol=1e-12)
        text = TOKENIZER.decode(ids[0, -tokens:].tolist(), skip_control=True)
        assert rollout.responses[row] == text
        assert rollout.prompts[row] == TOKENIZER.decode(ids[0, :-tokens].tolist())
        assert bool(rollout.ended[row]) == bool(ids[0, -1] == END)


def test_micro_batches_change_no_fact():
    networks = tiny_gpt(layers=2), tiny_value_model(), tiny_gpt(9)
    whole, split = tiny_rollout(*networks), tiny_rollout(*networks, micro_batch_size=2)
    for name in ("ids", "old_log_probs", "ref_log_probs", "values", "scores"):
        torch.testing.assert_close(getattr(whole, name), getattr(split, name), rtol=1e-12, atol=1e-12)


def test_the_scorer_sees_the_cut_answer_without_its_end_token():
    seen = []

    def fn(prompts, responses):
        seen.extend(responses)
        return [0.0] * len(responses)

    rollout = tiny_rollout(scorer=reward_fn_scorer(fn))
    assert tuple(seen) == rollout.responses
    assert not any("<|" in response for response in seen)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([65, 66, END]), min_size=5, max_size=5), min_size=1, max_size=4), st.data())
def test_what_stands_behind_the_first_stop_token_changes_nothing(rows, data):
    def generation_of(rows):
        response = torch.tensor(rows)
        ids = torch.cat([torch.full((len(rows), 2), 97), response], dim=1)
        everything = torch.ones_like(ids, dtype=torch.bool)
        return Generation(
            ids, everything, everything[:, 2:], torch.zeros(len(rows), dtype=torch.bool), -response.double()
        )

    cut = cut_at_stop(generation_of(rows), (END,), PAD)
    kept = [row[: row.index(END) + 1] if END in row else row for row in rows]
    assert cut.response_mask.sum(dim=1).tolist() == list(map(len, kept))
    assert cut.ended.tolist() == [END in row for row in rows]
    assert cut.ids[:, 2:][cut.response_mask].tolist() == list(chain.from_iterable(kept))
    assert (cut.ids[:, 2:][~cut.response_mask] == PAD).all()
    assert (cut.log_probs[~cut.response_mask] == 0).all()
    assert cut.response_mask.shape[1] == max(map(len, kept))
    assert response_texts(cut, TOKENIZER) == tuple(bytes(i for i in row if i != END).decode() for row in kept)

    junk = data.draw(st.lists(st.sampled_from([65, 66, END]), min_size=25, max_size=25))
    changed = [k + junk[5 * i : 5 * i + 5 - len(k)] for i, k in enumerate(kept)]
    again = cut_at_stop(generation_of(changed), (END,), PAD)
    for name in ("ids", "attention_mask", "response_mask", "ended", "log_probs"):
        assert torch.equal(getattr(cut, name), getattr(again, name)), name


def test_cutting_what_is_already_cut_changes_nothing():
    generation = tiny_generation()
    again = cut_at_stop(generation, (END,), PAD)
    for name, array in vars(generation).items():
        assert torch.equal(array, getattr(again, name)), name


def test_an_answer_without_an_end_never_gains_from_it():
    scores, ended = torch.tensor([3.0, 3.0, -2.0, -2.0]), torch.tensor([True, False, True, False])
    assert penalise_missing_end(scores, ended, 1.0).tolist() == [3.0, -1.0, -2.0, -3.0]
    assert penalise_missing_end(scores, ended, 0.0).tolist() == [3.0, 0.0, -2.0, -2.0]
    assert penalise_missing_end(scores, ended, None).tolist() == scores.tolist()


@pytest.mark.parametrize(
    ("option", "word"), [({"top_k": 5}, "top_k=5"), ({"top_p": 0.9}, "top_p=0.9"), ({"greedy": True}, "greedy")]
)
def test_cut_distributions_are_refused_in_rollouts(option, word):
    with pytest.raises(UserError, match=word):
        check_plain_sampling(SamplingConfig(**option))
    check_plain_sampling(SamplingConfig(temperature=0.5))


def test_collect_refuses_cut_distributions_and_networks_in_train_mode():
    from minirlhf.rollout.collect import collect

    policy, scorer = tiny_gpt(), reward_fn_scorer(lambda p, r: [0.0] * len(r))
    rest = (scorer, prompt_batch(), TOKENIZER)
    with pytest.raises(UserError, match="top_k=3"):
        collect(policy, None, policy, *rest, SamplingConfig(4, top_k=3), torch.Generator())
    with pytest.raises(ValueError, match=r"reference is in train mode"):
        collect(policy, None, tiny_gpt().train(), *rest, SamplingConfig(4), torch.Generator())
    with pytest.raises(ValueError, match=r"policy is in train mode"):
        collect(tiny_gpt().train(), None, policy, *rest, SamplingConfig(4), torch.Generator())


@pytest.mark.parametrize("name", ["policy.unembedding.weight", "ref_log_probs", "values", "scores"])
def test_a_fact_that_is_not_finite_is_named(name):
    policy, reference, value_model = tiny_gpt(), tiny_gpt(9), tiny_value_model()
    options = {}
    with torch.no_grad():
        if name == "ref_log_probs":
            reference.final_norm.weight[0] = torch.nan
        elif name == "values":
            value_model.head.bias[0] = torch.nan
        elif name == "scores":
            options["scorer"] = lambda generation, prompts, responses: torch.full((len(prompts),), torch.nan)
        else:
            policy.unembedding.weight[3] = torch.nan
    with pytest.raises(NonFiniteError, match=name):
        tiny_rollout(policy, value_model, reference, **options)


def test_nothing_in_a_rollout_carries_a_graph():
    rollout = tiny_rollout(
        value_model=tiny_value_model(), scorer=lambda g, p, r: tiny_reward_model()(g.ids, g.attention_mask)
    )
    for name, array in vars(rollout).items():
        assert not isinstance(array, torch.Tensor) or not array.requires_grad, name


def test_without_a_value_model_the_values_are_zero():
    assert (tiny_rollout().values == 0).all()


def test_values_stand_before_their_token():
    value_model, generation = tiny_value_model(), tiny_generation()
    before = response_values(value_model, generation.ids, generation.attention_mask, generation.response_mask.shape[1])
    changed = dataclasses.replace(generation, ids=generation.ids.clone())
    changed.ids[:, -1] = (changed.ids[:, -1] + 1) % 256  # the last token is never read: its value comes before it
    after = response_values(value_model, changed.ids, changed.attention_mask, changed.response_mask.shape[1])
    assert torch.equal(before, after)


def test_the_reference_matters():
    policy = tiny_gpt()
    near, far = tiny_rollout(policy, reference=policy), tiny_rollout(policy, reference=nudged(policy, 2))
    torch.testing.assert_close(near.old_log_probs, near.ref_log_probs, rtol=1e-12, atol=1e-12)  # one cached, one not
    assert not torch.allclose(far.old_log_probs, far.ref_log_probs)


def test_a_stop_token_that_does_not_count_ends_nothing():
    """The generator's own mask already ends before it: the answer was cut, not ended."""
    ids = torch.tensor([[97, 65, 66, END, 65], [97, 65, END, 66, END]])
    mask = torch.tensor([[True, True, False, False], [True, True, False, False]])
    attention_mask = torch.cat([torch.ones(2, 1, dtype=torch.bool), mask], dim=1)
    nothing = torch.zeros(2, dtype=torch.bool)
    cut = cut_at_stop(Generation(ids, attention_mask, mask, nothing, torch.zeros(2, 4)), (END,), PAD)
    assert cut.ended.tolist() == [False, True]
    assert cut.response_mask.tolist() == [[True, True], [True, True]]
