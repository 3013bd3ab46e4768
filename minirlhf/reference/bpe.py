"""Byte pair encoding, the textbook algorithm: recount everything, merge one pair, begin again.

Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", arXiv:1508.07909,
algorithm 1; over bytes instead of characters as in Radford et al. 2019 (GPT-2). First described for compression:
Gage 1994, "A New Algorithm for Data Compression".

A text is cut into pre-tokens (words, roughly), and each pre-token is a row of ids, at first its bytes, 0 to 255.
Training repeats: count how often each pair of ids stands side by side, join the commonest into one new id
(256, 257, …) wherever it stands. Encoding repeats the same merges, in the order learnt, on a new pre-token.

**Tie-break.** Of the pairs that stand most often side by side, the one with the smallest left id, then the smallest
right id, is merged. So the result depends on the counts alone and not on the order of the texts.

**Overlaps.** "aaa" holds the pair (a, a) twice, and both count; replacing goes from left to right, so it becomes
"aa" + "a".

**Why no token is ever learnt twice.** Suppose the bytes t become one token somewhere in the training text. Then no
merge ever crossed the ends of that stretch, so what happened inside it depended on nothing outside: each merge
replaces its pair everywhere and from left to right, and a run of equal ids that began before the stretch has used up
whole pairs before it, or one would have crossed. So every stretch that becomes t goes through the same merges in the
same order, the last of which is the one pair that makes t. It also follows that encode(t) is t's one id.

**Cost.** With n ids and m merges, training and encoding take O(n m) steps. `tokenizers/learn.py` looks only where a
merge changes something, `tokenizers/merges.py` keeps the possible merges in a heap, and both must give the same.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

Pair = tuple[int, int]


def count_pairs(words: Iterable[Sequence[int]]) -> Counter[Pair]:
    """How often each pair of ids stands side by side in the words."""
    return Counter((word[at], word[at + 1]) for word in words for at in range(len(word) - 1))


def replace_pair(word: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """The word with the pair replaced by new_id wherever it stands, from left to right."""
    replaced: list[int] = []
    at = 0
    while at < len(word):
        if tuple(word[at : at + 2]) == pair:
            replaced.append(new_id)
            at += 2
        else:
            replaced.append(word[at])
            at += 1
    return replaced


def train(pre_tokens: Iterable[bytes], most: int) -> list[Pair]:
    """Up to `most` merges, in the order learnt; fewer if nothing is left to merge. Merge r makes id 256 + r."""
    words = [list(pre_token) for pre_token in pre_tokens]
    merges: list[Pair] = []
    while len(merges) < most and (counts := count_pairs(words)):
        highest = max(counts.values())
        best = min(pair for pair, count in counts.items() if count == highest)
        words = [replace_pair(word, best, 256 + len(merges)) for word in words]
        merges.append(best)
    return merges


def encode(pre_token: bytes, merges: Sequence[Pair]) -> list[int]:
    """The ids of one pre-token: every merge in the order learnt, wherever its pair stands."""
    ids = list(pre_token)
    for rank, pair in enumerate(merges):
        ids = replace_pair(ids, pair, 256 + rank)
    return ids


def decode(ids: Iterable[int], merges: Sequence[Pair]) -> bytes:
    """The bytes of the ids: each id is a byte, or the two ids that were merged into it."""
    return b"".join(bytes([token_id]) if token_id < 256 else decode(merges[token_id - 256], merges) for token_id in ids)
