"""Learning merges, many in one round.

The textbook (reference/bpe.py) joins the commonest pair, counts all pairs anew, and so on. Here a round joins a whole
batch of pairs, in NumPy, and gives the same merges, because of three facts:

1. *Counts only fall.* Joining destroys occurrences of the pairs there are, so a count taken earlier is an upper bound.
   The candidates with the highest bounds are counted anew; those not behind the bound of any other pair lead.
2. *Pairs that cannot touch.* If no pair of the batch begins with an id that another one ends with, no two of their
   occurrences overlap, and joining the first leaves the counts of the others as they are.
3. *New pairs wait their turn.* Joining (a, b) into n creates pairs (x, n) and (n, y). Such an (x, n) stands no more
   often than (x, a) did, which touches (a, b). If (x, n) came before the next pair of the batch, so would (x, a)
   have, and it would have ended the batch; in a tie too, because n is larger than every id so far. The same goes for
   (n, y) and (b, y). Only a pair (a, a) touches none but itself: it ends the batch.

Rare pairs wait: only pairs that stand at least `floor` times are kept. When none is left, all pairs are counted
again and the floor is lowered. So a merge costs what it joins, and not what the whole text holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from minirlhf.tokenizers.merges import Pair

CANDIDATES = 64  # pairs that a round counts anew; of these, about 15 are joined
END, GONE = -1, -2  # what stands after each word; what stands where a right half was
Integers = NDArray[np.signedinteger]


@dataclass(frozen=True)
class Row:
    """All words in one row, END after each; the arrays are changed in place."""

    ids: Integers  # [N] token ids, END or GONE
    weights: Integers  # [N] how often the word comes in the text
    before: Integers  # [N] where the left neighbour is, over what is GONE
    after: Integers  # [N] where the right neighbour is


@dataclass(frozen=True)
class Pairs:
    """The pairs that stand at least `floor` times. A pair is one number, its key: left id · 2³² + right id."""

    floor: int
    keys: Integers  # [P]
    bounds: Integers  # [P] each stands at most so often
    places: dict[int, Integers]  # key -> where its left ids are, or were: some may have been joined to others since


def learn_merges(word_counts: Mapping[bytes, int], most: int) -> list[Pair]:
    """Up to `most` merges over the ids 0-255 (bytes) and 256 + r (merge r), from words and how often each comes."""
    row = _lay_out(word_counts)
    merges: list[Pair] = []
    while len(merges) < most:
        row = _close_gaps(row)
        pairs = _count_pairs(row, most - len(merges))
        if not len(pairs.keys):
            break  # every word is one token
        while len(merges) < most and len(pairs.keys):
            leaders = _leaders(row, pairs)[: most - len(merges)]
            batch, places = _batch(row, pairs, leaders)
            new_pairs = _join(row, places, 256 + len(merges), pairs.floor)
            merges += [(key >> 32, key & 0xFFFFFFFF) for key in batch]
            pairs = _with(pairs, leaders[: len(batch)], new_pairs)
    return merges


def _lay_out(word_counts: Mapping[bytes, int]) -> Row:
    lengths = np.fromiter(map(len, word_counts), np.int64, len(word_counts)) + 1
    ids = np.full(lengths.sum(), END, np.int32)
    is_byte = np.ones(len(ids), bool)
    is_byte[lengths.cumsum() - 1] = False
    ids[is_byte] = np.frombuffer(b"".join(word_counts), np.uint8)
    weights = np.fromiter(word_counts.values(), np.int64, len(lengths)).repeat(lengths)
    return Row(ids, weights, ids, ids)


def _close_gaps(row: Row) -> Row:
    """The row without what is GONE, each position beside its neighbours."""
    stays = row.ids != GONE
    ids = row.ids[stays]
    here = np.arange(len(ids), dtype=np.int32)
    return Row(ids, row.weights[stays], here - 1, here + 1)  # before the first position: ids[-1], which is END


def _keys(left: Integers, right: Integers) -> Integers:
    return left.astype(np.int64) << 32 | right


def _grouped(keys: Integers, weights: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """The different keys, the sum of the weights of each, and an order of all that puts equal keys side by side,
    each group beginning at `starts`."""
    order = keys.argsort(kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(keys)])
    return ordered[starts], np.add.reduceat(weights[order], starts) if len(keys) else weights, order, starts


def _common(row: Row, places: Integers, floor: int | None = None, wanted: int = 0) -> Pairs:
    """The pairs at these places that stand there `floor` times, or a floor low enough for `wanted` pairs."""
    keys, counts, order, starts = _grouped(_keys(row.ids[places], row.ids[row.after[places]]), row.weights[places])
    if floor is None:
        floor = int(np.partition(counts, -wanted)[-wanted]) if len(counts) > wanted else 1
    common = np.flatnonzero(counts >= floor)
    places, edges = places[order], np.append(starts, len(order))
    groups = zip(keys[common].tolist(), edges[common].tolist(), edges[common + 1].tolist(), strict=True)
    return Pairs(floor, keys[common], counts[common], {key: places[start:end] for key, start, end in groups})


def _count_pairs(row: Row, wanted: int) -> Pairs:
    places = np.flatnonzero((row.ids[:-1] >= 0) & (row.ids[1:] >= 0))
    return _common(row, places.astype(np.int32), wanted=wanted)


def _leaders(row: Row, pairs: Pairs) -> Integers:
    """Indices of pairs that come before all others, best first. Makes the candidates' bounds and places exact."""
    bounds = pairs.bounds
    high = np.arange(len(bounds))
    if len(bounds) > CANDIDATES:
        high = np.flatnonzero(bounds >= np.partition(bounds, -CANDIDATES - 1)[-CANDIDATES - 1])
    high = high[np.lexsort((pairs.keys[high], -bounds[high]))]
    candidates, rivals = high[:CANDIDATES], high[CANDIDATES : CANDIDATES + 1]

    keys = pairs.keys[candidates]
    lists = [pairs.places[key] for key in keys.tolist()]
    places, of = np.concatenate(lists), np.arange(len(keys)).repeat([len(places) for places in lists])
    true = np.flatnonzero(_keys(row.ids[places], row.ids[row.after[places]]) == keys[of])
    places, of = places[true], of[true]
    counts = np.bincount(of, row.weights[places], len(keys)).astype(np.int64)
    bounds[candidates] = counts
    edges = of.searchsorted(np.arange(len(keys) + 1)).tolist()
    pairs.places.update(
        (key, places[start:end]) for key, (start, end) in zip(keys.tolist(), pairwise(edges), strict=True)
    )

    lead = counts >= pairs.floor
    for rival in rivals:
        lead &= (counts > bounds[rival]) | (counts == bounds[rival]) & (keys < pairs.keys[rival])
    order = np.lexsort((keys, -counts))
    return candidates[order[lead[order]]]


def _batch(row: Row, pairs: Pairs, leaders: Integers) -> tuple[list[int], list[Integers]]:
    """The keys of the leaders that can be joined in one round, and the places of each."""
    batch: list[int] = []
    begins, ends = set[int](), set[int]()
    for key in pairs.keys[leaders].tolist():
        left, right = key >> 32, key & 0xFFFFFFFF
        if left in ends or right in begins:
            break
        batch.append(key)
        begins.add(left)
        ends.add(right)
        if left == right:
            return batch, [*(pairs.places[key] for key in batch[:-1]), _apart(row, pairs.places[key])]
    return batch, [pairs.places[key] for key in batch]


def _apart(row: Row, places: Integers) -> Integers:
    """Of the places of a pair (a, a), those that are joined: in a run a a a a every other one, from the left."""
    places = np.sort(places)
    here = np.arange(len(places))
    begins_run = np.append(True, row.after[places[:-1]] != places[1:])[: len(places)]
    return places[(here - np.maximum.accumulate(np.where(begins_run, here, 0))) % 2 == 0]


def _join(row: Row, lists: list[Integers], first_id: int, floor: int) -> Pairs:
    """Joins the pairs at lists[i] into first_id + i, and returns the pairs this creates."""
    if not lists:
        return Pairs(floor, np.empty(0, np.int64), np.empty(0, np.int64), {})
    places = np.concatenate(lists)
    rights = row.after[places]
    beyond = row.after[rights]
    row.ids[places] = np.arange(first_id, first_id + len(lists)).repeat([len(places) for places in lists])
    row.ids[rights] = GONE
    row.after[places], row.before[beyond] = beyond, places
    ahead = row.before[places]
    left_of = ahead[row.ids[ahead] >= 0]
    right_of = places[(row.ids[beyond] >= 0) & (row.ids[beyond] < first_id)]  # two new ids side by side: in left_of
    return _common(row, np.concatenate([left_of, right_of]), floor)


def _with(pairs: Pairs, joined: Integers, new_pairs: Pairs) -> Pairs:
    """The pairs without those just joined and those known to be rare, and with the new ones."""
    pairs.bounds[joined] = 0
    pairs.places.update(new_pairs.places)
    stay = pairs.bounds >= pairs.floor
    keys = np.append(pairs.keys[stay], new_pairs.keys)
    return Pairs(pairs.floor, keys, np.append(pairs.bounds[stay], new_pairs.bounds), pairs.places)
