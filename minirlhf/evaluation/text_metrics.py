"""Cheap numbers about a set of answers: variety, repetition, whether they end, how long they are.

A text is a str (its units are words, split at white space) or a sequence of token ids.
"""

from collections.abc import Iterator, Sequence

Text = str | Sequence[int]


def distinct_n(texts: Sequence[Text], n: int = 2) -> float:
    """Different n-grams over all n-grams of the whole set, in (0, 1]; 0.0 when no text has n units.

    Li et al. 2016, arXiv:1510.03055, section 5.2. It falls as the set grows, so compare sets with the same
    number of answers of similar length. n-grams never cross from one text into the next.
    """
    grams = [gram for text in texts for gram in _n_grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition_rate(texts: Sequence[Text], n: int = 4) -> float:
    """Share of n-grams that already stood earlier in the same text, in [0, 1); 0.0 when no text has n units.

    A model stuck in a loop is near 1; natural prose is near 0 for n = 4.
    """
    total = repeated = 0
    for text in texts:
        grams = list(_n_grams(text, n))
        total += len(grams)
        repeated += len(grams) - len(set(grams))
    return repeated / total if total else 0.0


def eos_rate(ended: Sequence[bool]) -> float:
    """Share of answers that ended with a stop token instead of running into the length limit."""
    if len(ended) == 0:
        raise ValueError("eos_rate needs at least one answer")
    return sum(bool(value) for value in ended) / len(ended)


def mean_length(texts: Sequence[Text]) -> float:
    """Mean number of units (words of a str, ids of a token sequence) per text."""
    if len(texts) == 0:
        raise ValueError("mean_length needs at least one text")
    return sum(len(_units(text)) for text in texts) / len(texts)


def _units(text: Text) -> Sequence[str] | Sequence[int]:
    return text.split() if isinstance(text, str) else text


def _n_grams(text: Text, n: int) -> Iterator[tuple[str | int, ...]]:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    units = [int(unit) if not isinstance(unit, str) else unit for unit in _units(text)]  # tensors hash by identity
    return (tuple(units[i : i + n]) for i in range(len(units) - n + 1))
