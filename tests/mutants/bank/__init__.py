"""The bank of planted mistakes: what a student would plausibly get wrong, as exact replacements of text.

One file a room, in blocks that read like a difference:

    === nn/attention.py
    tests: nn/test_attention.py models/test_gpt.py

    attention-scale-missing (dropped term): the scores are not divided by the root of the head width
    - per_group(q * q.shape[-1] ** -0.5, k.mT)
    + per_group(q, k.mT)

The first line of a section names a file below minirlhf/, the second the tests below tests/ that are likeliest to
notice; a mutant may name its own. The text after "- " must stand in the file exactly once. A line that starts with
"# " is a remark.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("nn", "models", "objectives", "generation", "rollout", "trainers", "tokenizers", "tabular", "reference")
KINDS = (
    "sign", "zero", "constant", "dropped term", "swap", "direction", "transpose", "axis", "slice", "reduction", "mask",
    "clip", "detach", "temperature", "order", "boundary", "precision", "seed", "state", "weights", "special token",
    "rows", "mode",
)  # fmt: skip
HEADER = re.compile(r"(?P<name>[a-z0-9-]+) \((?P<kind>[a-z ]+)\): (?P<description>.+)")


@dataclass(frozen=True)
class Mutant:
    """One mistake: in minirlhf/`file`, `before` becomes `after`. `tests` (below tests/) are tried first."""

    name: str
    kind: str
    description: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    @property
    def room(self) -> str:
        return self.file.split("/")[0]

    def applied_to(self, source: str) -> str:
        """The source with the mistake in it. Raises ValueError unless `before` stands in it exactly once."""
        found = source.count(self.before)
        if found != 1:
            raise ValueError(f"{self.name}: its text stands {found} times in minirlhf/{self.file}, expected once")
        return source.replace(self.before, self.after)


def read_bank(folder: Path = Path(__file__).parent) -> tuple[Mutant, ...]:
    """Every mutant of every room, in the order of ROOMS and of the files."""
    return tuple(mutant for room in ROOMS for mutant in read_room(folder / f"{room}.txt"))


def read_room(path: Path) -> Iterator[Mutant]:
    """The mutants of one file. Raises ValueError, naming the line, where the format is not kept."""
    file, nearest = "", ()
    lines = [*path.read_text(encoding="utf-8").splitlines(), ""]
    block: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("# "):
            continue
        if line.strip():
            block.append(line)
            continue
        if block and block[0].startswith("=== "):
            file, nearest = block[0].removeprefix("=== "), tests_of(block)
        elif block:
            header = HEADER.fullmatch(block[0])
            before, after = side(block, "-"), side(block, "+")
            if header is None or not before or not file:
                raise ValueError(f"{path}:{number}: the block above is no mutant: {block[0]!r}")
            yield Mutant(
                name=header["name"],
                kind=header["kind"],
                description=header["description"],
                file=file,
                before=before,
                after=after,
                tests=tests_of(block) or nearest,
            )
        block = []


def tests_of(block: list[str]) -> tuple[str, ...]:
    return tuple(name for line in block if line.startswith("tests: ") for name in line.split()[1:])


def side(block: list[str], sign: str) -> str:
    """The lines of one side of the difference, without the sign and the space after it."""
    return "\n".join(line[2:] for line in block[1:] if line[:1] == sign)
