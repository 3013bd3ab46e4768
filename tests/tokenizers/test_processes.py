"""Several processes give what one gives, in order, and take no more than they need."""

import copy

import pytest

from minirlhf.errors import UserError
from minirlhf.tokenizers import bpe, tokenizer
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.processes import in_batches, map_in_processes

TEXTS = [f"text {number}: the cat's {number * 37} hats\n  汉字 café\n" * (number % 3) for number in range(40)]


def square(number):
    return number * number


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_the_order_is_kept(processes, count):
    assert list(map_in_processes(square, iter(range(count)), processes)) == [number**2 for number in range(count)]


def test_few_items_are_taken_ahead():
    items = iter(range(1, 41))
    results = map_in_processes(square, items, 2)
    assert next(results) == 1 and next(items) <= 6
    assert list(results)[-1] == 1600


@pytest.mark.parametrize("characters", [1, 5, 100])
def test_batches(characters):
    texts = ["", "ab", "cdefgh", "", "i"]
    found = list(in_batches(texts, characters))
    assert [text for batch in found for text in batch] == texts
    assert all(sum(map(len, batch)) >= characters for batch in found[:-1])
    assert all(sum(map(len, batch[:-1])) < characters for batch in found)


def test_training_and_encoding_over_two_processes(monkeypatch):
    alone = train_bpe(TEXTS, 300)
    assert alone.encode_batch(TEXTS, processes=2) == alone.encode_batch(TEXTS)  # one batch: no second process
    monkeypatch.setattr(bpe, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(tokenizer, "BATCH_CHARACTERS", 100)
    assert train_bpe(TEXTS, 300, processes=2) == alone
    assert alone.encode_batch(TEXTS, processes=2) == [alone.encode(text) for text in TEXTS]
    with pytest.raises(UserError, match="surrogate"):
        alone.encode_batch([*TEXTS, "half \ud83d", *TEXTS], processes=2)


def test_a_tokenizer_travels_without_its_caches():
    made = train_bpe(TEXTS, 300)
    fresh = set(vars(copy.copy(made)))
    made.encode("".join(TEXTS))
    assert set(vars(made)) > fresh == set(vars(copy.copy(made)))
    assert copy.copy(made) == made
