"""Where a text may be cut before byte pair encoding starts: the split patterns of GPT-2 and GPT-4.

Merges never cross a cut, so a pattern decides what can become one token. Every character belongs to exactly
one pre-token, and the pre-tokens joined are the text.

The alternatives are tried in order. `\\p{L}` is a letter of any script, `\\p{N}` a digit of any script, `\\s` white
space; `++` and `?+` take what they can and never give it back, which changes no result here and saves time.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import regex

# Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2, and the code beside it.
GPT2_PATTERN = "|".join(
    [
        r"'(?:[sdmt]|ll|re|ve)",  # the endings of English contractions, in lower case only: 's 'd 'm 't 'll 're 've
        r" ?\p{L}++",  # a word, with the one space before it
        r" ?\p{N}++",  # a number, with the one space before it
        r" ?[^\s\p{L}\p{N}]++",  # punctuation, signs, emoji, with the one space before them
        r"\s+(?!\S)",  # white space, but its last character is left to the word that follows
        r"\s+",  # that last character where it is no space, so that no word could take it
    ]
)

# The pattern published for GPT-4's encoding, cl100k_base.
GPT4_PATTERN = "|".join(
    [
        r"'(?i:[sdmt]|ll|re|ve)",  # the endings of contractions, in either case
        r"[^\r\n\p{L}\p{N}]?+\p{L}++",  # a word, with one space, quote, tab … before it, but no line end
        r"\p{N}{1,3}",  # digits, three at a time from the left
        r" ?[^\s\p{L}\p{N}]++[\r\n]*",  # punctuation, with the one space before it and the line ends after it
        r"\s++$",  # all the white space at the end of the text
        r"\s*[\r\n]",  # white space up to and including the last line end in it
        r"\s+(?!\S)",  # white space, but its last character is left to the word that follows
        r"\s",  # that last character where the word could not take it
    ]
)

PATTERNS = {
    "gpt2": GPT2_PATTERN,
    "gpt4": GPT4_PATTERN,
    "bytes": r"[\s\S]",  # for tokenizers without merges, where cuts make no difference
}

BLOCK_CHARACTERS = 1 << 18  # how much text is split at a time; bounds the memory that the pre-tokens take


def compile_pattern(name: str) -> "regex.Pattern[str]":
    """The compiled split pattern of this name. Raises ValueError for a name that is not in PATTERNS."""
    if name not in PATTERNS:
        raise ValueError(f"no split pattern is called {name!r}; there are {', '.join(PATTERNS)}")
    return regex.compile(PATTERNS[name])


@cache
def splitter(name: str) -> Callable[[str], list[str]]:
    """A function from text to its pre-tokens, all that compile_pattern(name) finds.

    Most text is ASCII, where Python's own `re` knows the letters and digits too, and takes half the time.
    """
    find_all = compile_pattern(name).findall
    letters_in_sets = re.sub(r"\[[^]]*\]", lambda found: _ascii_classes(found[0]), PATTERNS[name])
    pattern = letters_in_sets.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]")
    find_all_ascii = re.compile(pattern, re.ASCII).findall
    return lambda text: find_all_ascii(text) if text.isascii() else find_all(text)


def _ascii_classes(bracketed: str) -> str:
    return bracketed.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9")


# Where every pattern cuts, whatever lies further away: white space other than line ends, letters and digits are
# never in the middle of a pre-token with something else. They come after a visible character only as the first of
# a pre-token (white space), or before something else only as the last (letters, digits). Searched from the back.
_SAFE_CUT = regex.compile(r"(?r)(?<=\S)(?=[^\S\r\n])|(?<=\p{L})(?=\P{L})|(?<=\p{N})(?=\P{N})")
_WHITE_SPACE = "\t\n\v\f\r\u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def portions(pieces: Iterable[str], block_characters: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """ "".join(pieces) in portions of about block_characters, cut only where the patterns cut too.

    So the pre-tokens of the portions are those of the whole text. Every portion shows a visible character, if the text
    does. Holds one portion at a time; a stretch without a
    safe cut (without letters, digits and spaces, or an endless word) is kept whole, however long it is.
    """
    waiting: list[str] = []
    length, due = 0, block_characters
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= due:
            text = "".join(waiting)
            cut = _SAFE_CUT.search(text, endpos=len(text.rstrip()))
            if cut:
                yield text[: cut.start()]
                text = text[cut.start() :]
            waiting, length = [text], len(text)
            due = length + max(length, block_characters)  # what has no cut is looked at again only when it has doubled
    yield "".join(waiting)


def stretches(text: str) -> list[str]:
    """The text cut before each space that follows a visible character: a word, mostly, and what clings to it.

    Each stretch can be split on its own, and most of them come again and again, so each need be split only once.
    """
    if "\0" in text or "\1" in text:
        return [text]
    text = text.replace("  ", "\0\0").replace("\0 ", "\0\0")  # \0: a space that is not cut at
    for character in _WHITE_SPACE:
        if character in text:
            text = text.replace(character + " ", character + "\0")
    return text.replace(" ", "\1 ").replace("\0", " ").split("\1")


def blocks(text: str, block_characters: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """A long text in slices, for portions."""
    return (text[start : start + block_characters] for start in range(0, len(text), block_characters))
