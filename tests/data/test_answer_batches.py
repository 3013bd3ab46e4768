"""Pairs for DPO: exactly the tokens of the answers count, however the two are padded or cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.batches import answer_batches
from minirlhf.data.tokenize import TokenizedPair, tokenize_preferences
from minirlhf.errors import UserError
from minirlhf.records import Preference, Turn
from minirlhf.tokenizers.chat import encode_conversation, encode_prompt
from minirlhf.tokenizers.tokenizer import ASSISTANT, byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXT = st.text("abc ", min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=3), TEXT, TEXT), min_size=1, max_size=4), st.integers(9, 40)
)
def test_what_counts_is_the_answer_with_its_end_as_far_as_the_context_reaches(texts, context):
    roles = ("user", "assistant")
    given_pairs = [
        Preference(
            tuple(Turn(roles[i % 2], text) for i, text in enumerate([*prompt, *prompt[: 1 - len(prompt) % 2]])),
            *both,
            "",
        )
        for prompt, *both in texts
    ]
    try:
        pairs, _ = tokenize_preferences(given_pairs, TOKENIZER, context)
    except UserError:
        return  # nothing fits
    kept = [
        pair
        for pair in given_pairs
        if len(encode_prompt(TOKENIZER, pair.prompt)) < context
        and len({tuple(encode_conversation(TOKENIZER, (*pair.prompt, Turn("assistant", text)))[0][:context])
                 for text in (pair.chosen, pair.rejected)}) == 2
    ]  # fmt: skip
    assert len(kept) == len(pairs)
    batches = answer_batches(pairs, TOKENIZER.pad_id)
    for side, batch in zip(("chosen", "rejected"), batches, strict=True):
        assert batch.loss_mask.dtype == torch.bool and batch.loss_mask.shape[1] == batch.ids.shape[1] - 1
        for row, pair in enumerate(kept):
            counted = batch.ids[row, 1:][batch.loss_mask[row]].tolist()
            prompt = encode_prompt(TOKENIZER, pair.prompt)
            answer = [*TOKENIZER.encode(getattr(pair, side)), TOKENIZER.end_id][: context - len(prompt)]
            assert counted == answer
            begins = int(batch.loss_mask[row].int().argmax())
            assert batch.ids[row, : begins + 1].tolist() == prompt  # and the assistant token stands before it
            assert prompt[-1] == TOKENIZER.control[ASSISTANT]


def test_a_pair_that_does_not_say_where_its_answers_begin_is_refused():
    ids = torch.arange(1, 5)
    for prompt_tokens in (0, 4):
        with pytest.raises(ValueError, match="answer behind it"):
            answer_batches([TokenizedPair(ids, ids + 1, "", prompt_tokens)], 0)
