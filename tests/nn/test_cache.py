"""The cache as a value: whatever grows out of it, it goes on holding what it held."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minirlhf.nn.cache import empty_cache

LAYERS, BATCH, CAPACITY = 2, 2, 7
LIKE = torch.zeros((), dtype=torch.float64)


def extended(cache, tokens, start):
    """The cache with `tokens` more tokens, whose numbers count up from `start`, differ by layer, and are -1 times
    as large in the values; and what every layer then sees."""
    cache = cache.reserve(tokens)
    seen = []
    for layer in range(LAYERS):
        numbers = start + 1000.0 * layer + torch.arange(BATCH * tokens, dtype=torch.float64)
        k = numbers.reshape(BATCH, 1, tokens, 1)
        seen.append(tuple(part.clone() for part in cache.append(layer, k, -k)))
    return cache.advance(tokens), seen


def added(before, now, tokens):
    """Keys and values of each layer now are those before, then the new ones."""
    for (old_k, old_v), (k, v) in zip(before, now, strict=True):
        assert torch.equal(k[:, :, :-tokens], old_k) and torch.equal(v[:, :, :-tokens], old_v)
        assert torch.equal(k, -v)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 2), st.booleans()), min_size=1, max_size=12))
@example([(0, 2, False), (1, 1, False), (2, 1, False), (1, 1, True), (2, 1, False)])  # beside an older value's copy
@example([(0, 1, False), (0, 2, False), (1, 1, False), (1, 1, False)])  # two branches of one value
def test_every_continuation_of_every_value_begins_with_what_the_value_held(growth):
    """A tree: each step takes any value made so far, perhaps a copy of it, and lets it grow by one or two tokens."""
    nothing = torch.zeros(BATCH, 1, 0, 1, dtype=torch.float64)
    tree = [(empty_cache(LAYERS, BATCH, 1, CAPACITY, 1, LIKE), [(nothing, nothing)] * LAYERS)]
    for number, (parent, tokens, copy) in enumerate(growth):
        cache, held = tree[parent % len(tree)]
        if cache.length + tokens > CAPACITY:
            continue
        longer, seen = extended(cache.select(slice(None)) if copy else cache, tokens, 10.0 * number)
        assert longer.length == cache.length + tokens
        added(held, seen, tokens)
        tree.append((longer, seen))
        for value, held in tree:
            for layer, (k, v) in enumerate(held):
                assert torch.equal(value.keys[layer][:, :, : value.length], k)
                assert torch.equal(value.values[layer][:, :, : value.length], v)


@given(st.lists(st.integers(0, BATCH - 1), min_size=1, max_size=4), st.integers(1, 3))
def test_selected_rows_are_those_rows_in_that_order(rows, tokens):
    cache, seen = extended(empty_cache(LAYERS, BATCH, 1, CAPACITY, 1, LIKE), tokens, 1.0)
    few = cache.select(torch.tensor(rows))
    assert (few.length, few.capacity) == (cache.length, cache.capacity)
    for layer, (k, v) in enumerate(seen):
        assert torch.equal(few.keys[layer][:, :, :tokens], k[rows])
        assert torch.equal(few.values[layer][:, :, :tokens], v[rows])


@pytest.mark.parametrize("copied", [False, True])
def test_growing_the_newest_value_copies_nothing(copied):
    """A token costs one token's work: the buffers stay where they are, and only an older value gets new ones."""
    cache, _ = extended(empty_cache(LAYERS, BATCH, 1, CAPACITY, 1, LIKE), 2, 1.0)
    if copied:
        cache = cache.select(slice(None))
    places = [buffer.data_ptr() for buffer in (*cache.keys, *cache.values)]
    longer, _ = extended(cache, 1, 5.0)
    longest, _ = extended(longer, 2, 7.0)
    for value in (longer, longest):
        assert [buffer.data_ptr() for buffer in (*value.keys, *value.values)] == places
    beside, _ = extended(longer, 1, 9.0)
    assert not {buffer.data_ptr() for buffer in (*beside.keys, *beside.values)} & set(places)
