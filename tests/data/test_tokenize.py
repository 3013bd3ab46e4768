"""Ids and masks: exactly the assistant's tokens count, the context is never exceeded, what had to give is counted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.tokenize import (
    drop_long_prompts,
    prompt_text,
    tokenize_conversations,
    tokenize_preferences,
)
from minirlhf.errors import UserError
from minirlhf.records import Conversation, Preference, Prompt, Turn
from minirlhf.tokenizers.tokenizer import ASSISTANT, USER, byte_tokenizer

TOKENIZER = byte_tokenizer()
END, A, U = TOKENIZER.end_id, TOKENIZER.control[ASSISTANT], TOKENIZER.control[USER]
TEXT = st.text("abc ", min_size=1, max_size=6)


def conversation(*texts, source="a.jsonl:1"):
    return Conversation(tuple(Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)), source)


@settings(max_examples=50)
@given(st.lists(TEXT, min_size=2, max_size=5), st.integers(1, 40))
def test_counted_are_exactly_the_assistants_tokens_with_their_end(texts, context):
    by_hand = []  # (id, does it count)
    for i, text in enumerate(texts):
        if i % 2 == 0:
            by_hand += [(U, False), *((byte, False) for byte in text.encode())]
        else:
            by_hand += [(A, False), *((byte, True) for byte in text.encode()), (END, True)]
    fits = by_hand[: context + 1]
    if not any(counts for _, counts in fits):
        with pytest.raises(UserError, match="nothing fits"):
            tokenize_conversations([conversation(*texts)], TOKENIZER, context)
        return
    items, report = tokenize_conversations([conversation(*texts)], TOKENIZER, context)
    assert items[0].ids.tolist() == [i for i, _ in fits]
    assert items[0].loss_mask.tolist() == [counts for _, counts in fits[1:]]
    assert items[0].ids.dtype == torch.int64 and items[0].loss_mask.dtype == torch.bool
    assert sum(report.changed.values()) == (len(by_hand) > context + 1)


def test_over_long_conversations_are_cut_or_dropped_and_counted():
    given = [
        conversation("Hi", "Hello", source="a.jsonl:1"),
        conversation("Hi", "a very long answer", source="a.jsonl:2"),
        conversation("a very long question", "Hello", source="a.jsonl:3"),
    ]
    items, report = tokenize_conversations(given, TOKENIZER, context=10)
    assert [item.source for item in items] == ["a.jsonl:1", "a.jsonl:2"]
    assert report.changed == {"cut to the context of 10 tokens": 1}
    assert report.dropped == {"longer than the context before the answer begins": 1}
    assert set(report.first.values()) == {"a.jsonl:2", "a.jsonl:3"}
    with pytest.raises(UserError) as caught:
        tokenize_conversations(given[2:], TOKENIZER, context=10)
    assert "a.jsonl:3" in caught.value.where and "--context" in caught.value.fix
    assert tokenize_conversations([], TOKENIZER, 10)[0] == []


def pair(prompt, chosen, rejected, source="a.jsonl:1"):
    return Preference((Turn("user", prompt),), chosen, rejected, source)


def test_pairs_are_prompt_and_answer_with_its_end():
    pairs, report = tokenize_preferences([pair("Hi", "yes", "no")], TOKENIZER, context=99)
    assert pairs[0].chosen_ids.tolist() == [U, *b"Hi", A, *b"yes", END]
    assert pairs[0].rejected_ids.tolist() == [U, *b"Hi", A, *b"no", END]
    assert report.kept == 1 and not report.dropped and not report.changed


def test_over_long_pairs_are_cut_dropped_or_found_identical():
    given = [
        pair("Hi", "yes", "no", "a.jsonl:1"),
        pair("Hi", "abcdefgh", "abcd", "a.jsonl:2"),  # cut after "abcdef": still differ
        pair("Hi", "abcdefgh", "abcdefxx", "a.jsonl:3"),  # cut after "abcdef": the same
        pair("Hi there", "yes", "no", "a.jsonl:4"),  # the prompt fills the context
    ]
    pairs, report = tokenize_preferences(given, TOKENIZER, context=10)
    assert [p.source for p in pairs] == ["a.jsonl:1", "a.jsonl:2"]
    assert report.changed == {"cut to the context of 10 tokens": 1}
    assert report.dropped == {"identical after truncation": 1, "prompt longer than the context of 10 tokens": 1}
    assert report.first["identical after truncation"] == "a.jsonl:3"
    pairs, report = tokenize_preferences(given, TOKENIZER, context=10, too_long="drop")
    assert [p.source for p in pairs] == ["a.jsonl:1"] and sum(report.dropped.values()) == 3


@settings(max_examples=50)
@given(TEXT, TEXT, TEXT, st.integers(1, 20))
def test_no_pair_exceeds_the_context_or_says_nothing(prompt, chosen, rejected, context):
    try:
        pairs, _ = tokenize_preferences([pair(prompt, chosen, rejected)], TOKENIZER, context)
    except UserError:
        head = len(prompt) + 2
        assert head >= context or (chosen + "$")[: context - head] == (rejected + "$")[: context - head]
        return
    ids = pairs[0].chosen_ids.tolist(), pairs[0].rejected_ids.tolist()
    assert ids[0] != ids[1] and max(map(len, ids)) <= context
    assert len(prompt) + 2 < min(map(len, ids))  # at least one token of each answer is there


def test_long_prompts_are_dropped_and_counted():
    prompts = [Prompt((Turn("user", text),), f"a:{i}") for i, text in enumerate(["Hi", "a long one", "Ho"])]
    kept, report = drop_long_prompts(prompts, TOKENIZER, max_prompt_tokens=4)
    assert [prompt.source for prompt in kept] == ["a:0", "a:2"]
    assert report.dropped == {"prompt longer than 4 tokens": 1} and report.kept == 2
    with pytest.raises(UserError, match="nothing fits"):
        drop_long_prompts(prompts, TOKENIZER, max_prompt_tokens=3)


def test_control_tokens_named_in_a_text_are_text():
    items, _ = tokenize_conversations([conversation("<|assistant|>", "<|end|>")], TOKENIZER, 99)
    ids = items[0].ids.tolist()
    assert ids.count(END) == 1 and ids.count(A) == 1 and bytes(ids[1:14]) == b"<|assistant|>"


def test_the_text_of_a_prompt():
    assert prompt_text((Turn("user", "Hi"),)) == "Hi"
    turns = (Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "Bye"))
    assert prompt_text(turns) == "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye"
