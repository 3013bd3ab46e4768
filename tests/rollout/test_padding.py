"""Dropping columns that hold only padding changes no number."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.rollout.padding import for_responses, micro_batches, needed_columns
from tests.helpers.tiny_rl import tiny_generation, tiny_gpt

lengths = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=7)


def masks_of(lengths, spare_prompt=0, spare_response=0):
    prompt_tokens = max(p for p, _ in lengths) + spare_prompt
    response_tokens = max(r for _, r in lengths) + spare_response
    prompt = torch.tensor([[t >= prompt_tokens - p for t in range(prompt_tokens)] for p, _ in lengths])
    response = torch.tensor([[t < r for t in range(response_tokens)] for _, r in lengths])
    return torch.cat([prompt, response], dim=1), response


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(0, 3), st.integers(0, 3))
def test_the_needed_columns_are_exactly_those_with_a_real_token(lengths, spare_prompt, spare_response):
    attention_mask, response_mask = masks_of(lengths, spare_prompt, spare_response)
    columns, response_columns = needed_columns(attention_mask, response_mask)
    assert attention_mask[:, columns].any(dim=0).all()
    assert response_mask[:, response_columns].any(dim=0).all()
    assert attention_mask[:, columns].sum() == attention_mask.sum()
    assert response_mask[:, response_columns].sum() == response_mask.sum()
    assert torch.equal(attention_mask[:, columns][:, -response_columns.stop :], response_mask[:, response_columns])


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(1, 8))
def test_micro_batches_hold_each_row_once_and_group_like_lengths(lengths, size):
    attention_mask, _ = masks_of(lengths)
    rows = torch.arange(len(lengths)).flip(0)
    groups = micro_batches(rows, attention_mask, size)
    assert sorted(torch.cat(groups).tolist()) == list(range(len(lengths)))
    assert max(map(len, groups)) <= size
    if len(groups) > 1:
        order = attention_mask.sum(dim=1)[torch.cat(groups)]
        assert torch.equal(order, order.sort().values)


def test_without_a_size_there_is_one_group_in_the_given_order():
    rows = torch.tensor([2, 0, 1])
    assert [group.tolist() for group in micro_batches(rows, masks_of([(1, 1)] * 3)[0], None)] == [[2, 0, 1]]


def test_group_by_group_gives_what_one_forward_pass_gives():
    policy, generation = tiny_gpt(layers=2), tiny_generation()
    sequence = (generation.ids, generation.attention_mask, generation.response_mask)

    def evaluate(ids, attention_mask, response_tokens):
        return response_log_probs(policy, ids, attention_mask, response_tokens)[0].detach()

    whole = evaluate(*sequence[:2], sequence[2].shape[1]).masked_fill(~generation.response_mask, 0.0)
    for size in (None, 1, 2, 4):
        torch.testing.assert_close(for_responses(evaluate, *sequence, size), whole, rtol=1e-12, atol=1e-12)
