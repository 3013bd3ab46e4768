"""Learning the merges of byte pair encoding from text.

First the pre-tokens of the texts are counted, here; then learn.py learns merges from the counts. `reference/bpe.py`
says the same algorithm in its textbook form.

Tie-break: of the pairs that stand most often side by side, the one with the smallest left id, then the smallest
right id, is merged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import chain

from minirlhf.errors import UserError
from minirlhf.tokenizers.learn import learn_merges
from minirlhf.tokenizers.pattern import blocks, portions, splitter, stretches
from minirlhf.tokenizers.processes import in_batches, map_in_processes
from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS, Tokenizer, build_tokenizer, to_utf8

SMALLEST_VOCABULARY = 256 + len(CONTROL_TOKENS)
BATCH_CHARACTERS = 1 << 21  # how much text is counted at a time; bounds the memory that its stretches take


def train_bpe(texts: Iterable[str], vocab_size: int, pattern: str = "gpt4", processes: int = 1) -> Tokenizer:
    """A tokenizer of vocab_size ids (256 bytes, the merges learnt here, the control tokens).

    It has fewer ids if the texts run out of pairs to merge. Control tokens named in the texts are text.
    The order of the texts makes no difference, nor does the number of processes that count their pre-tokens. The texts
    may be more than fits into memory: they are read once and forgotten; their different pre-tokens must fit.
    Raises UserError for a vocabulary too small for the bytes and control tokens, an unknown pattern, a text with an
    unpaired surrogate, or no text at all.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            "the vocabulary is too small",
            found=f"vocab_size {vocab_size}",
            expected=f"at least {SMALLEST_VOCABULARY}: 256 bytes and {len(CONTROL_TOKENS)} control tokens",
            fix="ask for more ids, or use the byte tokenizer",
        )
    if pattern not in ("gpt2", "gpt4"):
        raise UserError("unknown split pattern", found=repr(pattern), expected='"gpt2" or "gpt4"')
    counts = count_pre_tokens(texts, pattern, processes)
    if not counts:
        raise UserError("there is no text to learn merges from", expected="at least one character")
    words = {to_utf8(piece): count for piece, count in counts.items()}
    del counts
    return build_tokenizer(learn_merges(words, vocab_size - SMALLEST_VOCABULARY), pattern)


def count_pre_tokens(texts: Iterable[str], pattern: str, processes: int = 1) -> Counter[str]:
    """How often each pre-token comes in the texts; each text is split on its own."""
    batches = in_batches((portion for text in texts for portion in portions(blocks(text))), BATCH_CHARACTERS)
    counts: Counter[str] = Counter()
    for counted in map_in_processes(partial(_count, pattern), batches, processes):
        counts.update(counted)
    return counts


def _count(pattern: str, texts: Iterable[str]) -> dict[str, int]:
    """How often each pre-token comes, by way of how often each stretch comes: a stretch is split once."""
    stretch_counts = Counter(chain.from_iterable(map(stretches, texts)))
    split = splitter(pattern)
    counts: defaultdict[str, int] = defaultdict(int)
    for stretch, count in stretch_counts.items():
        for pre_token in split(stretch):
            counts[pre_token] += count
    return counts
