"""Learning the merges of byte pair encoding from text.

Tie-break: of the pairs that stand most often side by side, the one with the smallest left id, then the smallest
right id, is merged. `reference/bpe.py` says the same algorithm in its textbook form, which recounts all pairs
for every merge; here the counts are kept up to date instead, and a merge touches only the words that hold its pair.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise

from minirlhf.errors import UserError
from minirlhf.tokenizers.merges import Pair
from minirlhf.tokenizers.pattern import blocks, compile_pattern, split_stream
from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS, Tokenizer, build_tokenizer, to_utf8

SMALLEST_VOCABULARY = 256 + len(CONTROL_TOKENS)


def train_bpe(texts: Iterable[str], vocab_size: int, pattern: str = "gpt4") -> Tokenizer:
    """A tokenizer of vocab_size ids (256 bytes, the merges learnt here, the control tokens).

    It has fewer ids if the texts run out of pairs to merge. Control tokens named in the texts are text.
    The order of the texts makes no difference.
    Raises UserError for a vocabulary too small for the bytes and control tokens, an unknown pattern, a text with an
    unpaired surrogate, or no text at all.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            "the vocabulary is too small",
            found=f"vocab_size {vocab_size}",
            expected=f"at least {SMALLEST_VOCABULARY}: 256 bytes and {len(CONTROL_TOKENS)} control tokens",
            fix="ask for more ids, or use the byte tokenizer",
        )
    if pattern not in ("gpt2", "gpt4"):
        raise UserError("unknown split pattern", found=repr(pattern), expected='"gpt2" or "gpt4"')
    counts = count_pre_tokens(texts, pattern)
    if not counts:
        raise UserError("there is no text to learn merges from", expected="at least one character")
    words = {to_utf8(piece): count for piece, count in counts.items()}
    return build_tokenizer(learn_merges(words, vocab_size - SMALLEST_VOCABULARY), pattern)


def count_pre_tokens(texts: Iterable[str], pattern: str) -> Counter[str]:
    """How often each pre-token comes in the texts; each text is split on its own."""
    compiled = compile_pattern(pattern)
    counts: Counter[str] = Counter()
    for text in texts:
        for pre_tokens in split_stream(compiled, blocks(text)):
            counts.update(pre_tokens)
    return counts


def learn_merges(word_counts: Mapping[bytes, int], most: int) -> list[Pair]:
    """Up to `most` merges over the ids 0-255 (bytes) and 256 + r (merge r), from words and how often each comes.

    Kept up to date: how often each pair stands side by side, in which words (a word may stay listed after
    its last such pair is gone), and a heap of (-count, pair) with one entry per pair. Counts of old pairs only fall,
    so an entry can only promise too much: the top of the heap either tells the truth, and is the best pair, or is
    put back with its present count.
    """
    words = [list(word) for word in word_counts]
    weights = list(word_counts.values())
    pair_counts: defaultdict[Pair, int] = defaultdict(int)
    holders: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, (word, weight) in enumerate(zip(words, weights, strict=True)):
        for pair in pairwise(word):
            pair_counts[pair] += weight
            holders[pair].add(number)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapify(heap)

    merges: list[Pair] = []
    while heap and len(merges) < most:
        promised, best = heappop(heap)
        count = pair_counts.get(best, 0)
        if count != -promised:
            if count > 0:
                heappush(heap, (-count, best))
            continue
        new_id = 256 + len(merges)
        merges.append(best)
        changes: defaultdict[Pair, int] = defaultdict(int)
        for number in holders.pop(best):
            word, created = _merge_in_word(words[number], best, new_id, weights[number], changes)
            words[number] = word
            for pair in created:
                holders[pair].add(number)
        del changes[best], pair_counts[best]
        for pair, change in changes.items():
            pair_counts[pair] += change
            if not pair_counts[pair]:
                del pair_counts[pair], holders[pair]
            elif new_id in pair:
                heappush(heap, (-change, pair))
    return merges


def _merge_in_word(
    word: list[int], best: Pair, new_id: int, weight: int, changes: defaultdict[Pair, int]
) -> tuple[list[int], list[Pair]]:
    """The word with each best pair, from left to right, replaced by new_id; and the pairs that this created.

    Writes into changes what happens to the counts of the neighbouring pairs, weight times each.
    """
    left, right = best
    changes[best] -= weight
    merged: list[int] = []
    created: list[Pair] = []
    at, last = 0, len(word) - 1
    while at <= last:
        if at == last or word[at] != left or word[at + 1] != right:
            merged.append(word[at])
            at += 1
            continue
        if merged:  # … x left right … becomes … x new_id …
            changes[merged[-1], left] -= weight
            changes[merged[-1], new_id] += weight
            created.append((merged[-1], new_id))
        if at + 2 <= last:  # … left right y … becomes … new_id y …
            changes[right, word[at + 2]] -= weight
            changes[new_id, word[at + 2]] += weight
            created.append((new_id, word[at + 2]))
        merged.append(new_id)
        at += 2
    return merged, created
