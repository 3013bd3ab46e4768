"""Applying byte pair merges to the ids of one pre-token."""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise, repeat

Pair = tuple[int, int]

SHORT = 40  # ids; up to here scanning is the faster way
NO_MERGE = 1 << 62  # larger than any id


def apply_merges(ids: Sequence[int], merged_ids: Mapping[Pair, int]) -> list[int]:
    """Merge neighbours, earliest learnt pair first and leftmost first, until no neighbours are a pair.

    merged_ids maps a pair to the id it becomes; ids grow with the rank of the merge, so the smallest id comes first.
    The same as going through all merges in order and replacing each pair wherever it stands, left to right,
    because a merge can only create pairs that are learnt later.
    """
    return (merge_by_scanning if len(ids) <= SHORT else merge_by_heap)(ids, merged_ids)


def merge_by_scanning(ids: Sequence[int], merged_ids: Mapping[Pair, int]) -> list[int]:
    """apply_merges by looking at all neighbours before each merge: O(n^2), and fastest for a few ids."""
    symbols = list(ids)
    while len(symbols) > 1:
        candidates = list(map(merged_ids.get, pairwise(symbols), repeat(NO_MERGE)))
        first = min(candidates)
        if first == NO_MERGE:
            break
        at = candidates.index(first)
        symbols[at : at + 2] = [first]
    return symbols


def merge_by_heap(ids: Sequence[int], merged_ids: Mapping[Pair, int]) -> list[int]:
    """apply_merges in O(n log n), for pre-tokens of any length.

    The neighbours form a linked list, and a heap holds the merges that are possible; entries that another merge has
    made impossible stay in it and are passed over.
    """
    symbols = list(ids)
    count = len(symbols)
    after = list(range(1, count + 1))  # index of the right neighbour; count means none
    before = list(range(-1, count - 1))  # index of the left neighbour; -1 means none
    possible = [(merged_ids[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in merged_ids]
    heapify(possible)
    while possible:
        new_id, left = heappop(possible)
        right = after[left]
        if right == count or merged_ids.get((symbols[left], symbols[right])) != new_id:
            continue  # one of the two has meanwhile become part of another token
        symbols[left], symbols[right] = new_id, -1
        beyond, ahead = after[right], before[left]
        after[left] = beyond
        if beyond < count:
            before[beyond] = left
            candidate = merged_ids.get((new_id, symbols[beyond]))
            if candidate is not None:
                heappush(possible, (candidate, left))
        if ahead >= 0:
            candidate = merged_ids.get((symbols[ahead], new_id))
            if candidate is not None:
                heappush(possible, (candidate, ahead))
    return [symbol for symbol in symbols if symbol >= 0]


class PieceCache(dict[str, tuple[int, ...]]):
    """The ids of pre-tokens already met: `cache[piece]` looks up or computes.

    Bounded: only pieces of up to LONGEST characters are kept, and when MOST of them are kept all are forgotten,
    so that the common ones come back at once and the rare ones do not pile up.
    """

    MOST = 1 << 16
    LONGEST = 64

    def __init__(self, byte_ids: bytes, merged_ids: Mapping[Pair, int]):
        super().__init__()
        self.byte_ids, self.merged_ids = byte_ids, merged_ids

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(apply_merges(piece.encode("utf-8").translate(self.byte_ids), self.merged_ids))
        if len(piece) <= self.LONGEST:
            if len(self) >= self.MOST:
                self.clear()
            self[piece] = ids
        return ids
