"""Which submissions are alike? Runs of tokens in common, after what everybody was given is taken away.

Names, numbers and texts are reduced to their kind, comments and layout dropped, so renaming and reformatting hide
nothing. A file's fingerprint is the set of its runs of K tokens; two files are compared by the share of the smaller
set that stands in the other. Short exercises leave little freedom: read the pairs before you think of them.
Fingerprints by runs of tokens: Schleimer, Wilkerson and Aiken 2003, "Winnowing".
"""

import io
import keyword
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from minirlhf.course.assignment import TWIST, Assignment, file_name
from minirlhf.course.grading import read_files
from minirlhf.course.kit import skeleton_of, twist_of

RUN = 8
"""Tokens in a run: about a line of code."""
FEWEST = 12
"""Runs of one's own below which two files are too short to compare."""


@dataclass(frozen=True)
class Pair:
    """Two submissions, the file they have in common, and which share of the smaller one's own runs."""

    one: str
    other: str
    file: str
    share: float


def alike(assignment: Assignment, submissions: Sequence[Path], least: float) -> list[Pair]:
    """Pairs at or above `least`, the most alike first."""
    prints: dict[str, dict[str, frozenset[tuple[str, ...]]]] = {}
    for folder in submissions:
        sources, _ = read_files(assignment, folder)
        prints[folder.name] = {
            module: fingerprint(source.decode("utf-8", errors="replace")) - starter(assignment, module)
            for module, source in sources.items()
        }
    found = []
    for one, other in combinations(sorted(prints), 2):
        for module in assignment.modules:
            mine, theirs = (prints[name].get(module, frozenset()) for name in (one, other))
            if min(len(mine), len(theirs)) >= FEWEST:
                share = len(mine & theirs) / min(len(mine), len(theirs))
                if share >= least:
                    found.append(Pair(one, other, file_name(module), share))
    return sorted(found, key=lambda pair: (-pair.share, pair.one, pair.other, pair.file))


def starter(assignment: Assignment, module: str) -> frozenset[tuple[str, ...]]:
    """The runs of the skeleton; a twist's code is the same for every variant."""
    twist = dict.fromkeys(twist_of(assignment).NAMES, 1.0) if module == TWIST else {}
    return fingerprint(skeleton_of(assignment, module, twist))


def fingerprint(source: str) -> frozenset[tuple[str, ...]]:
    """Every run of RUN tokens. What is no Python is compared by its words."""
    try:
        tokens = [kind(token) for token in tokenize.generate_tokens(io.StringIO(source).readline) if meant(token)]
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        tokens = source.split()
    return frozenset(tuple(tokens[i : i + RUN]) for i in range(len(tokens) - RUN + 1))


def meant(token: tokenize.TokenInfo) -> bool:
    return token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def kind(token: tokenize.TokenInfo) -> str:
    """A keyword or a sign stays; every name is a name."""
    if token.type == tokenize.NAME:
        return token.string if keyword.iskeyword(token.string) else "name"
    if token.type in (tokenize.NUMBER, tokenize.STRING):
        return "number" if token.type == tokenize.NUMBER else "text"
    return token.string
