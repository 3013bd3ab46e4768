"""Where a text may be cut before byte pair encoding starts: the split patterns of GPT-2 and GPT-4.

Merges never cross a cut, so a pattern decides what can become one token. Every character belongs to exactly
one pre-token, and the pre-tokens joined are the text.

The alternatives are tried in order. `\\p{L}` is a letter of any script, `\\p{N}` a digit of any script, `\\s` white
space; `++` and `?+` take what they can and never give it back, which changes no result here and saves time.
"""

from collections.abc import Iterable, Iterator

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


def split_settled(pattern: "regex.Pattern[str]", text: str) -> tuple[list[str], str]:
    """The pre-tokens of text that no continuation of it can change, and the rest of the text.

    A pre-token is settled once two more characters lie after it, for then everything that decided about it has been
    seen: a contraction looks at three characters from its first; a run of letters, digits or signs looks at the
    character after the run; a stretch of white space looks at the character after the stretch, and that one is there,
    because white space at the very end is taken as one pre-token, with nothing after it.
    """
    pre_tokens = pattern.findall(text)
    end = len(text)
    while pre_tokens and end > len(text) - 2:
        end -= len(pre_tokens.pop())
    return pre_tokens, text[end:]


def split_stream(
    pattern: "regex.Pattern[str]", pieces: Iterable[str], block_characters: int = BLOCK_CHARACTERS
) -> Iterator[list[str]]:
    """The pre-tokens of "".join(pieces), list by list, holding about one block and one pre-token at a time."""
    waiting: list[str] = []
    length, due = 0, block_characters
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= due:
            settled, rest = split_settled(pattern, "".join(waiting))
            yield settled
            waiting, length = [rest], len(rest)
            due = length + max(length, block_characters)  # an endless pre-token is looked at only when it has doubled
    yield pattern.findall("".join(waiting))


def blocks(text: str, block_characters: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """A long text in slices, for split_stream."""
    return (text[start : start + block_characters] for start in range(0, len(text), block_characters))
