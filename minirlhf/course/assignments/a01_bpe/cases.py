"""Drawn inputs for a01: counting pairs, merging, encoding, decoding, text as it comes, and the twist.

Every function draws one case from a generator. Words are of few letters, so that pairs come again and again, stand in
runs and are equally common.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirlhf.course.jobs import Case, Job
from minirlhf.reference import bpe

Rng = np.random.Generator


def some_words(rng: Rng, count: int, letters: str = "abcd", longest: int = 8) -> list[bytes]:
    """Words of 2 to `longest` letters, each likelier than the one after it."""
    shares = np.arange(len(letters), 0, -1) / np.arange(len(letters) + 1).sum()
    return ["".join(rng.choice(list(letters), p=shares, size=int(rng.integers(2, longest + 1)))).encode()
            for _ in range(count)]  # fmt: skip


def as_bytes(word: bytes) -> dict[str, str]:
    return {"bytes": word.decode("latin-1")}


def as_pairs(pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """A list of tuples."""
    return {"list": [[{"value": left}, {"value": right}] for left, right in pairs]}


def count_pairs(rng: Rng, runs: bool = False) -> Case:
    """Rows of ids, some of which were merged before. runs: one id again and again."""
    ids = [97, 98, 256, int(rng.integers(257, 300))]
    words = [rng.choice(ids, size=int(rng.integers(2, 9))).tolist() for _ in range(5)]
    if runs:
        words = [[token] * int(rng.integers(2, 7)) for token in ids] + words[:2]
    return Case(Job("count_pairs", [{"value": [*words, [97], []]}]), {})


def replace_pair(rng: Rng, runs: bool = False, absent: bool = False) -> Case:
    """A word with a pair of two different ids in it several times. runs: of (a, a). absent: not there."""
    left, right, other = (int(token) for token in rng.choice([97, 98, 99, 256, 261], size=3, replace=False))
    pair = (left, left) if runs else (left, right)
    parts: list[list[int]] = [[*pair], [*pair], [right, left], [other], [other, left], [*pair, right], [right] * 2]
    if runs:
        parts = [[left] * 3, [other], [left] * 5, [right], [left] * 2, [right, other], [left], [other]]
    if absent:
        parts = [[right, left], [right, other], [other, left], [other], [right]]
    order = range(len(parts)) if runs or absent else rng.permutation(len(parts))
    word = [token for i in order for token in parts[i]]
    arguments = [{"value": word}, [{"value": each} for each in pair], {"value": int(rng.integers(262, 290))}]
    return Case(Job("replace_pair", arguments), {})


def train(rng: Rng, ties: bool = False, whole: bool = False) -> Case:
    """Pre-tokens and how many merges. ties: every pair of the first rounds is as common. whole: more than there are."""
    words = some_words(rng, 8, longest=5) * 2 + some_words(rng, 8)
    most = int(rng.integers(8, 13))
    if ties:
        words = [word.encode() for word in rng.permutation(["zy", "xwv", "ut", "srqp", "on", "mlk", "ji"])]
    if whole:
        words, most = [*words[:5], b"a", b""], 100
    return Case(Job("train", [{"list": [as_bytes(word) for word in words]}, {"value": most}]), {})


def encode(rng: Rng, runs: bool = False) -> Case:
    """A pre-token that the merges were not learnt from. runs: with long runs of one letter."""
    letters = "ab" if runs else "abcd"
    merges = bpe.train(some_words(rng, 30, letters), int(rng.integers(14, 20)))
    word = b"".join(some_words(rng, 4, letters))
    if runs:
        word += b"".join(bytes([byte]) * int(rng.integers(3, 10)) for byte in b"abab")
    last = bpe.decode([256 + len(merges) - 1], merges)  # so that even the last merge has work
    return Case(Job("encode", [as_bytes(last + b"e" + word), as_pairs(merges)]), {})


def decode(rng: Rng, deep: bool = False) -> Case:
    """Ids of bytes and of merges. deep: each merge takes the one before it."""
    merges = bpe.train(some_words(rng, 30), 15)
    if deep:
        merges = [(97, 98), *((256 + i, int(rng.integers(97, 123))) for i in range(20))]
    ids = [*rng.integers(256, 256 + len(merges), size=7).tolist(), *rng.integers(256, size=3).tolist()]
    return Case(Job("decode", [{"value": rng.permutation(ids).tolist()}, as_pairs(merges)]), {})


TEXTS = ["Größe", "naïve café", "日本語の文", "Ελλάδα", "🙂 ok 🙃", "crème brûlée", "Привет", "½ ± ¼"]


def stream(rng: Rng, flushed: bool = False, control: bool = False) -> Case:
    """Ids one at a time, whose characters are spread over several. flushed: the last character is not complete."""
    text = " ".join(rng.choice(TEXTS, size=2, replace=False))
    merges = bpe.train([text.encode()], 3)
    ids = bpe.encode(text.encode(), merges)
    if flushed:
        ids = [*text.encode(), *"é🙂"[int(rng.integers(2))].encode()[:-1]]
    if control:
        names = 256 + len(merges) + rng.integers(5, size=4)
        for name in names.tolist():
            ids.insert(int(rng.integers(len(ids) + 1)), name)
    setting = {"merges": [list(pair) for pair in merges], "ids": ids, "skip": control and bool(rng.integers(4)),
               "flushed": flushed}  # fmt: skip
    target = f"StreamDecoder.{'flush' if flushed else 'push'}"
    job = Job(target, [{"shown": f"of each of {ids}"}], play="a01_bpe.plays:streamed", setting=setting)
    return Case(job, {})


def twisted_train(rng: Rng, few: bool = False) -> Case:
    """Words with how often they come, in which there is more to merge than may be. few: few merges are asked for."""
    stem = some_words(rng, 1)[0][:3] + b"dcab"  # common to several words, so that it would become one token
    words = sorted({*some_words(rng, 12, longest=9), *(stem + end for end in some_words(rng, 4, longest=3)), stem})
    counted = [[as_bytes(word), {"value": int(rng.integers(1, 13))}] for word in rng.permutation(words).tolist()]
    most = int(rng.integers(14, 19)) if few else 100
    return Case(Job("twisted_train", [{"items": counted}, {"value": most}]), {})


def twisted_encode(rng: Rng, long: bool = False) -> Case:
    """Runs of three letters, and merges that begin with pairs of one letter with itself."""
    byte = rng.permutation([97, 98, 99])
    word = b"".join(bytes([rng.choice(byte)]) * int(rng.integers(1, 8)) for _ in range(24 if long else 14))
    merges: list[tuple[int, int]] = []
    standing = list(word)
    while len(merges) < 16 and len(standing) > 1:
        at = int(rng.integers(len(standing) - 1))
        alike = int(byte[len(merges) % 3])
        pair = (alike, alike) if len(merges) < 3 else (standing[at], standing[at + 1])
        standing = bpe.replace_pair(standing, pair, 256 + len(merges))
        merges.append(pair)
    return Case(Job("twisted_encode", [as_bytes(word), as_pairs(merges)]), {})


CASES: dict[str, Callable[..., Case]] = {
    "count_pairs": count_pairs,
    "replace_pair": replace_pair,
    "train": train,
    "encode": encode,
    "decode": decode,
    "stream": stream,
    "twisted_train": twisted_train,
    "twisted_encode": twisted_encode,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
