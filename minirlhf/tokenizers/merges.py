"""Applying byte pair merges to the ids of one pre-token."""

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, pairwise

Pair = tuple[int, int]


def apply_merges(ids: Sequence[int], merged_ids: Mapping[Pair, int]) -> list[int]:
    """Merge neighbours, earliest learnt pair first and leftmost first, until no neighbours are a pair.

    merged_ids maps a pair to the id it becomes; ids grow with the rank of the merge, so the smallest id comes first.
    The same as going through all merges in order and replacing each pair wherever it stands, left to right,
    because a merge can only create pairs that are learnt later. O(n log n) for n ids: the neighbours form a linked
    list, and a heap holds the merges that are possible; entries that another merge has made impossible stay in it
    and are passed over.
    """
    symbols = [*ids, -1]  # -1 means nothing here: used up, or beyond either end (index n, or -1 as Python counts)
    after = list(range(1, len(symbols)))  # index of the right neighbour
    before = list(range(-1, len(symbols) - 1))  # index of the left neighbour
    possible = [(merged_ids[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in merged_ids]
    heapify(possible)
    while possible:
        new_id, left = heappop(possible)
        right = after[left]
        if merged_ids.get((symbols[left], symbols[right])) != new_id:
            continue  # one of the two has meanwhile become part of another token
        symbols[left], symbols[right] = new_id, -1
        ahead, beyond = before[left], after[right]
        after[left], before[beyond] = beyond, left
        candidate = merged_ids.get((symbols[ahead], new_id))
        if candidate is not None:
            heappush(possible, (candidate, ahead))
        candidate = merged_ids.get((new_id, symbols[beyond]))
        if candidate is not None:
            heappush(possible, (candidate, left))
    return [symbol for symbol in symbols if symbol >= 0]


class PieceCache(dict[str, tuple[int, ...]]):
    """The ids of stretches of text and of their pre-tokens, if already met: `cache[stretch]` looks up or computes.

    Bounded: only stretches of up to LONGEST characters are kept, and when MOST of them are kept all are forgotten,
    so that the common ones come back at once and the rare ones do not pile up.
    """

    MOST = 1 << 18
    LONGEST = 64

    def __init__(self, split: Callable[[str], list[str]], byte_ids: bytes, merged_ids: Mapping[Pair, int]):
        super().__init__()
        self.split, self.byte_ids, self.merged_ids = split, byte_ids, merged_ids

    def __missing__(self, stretch: str) -> tuple[int, ...]:
        pre_tokens = self.split(stretch)
        if len(pre_tokens) > 1:
            ids = tuple(chain.from_iterable(map(self.__getitem__, pre_tokens)))  # each is its own only pre-token
        else:
            ids = tuple(apply_merges(stretch.encode("utf-8").translate(self.byte_ids), self.merged_ids))
        if len(stretch) <= self.LONGEST:
            if len(self) >= self.MOST:
                self.clear()
            self[stretch] = ids
        return ids
