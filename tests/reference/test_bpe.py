"""The textbook algorithm against an example worked out by hand and against what its text claims."""

from hypothesis import given
from hypothesis import strategies as st

from minirlhf.reference import bpe

words_of_few_letters = st.lists(st.text("abc", max_size=9).map(str.encode), max_size=12)


def test_example_by_hand():
    # low ×2, lower ×1: (l,o) and (o,w) come 3 times each and l < o, so "lo" is first;
    # then (lo,w) 3 times; then (low,e) and (e,r) once each, and e = 101 < 257.
    words = [b"low", b"lower", b"low"]
    merges = bpe.train(words, 10)
    assert merges == [(ord("l"), ord("o")), (256, ord("w")), (ord("e"), ord("r")), (257, 258)]
    assert bpe.encode(b"lower", merges) == [259]
    assert bpe.encode(b"slow", merges) == [ord("s"), 257]
    assert bpe.encode(b"owl", merges) == [ord("o"), ord("w"), ord("l")]


def test_overlaps_count_twice_and_merge_from_the_left():
    assert bpe.count_pairs([b"aaa"]) == {(97, 97): 2}
    assert bpe.replace_pair(b"aaa", (97, 97), 256) == [256, 97]
    assert bpe.train([b"aaa", b"bc", b"bc"], 1) == [(97, 97)]  # 2 against 2: the smaller ids win


def test_ties_go_to_the_smallest_left_then_right_id():
    assert bpe.train([b"zb", b"ad", b"ac"], 3) == [(97, 99), (97, 100), (122, 98)]


@given(words_of_few_letters, st.integers(0, 20))
def test_decoding_undoes_encoding(words, most):
    merges = bpe.train(words, most)
    assert len(merges) <= most
    for word in words:
        assert bpe.decode(bpe.encode(word, merges), merges) == word


@given(words_of_few_letters, st.randoms())
def test_order_of_the_words_makes_no_difference(words, random):
    shuffled = random.sample(words, len(words))
    assert bpe.train(words, 12) == bpe.train(shuffled, 12)


@given(words_of_few_letters)
def test_no_token_is_learnt_twice_and_each_encodes_to_itself(words):
    merges = bpe.train(words, 30)
    tokens = [bpe.decode([token_id], merges) for token_id in range(256, 256 + len(merges))]
    assert len(set(tokens)) == len(tokens)
    for token_id, token in enumerate(tokens, start=256):
        assert bpe.encode(token, merges) == [token_id]


@given(words_of_few_letters)
def test_training_ends_when_nothing_is_left_to_merge(words):
    merges = bpe.train(words, 10_000)
    assert all(len(bpe.encode(word, merges)) <= 1 for word in words)
