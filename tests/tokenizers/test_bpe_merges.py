"""Fast training and encoding against the textbook algorithm, exactly."""

import random
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.reference import bpe as reference
from minirlhf.tokenizers import bpe, learn
from minirlhf.tokenizers.bpe import SMALLEST_VOCABULARY, count_pre_tokens, train_bpe
from minirlhf.tokenizers.learn import learn_merges
from minirlhf.tokenizers.merges import SHORT, PieceCache, apply_merges, merge_by_heap, merge_by_scanning
from minirlhf.tokenizers.pattern import compile_pattern
from minirlhf.tokenizers.tokenizer import build_tokenizer

few_letters = st.text("ab", max_size=14).map(str.encode) | st.text("abcd", max_size=9).map(str.encode)
counted_words = st.dictionaries(few_letters, st.integers(1, 4), max_size=12)
texts = st.lists(st.text("abc 'sd1\n汉é", max_size=40), min_size=1, max_size=5)


@pytest.mark.parametrize("candidates", [1, 3, learn.CANDIDATES])
@given(word_counts=counted_words, most=st.integers(0, 40))
@example(word_counts={b"aaaaaaa": 2, b"aabaaab": 1}, most=9)  # runs of a pair with itself
@example(word_counts={b"aaaa": 10, b"cd": 5}, most=2)  # two of them side by side are commoner than the next pair
@example(word_counts={b"abc": 2, b"bcd": 2, b"cda": 2, b"abab": 1}, most=9)  # ties between old pairs and new
def test_training_equals_the_textbook(candidates, word_counts, most):
    repeated = [word for word, count in word_counts.items() for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "CANDIDATES", candidates)
        assert learn_merges(word_counts, most) == reference.train(repeated, most)


each_way = pytest.mark.parametrize("merge", [merge_by_scanning, merge_by_heap, apply_merges])


@each_way
@given(counted_words, few_letters)
def test_encoding_equals_the_textbook(merge, word_counts, word):
    merges = learn_merges(word_counts, 40)
    merged_ids = {pair: new_id for new_id, pair in enumerate(merges, start=256)}
    assert merge(word, merged_ids) == reference.encode(word, merges)


@each_way
@given(st.permutations([(97, 97), (97, 98), (98, 98), (98, 97)]), st.text("ab", max_size=2 * SHORT).map(str.encode))
def test_encoding_equals_the_textbook_for_merges_nobody_learnt(merge, pairs, word):
    merges = [*pairs, (256, 257), (256, 256), (258, 97), (257, 256)]
    merged_ids = {pair: new_id for new_id, pair in enumerate(merges, start=256)}
    assert merge(word, merged_ids) == reference.encode(word, merges)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@given(texts, st.integers(0, 30))
def test_the_whole_way_equals_the_textbook(pattern, documents, more):
    pre_tokens = [found.encode() for text in documents for found in compile_pattern(pattern).findall(text)]
    if not pre_tokens:
        return
    tokenizer = train_bpe(documents, SMALLEST_VOCABULARY + more, pattern)
    merges = reference.train(pre_tokens, more)
    assert list(tokenizer.merges) == merges
    assert tokenizer.vocab_size == SMALLEST_VOCABULARY + len(merges)
    assert tokenizer.encode(documents[0]) == [
        token_id
        for found in compile_pattern(pattern).findall(documents[0])
        for token_id in reference.encode(found.encode(), merges)
    ]


@pytest.mark.parametrize(("letters", "longest", "weight"), [(4, 8, 3), (8, 8, 9), (12, 9, 5), (26, 9, 20)])
def test_drawn_languages_equal_the_textbook(letters, longest, weight):
    """More pairs than are wanted, so that the rare ones have to wait."""
    for seed in range(12):
        rng = random.Random(seed)
        words = [bytes(rng.choices(range(97, 97 + letters), k=rng.randint(1, longest))) for _ in range(40)]
        counts = {word: rng.randint(1, weight) for word in words}
        most = rng.randint(5, 60)
        repeated = [word for word, count in counts.items() for _ in range(count)]
        assert learn_merges(counts, most) == reference.train(repeated, most)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@given(texts, st.integers(1, 9))
def test_pre_tokens_are_counted_batch_by_batch(pattern, documents, characters):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "BATCH_CHARACTERS", characters)
        counts = count_pre_tokens(documents, pattern)
    assert counts == Counter(found for text in documents for found in compile_pattern(pattern).findall(text))


def test_a_larger_case_equals_the_textbook():
    rng = random.Random(0)
    syllables = ["ka", "lo", "mi", "ter", "an", "s", "ing", "é", "汉"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 5))).encode() for _ in range(400)]
    assert learn_merges({word: words.count(word) for word in set(words)}, 150) == reference.train(words, 150)


def test_order_of_the_texts_makes_no_difference():
    documents = ["the cat sat on the mat", "a hat on a cat", "汉字 and café"]
    assert train_bpe(documents, 300) == train_bpe(documents[::-1], 300)


def test_a_document_ends_its_words():
    assert train_bpe(["ab", "ab"], 300).merges == ((97, 98),)


def test_control_tokens_in_the_texts_are_text():
    tokenizer = train_bpe(["<|end|>" * 50], 300)
    assert tokenizer.end_id not in tokenizer.encode("<|end|>")


def test_a_very_long_word_is_encoded_in_reasonable_time():
    tokenizer = train_bpe(["a" * 64 + " banana"], 270)
    ids = tokenizer.encode("a" * 100_000)
    assert tokenizer.decode(ids) == "a" * 100_000 and len(ids) < 10_000


def test_the_cache_of_pieces_is_bounded(monkeypatch):
    monkeypatch.setattr(PieceCache, "MOST", 10)
    encoded = []
    cache = PieceCache(lambda piece: encoded.append(piece) or piece.encode())
    for number in range(100):
        assert cache[f"{number}ab"] == f"{number}ab".encode() == cache[f"{number}ab"]
        assert len(cache) <= 10
    assert encoded == [f"{number}ab" for number in range(100)] and "99ab" in cache
    long_piece = "a" * (PieceCache.LONGEST + 1)
    assert cache[long_piece] == long_piece.encode()
    assert long_piece not in cache


def test_ids_that_two_bytes_cannot_hold_are_kept_whole():
    pairs = [(left, right) for left in range(256) for right in range(256)]
    tokenizer = build_tokenizer(pairs, "gpt4", byte_order=reversed(range(256)))  # the last ids for the lowest bytes
    last = 256 + 255 * 256 + 255
    assert tokenizer.encode("\0\0") == list(tokenizer.encode_iterable(["\0", "\0"])) == [last] and last > 0xFFFF
    assert tokenizer.encode_batch(["\0\0"] * 2) == [[last]] * 2


@pytest.mark.parametrize(
    ("documents", "vocab_size", "pattern", "message"),
    [
        (["text"], 260, "gpt4", "too small"),
        (["text"], 300, "gpt3", "unknown split pattern"),
        ([], 300, "gpt4", "no text"),
        (["", ""], 300, "gpt4", "no text"),
        (["half \ud83d"], 300, "gpt4", "surrogate"),
    ],
)
def test_what_cannot_be_trained_on(documents, vocab_size, pattern, message):
    with pytest.raises(UserError, match=message):
        train_bpe(documents, vocab_size, pattern)
