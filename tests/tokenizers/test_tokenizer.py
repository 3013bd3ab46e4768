"""The tokenizer as a value: identity, control tokens, what it refuses."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS, END, PAD, USER, Tokenizer, build_tokenizer, byte_tokenizer

ENGLISH = "the cat sat on the mat and the hat; the cat isn't on the mat now, 2024 汉字汉字 naïve café\n\n" * 3
TOKENIZERS = {
    "gpt4": train_bpe([ENGLISH], 300),
    "gpt2": train_bpe([ENGLISH], 300, "gpt2"),
    "bytes": byte_tokenizer(),
    "bytes backwards": build_tokenizer((), "bytes", range(255, -1, -1)),
    "bytes in another order": build_tokenizer([(255, 3)], "gpt2", range(255, -1, -1), ["<|other|>", *CONTROL_TOKENS]),
}
every = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
texts = st.text() | st.text("the cat'sn 汉字é\r\n\t0123<|end|>🙂", max_size=40)


@every
@given(text=texts)
def test_decode_undoes_encode(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.encode_batch([text, text]) == [ids, ids]


@every
@given(content=st.binary(max_size=20))
def test_every_byte_sequence_has_ids(tokenizer, content):
    ids = [tokenizer.tokens.index(bytes([byte])) for byte in content]
    assert tokenizer.decode_bytes(ids) == content
    assert tokenizer.decode(ids) == content.decode(errors="replace")


@every
def test_every_token_encodes_to_its_own_id(tokenizer):
    for token_id, token in enumerate(tokenizer.tokens):
        if token.isascii():
            assert tokenizer.encode(token.decode()) == [token_id]
    assert tokenizer.decode_bytes(range(len(tokenizer.tokens))) == b"".join(tokenizer.tokens)


@every
@given(before=texts, after=texts)
def test_control_tokens_in_text_stay_text_unless_allowed(tokenizer, before, after):
    control_ids = set(tokenizer.control.values())
    for name in CONTROL_TOKENS:
        text = before + name + after
        assert control_ids.isdisjoint(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text
        allowed = tokenizer.encode(text, allow_control=[name])
        assert allowed.count(tokenizer.control[name]) == text.count(name)
        assert control_ids.intersection(allowed) == {tokenizer.control[name]}
        assert tokenizer.decode(allowed) == text


@every
def test_allowed_control_token_splits_the_text(tokenizer):
    ids = tokenizer.encode("the cat<|end|> the mat<|user|>", allow_control={END})
    cut = ids.index(tokenizer.end_id)
    assert ids[:cut] == tokenizer.encode("the cat")
    assert ids[cut + 1 :] == tokenizer.encode(" the mat<|user|>")
    assert tokenizer.decode(ids, skip_control=True) == "the cat the mat<|user|>"
    assert tokenizer.decode(ids) == "the cat<|end|> the mat<|user|>"


def test_a_control_token_wins_over_its_own_beginning():
    tokenizer = build_tokenizer((), "bytes", control=[*CONTROL_TOKENS, "<a>", "<a>b"])
    assert tokenizer.encode("<a>b<a>", allow_control=["<a>", "<a>b"]) == [262, 261]


def test_layout_of_the_ids():
    tokenizer = TOKENIZERS["gpt4"]
    assert tokenizer.vocab_size == 300 == len(tokenizer.tokens) + 5
    assert list(tokenizer.control) == list(CONTROL_TOKENS)
    assert list(tokenizer.control.values()) == [295, 296, 297, 298, 299]
    assert (tokenizer.pad_id, tokenizer.end_id) == (295, 296)
    assert byte_tokenizer().vocab_size == 261
    assert byte_tokenizer().encode("é!") == [0xC3, 0xA9, 0x21]


@every
def test_ids_may_come_as_numpy_integers(tokenizer):
    assert tokenizer.decode(np.array(tokenizer.encode("the cat"), dtype=np.int64)) == "the cat"


@every
@pytest.mark.parametrize("wrong", [-1, 10_000])
def test_id_outside_the_vocabulary(tokenizer, wrong):
    with pytest.raises(ValueError, match=f"id {wrong} is outside the vocabulary of {tokenizer.vocab_size}"):
        tokenizer.decode([0, wrong])


@every
def test_unpaired_surrogate(tokenizer):
    for text in ("a\ud83d", "\ude00", "the cat \ud83d\ude00"):  # Python joins no halves
        with pytest.raises(UserError, match="surrogate") as caught:
            tokenizer.encode(text)
        assert "U+D83D" in caught.value.found or "U+DE00" in caught.value.found
        assert str(caught.value).encode("utf-8")  # the message itself can be printed


def test_allowing_what_is_no_control_token():
    with pytest.raises(ValueError, match="not control tokens"):
        byte_tokenizer().encode("text", allow_control=["<|stop|>"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": TOKENIZERS["gpt4"].tokens[1:]}, "256 single bytes"),
        ({"tokens": TOKENIZERS["gpt4"].tokens[:-1]}, "39 merges make 295 tokens"),
        ({"merges": ((116, 299), *TOKENIZERS["gpt4"].merges[1:])}, "merge 0 joins 116 and 299"),
        ({"merges": ((97, 97), *TOKENIZERS["gpt4"].merges[1:])}, "merge 0 does not make the bytes"),
        ({"pattern": "bytes"}, "without merges"),
        ({"pattern": "gpt3"}, "no split pattern"),
        ({"control": {END: 295, USER: 296}}, "missing: <|pad|>"),
        ({"control": {**TOKENIZERS["gpt4"].control, PAD: 296}}, "count up from 295"),  # PAD and END the same
        ({"control": {**TOKENIZERS["gpt4"].control, "": 300}}, "no name"),
    ],
)
def test_parts_that_do_not_fit_together(changes, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        dataclasses.replace(TOKENIZERS["gpt4"], **changes)


def test_a_pair_merged_twice():
    plain = byte_tokenizer()
    control = {name: 258 + at for at, name in enumerate(CONTROL_TOKENS)}
    with pytest.raises(ValueError, match="merged twice"):
        Tokenizer((*plain.tokens, b"ab", b"ab"), ((97, 98), (97, 98)), "gpt4", control)


@given(st.permutations(range(256)), st.text(max_size=20))
def test_any_order_of_the_bytes_is_kept_with_and_without_merges(order, text):
    """An order that is not its own inverse tells the table from bytes to ids from the one back."""
    plain = build_tokenizer((), "bytes", order)
    assert plain.encode(text) == [order.index(byte) for byte in text.encode()]
    merged = build_tokenizer([(order.index(ord("a")), order.index(ord("b")))], "gpt2", order)
    assert merged.encode("ab") == [256] and merged.encode("ba") == [order.index(ord("b")), order.index(ord("a"))]
    assert merged.decode(merged.encode(text)) == text
