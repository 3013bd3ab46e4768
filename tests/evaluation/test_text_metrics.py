"""Variety, repetition, ends and lengths: against counting by hand."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.evaluation.text_metrics import distinct_n, eos_rate, mean_length, repetition_rate

texts = st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=6)


def grams(text, n):
    return [" ".join(map(str, text[i : i + n])) for i in range(len(text)) if i + n <= len(text)]


@given(texts=texts, n=st.integers(1, 4))
def test_distinct_and_repetition_by_counting(texts, n):
    everything = Counter(gram for text in texts for gram in grams(text, n))
    total = sum(everything.values())
    assert distinct_n(texts, n) == (len(everything) / total if total else 0.0)
    repeated = sum(count - 1 for text in texts for count in Counter(grams(text, n)).values())
    assert repetition_rate(texts, n) == (repeated / total if total else 0.0)


@given(texts=texts)
def test_words_and_token_ids_count_alike(texts):
    as_words = [" ".join(f"w{i}" for i in text) for text in texts]
    as_tensors = [torch.tensor(text, dtype=torch.int64) for text in texts]
    assert distinct_n(texts) == distinct_n(as_words) == distinct_n(as_tensors)
    assert repetition_rate(texts) == repetition_rate(as_words) == repetition_rate(as_tensors)
    if texts:
        assert mean_length(texts) == mean_length(as_words) == sum(map(len, texts)) / len(texts)


def test_pairs_do_not_cross_from_text_to_text():
    assert distinct_n(["a b", "b c"]) == 1.0
    assert distinct_n(["a", "b", "c"]) == 0.0  # no text has two words
    assert distinct_n(["a b", "a b"]) == 0.5
    assert repetition_rate(["a b c d", "a b c d"]) == 0.0  # the same sentence in two answers is no loop
    assert repetition_rate(["go go go go go go"]) == pytest.approx(2 / 3, rel=1e-12)


def test_eos_rate_and_what_is_refused():
    assert eos_rate([True, False, True, True]) == 0.75
    assert eos_rate(torch.tensor([True, False])) == 0.5
    for call in (lambda: eos_rate([]), lambda: mean_length([]), lambda: distinct_n(["a"], 0)):
        with pytest.raises(ValueError):
            call()
