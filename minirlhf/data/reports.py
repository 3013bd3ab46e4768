"""What a reader dropped or changed, so that nothing disappears without being counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ReadReport:
    """Counts by reason, with the first example of each.

    kept      items that came through
    dropped   reason -> how many were left out
    changed   reason -> how many were kept but altered (cut to the context, say)
    first     reason -> where it happened first, `file:line`
    notes     one-sentence remarks on how the file was understood
    """

    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def total_dropped(self) -> int:
        return sum(self.dropped.values())

    def lines(self) -> list[str]:
        """The report as lines for the terminal; only the first line if there is nothing to say."""
        lines = [f"{self.kept:,} kept" + (f", {self.total_dropped:,} dropped" if self.dropped else "")]
        for verb, counts in (("dropped", self.dropped), ("changed", self.changed)):
            for reason, count in counts.items():
                lines.append(f"  {verb} {count:,}: {reason} (first at {self.first[reason]})")
        return lines + [f"  note: {note}" for note in self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class Tally:
    """Collects what a ReadReport will say while a reader walks through its files."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self.changed: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self.notes: list[str] = []

    def drop(self, reason: str, where: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def change(self, reason: str, where: str) -> None:
        self.changed[reason] = self.changed.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def report(self, kept: int) -> ReadReport:
        return ReadReport(kept, dict(self.dropped), dict(self.changed), dict(self.first), tuple(self.notes))
