"""Answers to the twist of a01, written from its text, on lists of ids: the reference works on texts."""

VARIANTS = {
    "least": {"cap": 5.0, "bonus": 2.0, "longest": 4.0, "every": 4.0, "rest": 1.0, "least": 6.0},
    "tie": {"cap": 7.0, "bonus": 4.0, "longest": 5.0, "every": 3.0, "rest": 2.0, "tie": 7.0},
}


def solve(twist):
    cap, bonus, longest, every, rest = (int(twist[name]) for name in ("cap", "bonus", "longest", "every", "rest"))
    least = f" and count >= {int(twist['least'])}" if "least" in twist else ""
    tie = f"sum(pair) % {int(twist['tie'])}, " if "tie" in twist else ""
    return {
        "twisted_train": [
            "rows = [(list(word), n) for word, n in words.items()]",
            "size = {byte: 1 for byte in range(256)}",
            "merges = []",
            "for new in range(256, 256 + most):",
            "    counts = Counter()",
            "    for ids, n in rows:",
            "        for at in range(1, len(ids)):",
            f"            counts[ids[at - 1], ids[at]] += min(n, {cap})",
            "    allowed = {",
            "        pair: count for pair, count in counts.items()",
            f"        if size[pair[0]] + size[pair[1]] <= {longest}{least}",
            "    }",
            "    if not allowed:",
            "        break",
            "    def order(pair):",
            f"        return -allowed[pair] * (size[pair[0]] + size[pair[1]] + {bonus}), {tie}pair",
            "    best = min(allowed, key=order)",
            "    size[new] = size[best[0]] + size[best[1]]",
            "    merges.append(best)",
            "    for ids, _ in rows:",
            "        at = 0",
            "        while at + 1 < len(ids):",
            "            if (ids[at], ids[at + 1]) == best:",
            "                ids[at : at + 2] = [new]",
            "            at += 1",
            "return merges",
        ],
        "twisted_encode": [
            "ids = list(pre_token)",
            "for r, pair in enumerate(merges):",
            f"    if r % {every} == {rest}:",
            "        continue",
            "    at = len(ids) - 2",
            "    while at >= 0:",
            "        if (ids[at], ids[at + 1]) == pair:",
            "            ids[at : at + 2] = [256 + r]",
            "            at -= 1",
            "        at -= 1",
            "return ids",
        ],
    }


FORWARDS = """    at = 0
        while at < len(ids) - 1:
            if (ids[at], ids[at + 1]) == pair:
                ids[at : at + 2] = [256 + r]
            at += 1
"""
BACKWARDS = """    at = len(ids) - 2
        while at >= 0:
            if (ids[at], ids[at + 1]) == pair:
                ids[at : at + 2] = [256 + r]
                at -= 1
            at -= 1
"""

# (variant, what stands in its answer, what by, what it then looks as if; "" if it is right all the same)
WRONG = [
    ("least", "min(n, 5)", "n", "a word counted as often as it comes, without a cap"),
    ("tie", "min(n, 7)", "1", "a word counted once, however often it comes"),
    ("least", "* (size[pair[0]] + size[pair[1]] + 2)", "", "the score were the count alone"),
    ("tie", "+ size[pair[1]] + 4)", "+ size[pair[1]])", "the number added to the bytes were missing in the score"),
    ("tie", "<= 5", "<= 99", "tokens could be of any length"),
    ("least", "<= 4", "< 4", "a token had to stay below the longest length"),
    ("tie", "for at in range(1, len(ids)):\n                counts[ids[at - 1], ids[at]]",
     "for pair in set(zip(ids, ids[1:])):\n                counts[pair]",
     "a pair counted once a word, however often it stands there"),
    ("least", " and count >= 6", "", "rare pairs were merged, too"),
    ("least", "count >= 6", "count > 6", "a pair had to exceed the least count"),
    ("tie", "sum(pair) % 7, ", "", "ties went to the smallest ids"),
    ("tie", "r % 3 == 2", "r % 3 == 9", "no merge were left out"),
    ("least", "r % 4 == 1", "(r + 1) % 4 == 1", "merges were numbered from 1"),
    ("tie", BACKWARDS, FORWARDS, "pairs were replaced from left to right"),
    ("least", "[256 + r]", "[256 + r - (r + 2) // 4]", "later merges took the ids of those left out"),
]  # fmt: skip
