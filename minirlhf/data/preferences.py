"""Cleaning preference pairs: what would teach a reward model nothing, or the opposite, is dropped and counted."""

from collections.abc import Iterable

from minirlhf.data.reports import Tally
from minirlhf.records import Preference


def clean_pairs(pairs: Iterable[Preference], tally: Tally) -> list[Preference]:
    """The pairs without the identical, empty, promptless, duplicate and contradictory ones.

    Of duplicates the first is kept; of contradictory pairs (the same two answers in both orders) none is.
    Texts are compared without the white space around them.
    """
    kept: dict[tuple[object, str, str], Preference] = {}
    for pair in pairs:
        chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
        key = (tuple((turn.role, turn.content.strip()) for turn in pair.prompt), chosen, rejected)
        if not pair.prompt or not all(turn.content.strip() for turn in pair.prompt):
            tally.drop("empty prompt", pair.source)
        elif not chosen or not rejected:
            tally.drop("empty answer", pair.source)
        elif chosen == rejected:
            tally.drop("identical answers", pair.source)
        elif key in kept:
            tally.drop("duplicate pair", pair.source)
        else:
            kept[key] = pair
    clean = []
    for (prompt, chosen, rejected), pair in kept.items():
        if (prompt, rejected, chosen) in kept:
            tally.drop("contradictory pair (both orders appear)", pair.source)
        else:
            clean.append(pair)
    return clean
