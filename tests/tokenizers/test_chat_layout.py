"""Conversations as ids, and exactly the assistant's tokens marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.records import Turn
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.chat import encode_conversation, encode_prompt
from minirlhf.tokenizers.tokenizer import ASSISTANT, CONTROL_TOKENS, END, SYSTEM, USER, byte_tokenizer

TOKENIZERS = [byte_tokenizer(), train_bpe(["Who is Ada? She bakes bread. " * 3], 280)]
every = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "bpe"])
contents = st.text(min_size=1, max_size=12) | st.sampled_from([*CONTROL_TOKENS, " ", "Who is Ada?", "a<|end|>b"])
turns = st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), contents)
conversations = st.lists(turns, min_size=1, max_size=6)


@every
def test_layout_by_hand(tokenizer):
    control = tokenizer.control
    conversation = [Turn("system", "Be kind."), Turn("user", "Who?"), Turn("assistant", "Ada."), Turn("user", "Why?")]
    parts = [
        ([control[SYSTEM], *tokenizer.encode("Be kind.")], False),
        ([control[USER], *tokenizer.encode("Who?")], False),
        ([control[ASSISTANT]], False),
        ([*tokenizer.encode("Ada."), control[END]], True),
        ([control[USER], *tokenizer.encode("Why?")], False),
    ]
    ids, mask = encode_conversation(tokenizer, conversation)
    assert ids == [token_id for part, _ in parts for token_id in part]
    assert mask == [written for part, written in parts for _ in part]
    assert encode_prompt(tokenizer, conversation) == [*ids, control[ASSISTANT]]


@every
@given(conversation=conversations)
def test_marked_tokens_are_the_answers_with_their_ends(tokenizer, conversation):
    ids, mask = encode_conversation(tokenizer, conversation)
    assert len(ids) == len(mask)
    answers = [turn.content for turn in conversation if turn.role == "assistant"]
    marked = [token_id for token_id, written in zip(ids, mask, strict=True) if written]
    assert tokenizer.decode(marked) == "".join(answer + END for answer in answers)
    assert marked.count(tokenizer.end_id) == ids.count(tokenizer.end_id) == len(answers)
    roles = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
    written = "".join(
        roles[turn.role] + turn.content + (END if turn.role == "assistant" else "") for turn in conversation
    )
    assert tokenizer.decode(ids) == written
    control_count = sum(token_id in tokenizer.control.values() for token_id in ids)
    assert control_count == len(conversation) + len(answers)  # none of them from a turn's text


@every
@given(conversation=conversations, answer=contents)
def test_prompt_and_answer_make_the_conversation(tokenizer, conversation, answer):
    prompt = encode_prompt(tokenizer, conversation)
    ids, mask = encode_conversation(tokenizer, [*conversation, Turn("assistant", answer)])
    assert ids == [*prompt, *tokenizer.encode(answer), tokenizer.end_id]
    assert mask[len(prompt) :] == [True] * (len(ids) - len(prompt)) and not mask[len(prompt) - 1]


@every
@pytest.mark.parametrize("encode", [encode_prompt, encode_conversation])
@pytest.mark.parametrize(
    ("conversation", "message", "where"),
    [
        ([], "no turns", ""),
        ([Turn("user", "Hello"), Turn("tool", "42")], "unknown role", "turn 2"),
        ([Turn("Assistant", "Hello")], "unknown role", "turn 1"),
        ([Turn("user", "Hello"), Turn("assistant", "")], "is empty", "turn 2"),
    ],
)
def test_what_is_refused(tokenizer, encode, conversation, message, where):
    with pytest.raises(UserError, match=message) as caught:
        encode(tokenizer, conversation)
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("content", "kind"), [(None, "NoneType"), (["a"], "list"), (7, "int"), ({"text": "a"}, "dict")]
)
def test_a_turn_whose_content_is_no_text_is_refused_in_words(content, kind):
    with pytest.raises(UserError) as refused:
        encode_conversation(byte_tokenizer(), [Turn("user", "hello"), Turn("assistant", content)])
    assert "turn 2" in refused.value.where and kind in refused.value.found and "text" in refused.value.expected
