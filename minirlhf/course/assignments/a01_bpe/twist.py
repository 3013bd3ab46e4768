"""The twist of a01: merges learnt by another score, and applied with some left out and from right to left.

    cap      a word that comes n times counts min(n, cap) times
    bonus    a pair scores its count times (bytes of the token it makes + bonus), and the highest score is merged
    longest  no token gets more bytes than this
    least    a pair counted fewer times is never merged
    tie      of equal scores the smallest (left + right) modulo tie goes first, then the smallest left, right id
    every, rest   encoding leaves out the merges whose number is rest modulo every

Everybody gets cap, bonus, longest, every and rest, and one of least and tie. The reference keeps a word as a text of
which each character is an id, so that merging is str.replace, and from right to left it is the same on reversed texts.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist
from minirlhf.course.results import flatten

NAMES = ("cap", "bonus", "longest", "every", "rest", "least", "tie")


def draw(drawn: bytes) -> Twist:
    """More than 10,000 combinations."""
    every = 3 + drawn[4] % 4
    third = ("least", 4.0 + drawn[6] % 7) if drawn[0] % 2 else ("tie", 5.0 + drawn[6] % 9)
    return {
        "cap": 3.0 + drawn[1] % 6,
        "bonus": 1.0 + drawn[2] % 7,
        "longest": 4.0 + drawn[3] % 3,
        "every": float(every),
        "rest": float(drawn[5] % every),
        third[0]: third[1],
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    steps = [
        f"twisted_train: a word that comes n times counts min(n, {twist['cap']:g}) times, and so does every place "
        "in it at which a pair of ids stands.",
        "twisted_train: the score of a pair is its count times (the bytes of the token it would make + "
        f"{twist['bonus']:g}). In each round the pair with the highest score is merged.",
        f"twisted_train: a pair that would make a token of more than {twist['longest']:g} bytes is never merged."
        + (f" Nor is a pair whose count is below {twist['least']:g}." if "least" in twist else "")
        + " It ends after `most` merges, or when no pair may be merged.",
    ]
    if "tie" in twist:
        steps.append(
            f"twisted_train: of pairs with the same score the one is merged whose (left + right) % {twist['tie']:g} is "
            "smallest; of those the one with the smallest left id, then the smallest right id."
        )
    else:
        steps.append("twisted_train: ties are broken as in exercise 1.3.")
    steps += [
        "twisted_encode: merge number r = 0, 1, … makes id 256 + r as ever, but merges with "
        f"r % {twist['every']:g} == {twist['rest']:g} are left out. Merges that need an id that was left out then find "
        "nothing.",
        "twisted_encode: a pair is replaced from right to left, so that of a, a, a the last two are joined.",
    ]
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right."""
    return (trained if case.job.target == "twisted_train" else encoded)(twist, case)


def named(value: Any) -> Arrays:
    found: Arrays = {}
    flatten(found, "out", value)
    return found


def trained(twist: Twist, case: Case, by_count: bool = False, each_place: bool = True) -> Arrays:
    """The merges. by_count: the score is the count; each_place False: a word counts a pair once."""
    items, most = case.job.arguments
    texts = [(word["bytes"], min(times["value"], twist["cap"])) for word, times in items["items"]]
    sizes = dict.fromkeys(map(chr, range(256)), 1)
    merges: list[tuple[int, int]] = []
    while len(merges) < most["value"]:
        counts: Counter[tuple[str, str]] = Counter()
        for text, times in texts:
            pairs = list(pairwise(text))
            for pair in pairs if each_place else set(pairs):
                counts[pair] += int(times)
        ranked = []
        for (left, right), count in counts.items():
            size = sizes[left] + sizes[right]
            if size <= twist["longest"] and count >= twist.get("least", 0):
                score = count * (1 if by_count else size + twist["bonus"])
                first = (ord(left) + ord(right)) % twist["tie"] if "tie" in twist else 0
                ranked.append((-score, first, ord(left), ord(right)))
        if not ranked:
            break
        *_, left_id, right_id = min(ranked)
        left, right, new = chr(left_id), chr(right_id), chr(256 + len(merges))
        texts = [(text.replace(left + right, new), times) for text, times in texts]
        sizes[new] = sizes[left] + sizes[right]
        merges.append((left_id, right_id))
    return named(merges)


def encoded(twist: Twist, case: Case, first: int = 0, turned: bool = True, renumbered: bool = False) -> Arrays:
    """The ids. first: what merges are counted from; turned: from right to left; renumbered: ids have no gaps."""
    word, merges = case.job.arguments
    text = word["bytes"][::-1] if turned else word["bytes"]
    new = 256
    for number, (left, right) in enumerate(merges["list"], start=first):
        if number % twist["every"] != twist["rest"]:
            pair = chr(left["value"]) + chr(right["value"])
            text = text.replace(pair[::-1] if turned else pair, chr(new))
        new += not (renumbered and number % twist["every"] == twist["rest"])
    return named([ord(each) for each in (text[::-1] if turned else text)])


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    if case.job.target == "twisted_train":
        yield "a word counted as often as it comes, without a cap", trained(twist | {"cap": 1e9}, case)
        yield "a word counted once, however often it comes", trained(twist | {"cap": 1.0}, case)
        yield "the score were the count alone", trained(twist, case, by_count=True)
        yield "the number added to the bytes were missing in the score", trained(twist | {"bonus": 0.0}, case)
        yield "tokens could be of any length", trained(twist | {"longest": 1e9}, case)
        yield "a token had to stay below the longest length", trained(twist | {"longest": twist["longest"] - 1}, case)
        yield "a pair counted once a word, however often it stands there", trained(twist, case, each_place=False)
        if "least" in twist:
            yield "rare pairs were merged, too", trained(without["least"], case)
            yield "a pair had to exceed the least count", trained(twist | {"least": twist["least"] + 1}, case)
        else:
            yield "ties went to the smallest ids", trained(without["tie"], case)
    else:
        yield "no merge were left out", encoded(twist | {"rest": -1.0}, case)
        yield "merges were numbered from 1", encoded(twist, case, first=1)
        yield "pairs were replaced from left to right", encoded(twist, case, turned=False)
        yield "later merges took the ids of those left out", encoded(twist, case, renumbered=True)


CODE = '''
from collections import Counter
from collections.abc import Mapping, Sequence

Pair = tuple[int, int]


def twisted_train(words: Mapping[bytes, int], most: int) -> list[Pair]:
    """Up to `most` merges, in the order learnt, of words and how often each comes. Merge r makes id 256 + r."""
    ...


def twisted_encode(pre_token: bytes, merges: Sequence[Pair]) -> list[int]:
    """The ids of one pre-token, with the changes above."""
    ...
'''
