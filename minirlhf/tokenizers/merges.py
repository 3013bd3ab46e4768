"""Applying byte pair merges to the ids of one pre-token."""

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise, repeat

Pair = tuple[int, int]
SHORT = 24  # up to so many ids, looking at all of them again costs less than a heap
NO_PAIR = 1 << 62  # larger than any id


def apply_merges(ids: Sequence[int], merged_ids: Mapping[Pair, int]) -> list[int]:
    """Merge neighbours, earliest learnt pair first and leftmost first, until no neighbours are a pair.

    merged_ids maps a pair to the id it becomes; ids grow with the rank of the merge, so the smallest id comes first.
    The same as going through all merges in order and replacing each pair wherever it stands, left to right,
    because a merge can only create pairs that are learnt later.
    """
    return merge_by_scanning(ids, merged_ids) if len(ids) <= SHORT else merge_by_heap(ids, merged_ids)


def merge_by_scanning(ids: Sequence[int], merged_ids: Mapping[Pair, int]) -> list[int]:
    """apply_merges in O(n²) for n ids: for each merge, the smallest of all that are possible is looked for anew."""
    merged = merged_ids.get
    symbols = [*ids, -1]  # -1 is in no pair
    possible = [*map(merged, pairwise(symbols), repeat(NO_PAIR)), NO_PAIR]  # what each becomes with what follows
    while (new_id := min(possible)) < NO_PAIR:
        left = possible.index(new_id)
        del symbols[left], possible[left]  # the right one moves to where the left one was
        symbols[left] = new_id
        possible[left] = merged((new_id, symbols[left + 1]), NO_PAIR)
        possible[left - 1] = merged((symbols[left - 1], new_id), NO_PAIR)  # if there is none before: of the last, -1
    return symbols[:-1]


def merge_by_heap(ids: Sequence[int], merged_ids: Mapping[Pair, int]) -> list[int]:
    """apply_merges in O(n log n) for n ids.

    The neighbours form a linked list, and a heap holds the merges that are possible; entries that another merge has
    made impossible stay in it and are passed over.
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


class PieceCache(dict[str, bytes]):
    """The packed ids of pieces of text, if already met: `cache[piece]` looks up or calls encode.

    Bounded: only pieces of up to LONGEST characters are kept, and when MOST of them are kept all are forgotten,
    so that the common ones come back at once and the rare ones do not pile up.
    """

    MOST = 1 << 18
    LONGEST = 64

    def __init__(self, encode: Callable[[str], bytes]):
        super().__init__()
        self.encode = encode

    def __missing__(self, piece: str) -> bytes:
        ids = self.encode(piece)
        if len(piece) <= self.LONGEST:
            if len(self) >= self.MOST:
                self.clear()
            self[piece] = ids
        return ids
