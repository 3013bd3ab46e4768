"""The two split patterns against a scanner written without regular expressions, and every way of cutting first."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minirlhf.tokenizers import pattern
from minirlhf.tokenizers.pattern import blocks, compile_pattern, portions, splitter, stretches

WHITE_SPACE = set("\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(c) for c in range(0x2000, 0x200B)
}
TRICKY = "abÉ汉ßſ'sSdtmLlvVrReE019½٣ \t\r\n\u00a0\u3000!?.<|>🙂\u200d\u0301\x1c"
texts = st.text(st.sampled_from(TRICKY), max_size=30) | st.text(
    st.characters(exclude_categories=["Cs", "Cn"]), max_size=12
)


def kind(character):
    if character in WHITE_SPACE:
        return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "sign")


def run_end(text, start, wanted):
    while start < len(text) and kind(text[start]) == wanted:
        start += 1
    return start


def end_of_first_gpt2(text):
    for ending in ("s", "d", "m", "t", "ll", "re", "ve"):
        if text.startswith("'" + ending):
            return 1 + len(ending)
    start = 1 if text[0] == " " and len(text) > 1 else 0
    if kind(text[start]) != "space":
        return run_end(text, start, kind(text[start]))
    stretch = run_end(text, 0, "space")
    return stretch if stretch == len(text) else max(1, stretch - 1)


def end_of_first_gpt4(text):
    if text[0] == "'":
        if text[1:2].casefold() in {"s", "d", "m", "t"}:
            return 2
        if text[1:3].casefold() in {"ll", "re", "ve"}:
            return 3
    start = 0 if kind(text[0]) in ("letter", "number") or text[0] in "\r\n" else 1
    if run_end(text, start, "letter") > start:
        return run_end(text, start, "letter")
    if kind(text[0]) == "number":
        return min(3, run_end(text, 0, "number"))
    start = 1 if text[0] == " " else 0
    signs = run_end(text, start, "sign")
    if signs > start:
        while text[signs : signs + 1] in ("\r", "\n"):
            signs += 1
        return signs
    stretch = run_end(text, 0, "space")
    if stretch == len(text):
        return stretch
    line_end = max(text.rfind("\n", 0, stretch), text.rfind("\r", 0, stretch))
    return line_end + 1 if line_end >= 0 else max(1, stretch - 1)


def scan(text, end_of_first):
    pre_tokens = []
    while text:
        end = end_of_first(text)
        pre_tokens.append(text[:end])
        text = text[end:]
    return pre_tokens


@given(texts)
@example("we'll  say 'twas 1234 o'clock,\r\n\n  and\tI'M  ")
def test_gpt2_pattern_is_what_it_says(text):
    assert compile_pattern("gpt2").findall(text) == scan(text, end_of_first_gpt2)


@given(texts)
@example("we'LL  say \"no\" 12345!?\r\n\n  \n and\tI'M\n  ")
def test_gpt4_pattern_is_what_it_says(text):
    assert compile_pattern("gpt4").findall(text) == scan(text, end_of_first_gpt4)


def test_examples_by_hand():
    text = "I'll pay  $1234,\n\n she's  SHE'S"
    assert compile_pattern("gpt2").findall(text) == [
        *("I", "'ll", " pay", " ", " $", "1234", ",", "\n\n", " she", "'s", " ", " SHE", "'", "S")
    ]
    assert compile_pattern("gpt4").findall(text) == [
        *("I", "'ll", " pay", " ", " $", "123", "4", ",\n\n", " she", "'s", " ", " SHE", "'S")
    ]


@pytest.mark.parametrize("name", ["gpt2", "gpt4", "bytes"])
@given(texts | st.text(st.characters(max_codepoint=127), max_size=30))
@example("we'LL  say \"no\" 12345!?\r\n\n  \n and\tI'M\x1c\n  ")
def test_ascii_is_split_as_everything_is(name, text):
    assert splitter(name)(text) == compile_pattern(name).findall(text)


both = pytest.mark.parametrize("name", ["gpt2", "gpt4"])


@both
@given(texts)
def test_a_pre_token_is_its_own_only_pre_token(name, text):
    split = compile_pattern(name).findall
    assert all(split(pre_token) == [pre_token] for pre_token in split(text))


@both
@given(texts | st.text(st.sampled_from(TRICKY + " " * 20), max_size=40))
@example("a  b c \n d\n\n e, \u3000 f")
@example("a\n   b")
@example("a\0 b\1 c  d")
@example(" a")
def test_stretches_are_split_on_their_own(name, text):
    split = compile_pattern(name).findall
    assert "".join(stretches(text)) == text
    assert [pre_token for stretch in stretches(text) for pre_token in split(stretch)] == split(text)


def test_stretches_by_hand():
    assert stretches("one two\n    three,  four five\t six") == ["one", " two\n    three,  four", " five\t six"]


@both
@given(st.lists(texts, max_size=8), st.integers(1, 40))
@example(["a\n  ", "\n b"], 1)
@example(["x 12", "345"], 1)
@example(["it'l", "l!\n", "\n"], 1)
@example(["a \r\n \u3000", "\nb"], 1)
def test_portions_split_like_the_joined_text(name, pieces, block_characters):
    split = compile_pattern(name).findall
    cut = list(portions(pieces, block_characters))
    assert "".join(cut) == "".join(pieces)
    assert [pre_token for portion in cut for pre_token in split(portion)] == split("".join(pieces))


def test_portions_come_early_and_are_no_longer_than_needed():
    assert next(portions(iter(["one two three", "four"]), 10)) == "one two"
    for sentence in ("word, ", "12\n", "汉字。", "()\t"):
        assert max(map(len, portions([sentence] * 1000, 100))) < 120


def test_an_endless_word_is_looked_at_a_few_times_only(monkeypatch):
    class Counting:
        looks = 0

        def search(self, text, endpos):
            self.looks += 1

    counting = Counting()
    monkeypatch.setattr(pattern, "_SAFE_CUT", counting)
    assert list(portions(["a"] * 5000, 1)) == ["a" * 5000]
    assert counting.looks < 20  # twice as long each time


@given(st.text(max_size=30), st.integers(1, 7))
def test_blocks_join_to_the_text(text, size):
    parts = list(blocks(text, size))
    assert "".join(parts) == text and all(1 <= len(part) <= size for part in parts)


def test_unknown_pattern():
    with pytest.raises(ValueError, match="gpt3"):
        compile_pattern("gpt3")
