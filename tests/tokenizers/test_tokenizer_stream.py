"""Streams in and out: pieces of text to ids, ids to pieces of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.streaming import StreamDecoder
from minirlhf.tokenizers.tokenizer import byte_tokenizer

ENGLISH = "we'll see, they've said:\r\n\r\n  the cat's 2024   汉字汉字 \t naïve!!\n\n 🙂🙂 <|end|>\n" * 3
TOKENIZERS = {
    "gpt4": train_bpe([ENGLISH], 310),
    "gpt2": train_bpe([ENGLISH], 310, "gpt2"),
    "bytes": byte_tokenizer(),
}
every = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
texts = st.text("we'lrs 2\r\n\t汉🙂!", max_size=60) | st.text(max_size=20) | st.just(ENGLISH)


@st.composite
def split_texts(draw):
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return text, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@every
@given(case=split_texts(), block_characters=st.sampled_from([1, 1, 3, 20, 1000]))
def test_pieces_encode_like_the_joined_text(tokenizer, case, block_characters):
    text, pieces = case
    assert list(tokenizer.encode_iterable(iter(pieces), block_characters)) == tokenizer.encode(text)


@every
def test_character_by_character(tokenizer):
    assert list(tokenizer.encode_iterable(ENGLISH, 1)) == tokenizer.encode(ENGLISH)


@every
def test_long_text_in_blocks_encodes_like_its_parts(tokenizer):
    line = "the cat's 2024 汉字!\n"  # ends in a cut of both patterns, as a word follows a line end
    many = 20_000  # more than one block
    assert tokenizer.encode(line * many) == tokenizer.encode(line) * many


@every
def test_memory_does_not_grow_with_the_text(tokenizer):
    read = 0

    def pieces():
        nonlocal read
        for _ in range(500):
            read += len("the cat's 2024 ")
            yield "the cat's 2024 "

    shown, most_held = 0, 0
    for token_id in tokenizer.encode_iterable(pieces(), 100):
        shown += len(tokenizer.tokens[token_id])
        most_held = max(most_held, read - shown)
    assert shown == read == 500 * 15
    assert most_held < 250  # two blocks, one piece, one pre-token


@every
def test_surrogate_in_a_piece(tokenizer):
    with pytest.raises(UserError, match="surrogate"):
        list(tokenizer.encode_iterable(["the cat", " \ud83d", "\ude00"]))


@every
@given(data=st.data(), skip_control=st.booleans())
def test_decoder_shows_what_decode_shows(tokenizer, data, skip_control):
    anything = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30)
    ids = data.draw(anything | texts.map(tokenizer.encode))
    decoder = StreamDecoder(tokenizer, skip_control)
    for _ in range(2):  # after a flush it is as new
        shown = "".join(map(decoder.push, ids)) + decoder.flush()
        assert shown == tokenizer.decode(ids, skip_control)


def test_characters_are_shown_whole_and_at_once():
    decoder = StreamDecoder(byte_tokenizer())
    assert [decoder.push(byte) for byte in "a汉🙂".encode()] == ["a", "", "", "汉", "", "", "", "🙂"]
    assert decoder.flush() == ""
    assert [decoder.push(0xE6), decoder.push(0x61), decoder.push(0xF0)] == ["", "\ufffda", ""]
    assert decoder.flush() == "\ufffd"


def test_id_outside_the_vocabulary():
    with pytest.raises(ValueError, match="outside the vocabulary"):
        StreamDecoder(byte_tokenizer()).push(261)
