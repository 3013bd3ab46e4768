"""Batches: which examples a step sees, windows over a stream, padding on the right side, masks that count."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.batches import (
    batch_indices,
    conversation_batch,
    epoch_order,
    preference_batch,
    prompt_batch,
    split_stream,
    token_stream,
    validation_windows,
    window_batch,
)
from minirlhf.data.tokenize import TokenizedConversation, TokenizedPair
from minirlhf.errors import UserError
from minirlhf.records import Document, Prompt, Turn
from minirlhf.tokenizers.chat import encode_prompt
from minirlhf.tokenizers.tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
PAD = TOKENIZER.pad_id


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 3), st.integers(0, 12))
def test_steps_walk_through_whole_epochs(n, batch_size, seed, steps):
    walked = [i for step in range(steps) for i in batch_indices(n, batch_size, seed, step)]
    assert len(walked) == steps * batch_size  # always full, also across epochs
    for epoch in range(0, len(walked) // n):
        part = walked[epoch * n : (epoch + 1) * n]
        assert sorted(part) == list(range(n)) and part == epoch_order(n, seed, epoch)
    assert walked[len(walked) // n * n :] == epoch_order(n, seed, len(walked) // n)[: len(walked) % n]


def test_every_epoch_and_seed_has_its_own_order():
    orders = {tuple(epoch_order(20, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize(("n", "batch_size", "step"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_batches_are_a_programming_error(n, batch_size, step):
    with pytest.raises(ValueError, match="need n > 0"):
        batch_indices(n, batch_size, 0, step)


def test_a_stream_is_the_documents_with_an_end_between_them():
    stream = token_stream([Document("Aé", ""), Document("<|end|>", ""), Document("B", "")], TOKENIZER)
    end = TOKENIZER.end_id
    assert stream.tolist() == [65, 0xC3, 0xA9, end, *b"<|end|>", end, 66] and stream.dtype == torch.int64
    assert token_stream([Document("AB", "")], TOKENIZER).tolist() == [65, 66]
    assert token_stream([], TOKENIZER).shape == (0,)


@given(st.integers(0, 50), st.floats(0, 0.99))
def test_a_split_stream_loses_nothing(n, fraction):
    stream = torch.arange(n)
    train, held_out = split_stream(stream, fraction)
    assert torch.cat([train, held_out]).equal(stream)
    assert abs(len(held_out) - fraction * n) <= 1


def test_a_tenth_of_the_known_text_is_held_out_as_published():
    train, held_out = split_stream(torch.zeros(1_115_394), 0.1)  # the length of tinyshakespeare
    assert (len(train), len(held_out)) == (1_003_854, 111_540)
    with pytest.raises(ValueError, match="held_out_fraction"):
        split_stream(train, 1.0)


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 5), st.integers(0, 99))
def test_windows_are_pieces_of_the_stream(context, batch_size, more, seed):
    stream = torch.arange(context + 1 + more) * 3
    batch = window_batch(stream, context, batch_size, torch.Generator().manual_seed(seed))
    assert batch.ids.shape == (batch_size, context + 1) and batch.loss_mask.shape == (batch_size, context)
    assert batch.loss_mask.all() and batch.loss_mask.dtype == torch.bool
    for row in batch.ids:
        start = int(row[0]) // 3
        assert row.equal(stream[start : start + context + 1])


def test_every_window_can_be_drawn_the_first_and_the_last_included():
    batch = window_batch(torch.arange(6), 3, 200, torch.Generator().manual_seed(0))
    assert set(batch.ids[:, 0].tolist()) == {0, 1, 2}


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(UserError, match="--context 4"):
        window_batch(torch.arange(5), 5, 1, torch.Generator())


@settings(max_examples=100)
@given(st.integers(0, 40), st.integers(1, 7), st.integers(1, 5))
def test_validation_predicts_every_token_but_the_first_exactly_once(n, context, batch_size):
    stream = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    batches = list(validation_windows(stream, context, batch_size, pad_id=99))
    predicted = [int(i) for batch in batches for i in batch.ids[:, 1:][batch.loss_mask]]
    assert predicted == stream[1:].tolist()
    for batch in batches:
        assert batch.ids.shape[1] == context + 1 and len(batch.ids) <= batch_size
        assert (batch.ids[:, 1:][~batch.loss_mask] == 99).all()
        seen = batch.ids[:, :-1][batch.loss_mask]  # what each prediction is made from is the token before it
        assert seen.tolist() == [predicted_from(stream, int(i)) for i in batch.ids[:, 1:][batch.loss_mask]]


def predicted_from(stream: torch.Tensor, token: int) -> int:
    return int(stream[stream.tolist().index(token) - 1])


LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@given(LENGTHS)
def test_conversations_are_padded_on_the_right_and_padding_does_not_count(lengths):
    items = [TokenizedConversation(torch.arange(1, n + 2), torch.arange(n) % 2 == 0) for n in lengths]
    batch = conversation_batch(items, pad_id=77)
    assert batch.ids.shape == (len(items), max(lengths) + 1) and batch.loss_mask.shape == (len(items), max(lengths))
    for row, mask, item, n in zip(batch.ids, batch.loss_mask, items, lengths, strict=True):
        assert row[: n + 1].equal(item.ids) and (row[n + 1 :] == 77).all()
        assert mask[:n].equal(item.loss_mask) and not mask[n:].any() and mask.dtype == torch.bool


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4))
def test_pairs_are_padded_on_the_right_each_kind_to_its_longest(lengths):
    pairs = [TokenizedPair(torch.arange(1, a + 1), torch.arange(11, b + 11)) for a, b in lengths]
    batch = preference_batch(pairs, pad_id=0)
    for ids, mask, rows in (
        (batch.chosen_ids, batch.chosen_attention_mask, [pair.chosen_ids for pair in pairs]),
        (batch.rejected_ids, batch.rejected_attention_mask, [pair.rejected_ids for pair in pairs]),
    ):
        assert ids.shape == mask.shape == (len(pairs), max(map(len, rows)))
        assert mask.dtype == torch.bool and mask.equal(ids != 0)  # no real id is 0 here
        for b, row in enumerate(rows):
            assert ids[b][mask[b]].equal(row) and mask[b, 0]


def test_prompts_are_padded_on_the_left_and_end_ready_to_be_answered():
    system, long = Turn("system", "Be kind"), Turn("user", "Tell a story")
    prompts = [Prompt((Turn("user", "Hi"),), "a:1"), Prompt((system, long), "a:2")]
    batch = prompt_batch(prompts, TOKENIZER, max_prompt_tokens=99)
    for b, prompt in enumerate(prompts):
        wanted = encode_prompt(TOKENIZER, prompt.turns)
        assert batch.ids[b][batch.attention_mask[b]].tolist() == wanted
        assert batch.attention_mask[b, -len(wanted) :].all() and not batch.attention_mask[b, : -len(wanted)].any()
    assert (batch.ids[~batch.attention_mask] == PAD).all() and (~batch.attention_mask).any()
    assert batch.texts == ("Hi", "\n\nSystem: Be kind\n\nHuman: Tell a story")
    bare = prompt_batch([prompt.turns for prompt in prompts], TOKENIZER, 99)
    assert bare.ids.equal(batch.ids) and bare.texts == batch.texts


def test_a_prompt_longer_than_allowed_is_refused_with_its_line():
    prompts = [Prompt((Turn("user", "Hi"),), "a.jsonl:1"), Prompt((Turn("user", "Hello"),), "a.jsonl:2")]
    assert prompt_batch(prompts, TOKENIZER, 7).ids.shape == (2, 7)  # two role tokens and five bytes
    with pytest.raises(UserError) as caught:
        prompt_batch(prompts, TOKENIZER, 6)
    assert caught.value.where == "a.jsonl:2" and "7 tokens" in caught.value.found


def test_micro_batches_of_any_size_hold_the_same_counted_tokens():
    items = [TokenizedConversation(torch.arange(n + 1), torch.ones(n, dtype=torch.bool)) for n in (1, 5, 2, 4, 3)]
    whole = conversation_batch(items, PAD)
    for size in (1, 2, 3):
        parts = [conversation_batch(items[i : i + size], PAD) for i in range(0, 5, size)]
        counted = Counter(int(i) for part in parts for i in part.ids[:, 1:][part.loss_mask])
        assert counted == Counter(int(i) for i in whole.ids[:, 1:][whole.loss_mask])
