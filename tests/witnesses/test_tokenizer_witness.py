"""tiktoken and tokenizers split, merge and learn as we do, by their own patterns, on the texts that break others.

Here stand the nasty texts, the published patterns and the ties; tests/tokenizers/test_tokenizer_witnesses.py holds our
exported files against the same two packages.
"""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.tokenizers.bpe import count_pre_tokens, train_bpe
from minirlhf.tokenizers.byte_characters import byte_characters
from minirlhf.tokenizers.pattern import compile_pattern
from minirlhf.tokenizers.storage import import_gpt2

tiktoken = pytest.importorskip("tiktoken")
tokenizers = pytest.importorskip("tokenizers")
openai_public = pytest.importorskip("tiktoken_ext.openai_public")

NASTY = [
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 skin",  # joiners, variation selectors, modifiers
    "e\u0301 é n\u0303 ñ \u0300\u0301\u0302alone",  # combining marks, composed and not, and with nothing to stand on
    "中文，标点。没有空格 汉字123四五六",
    "   \t\t \n\n \r\n\r\n   end   \n",  # runs of white space of every kind, at both ends
    "\u3000\u00a0\u2003\u2028\u2029\u0085\u200b\ufeff",  # white space that is none of ASCII's, and two that are not
    "\x00\x01\x1b[31m\x7f\x1c\x1d\x1e\x1f\x0b\x0c",  # control characters, four of them white space to some
    "1234567 ١٢٣٤ ½ Ⅻ ²³ १२३",  # digits and numbers of many scripts
    "don't DON'T I'LL we'Ve o'clock 'tis ''s 'ſ",  # contractions, and the long s that folds to s
    "שלום עולם مرحبا بالعالم नमस्ते ไทยไม่มีเว้นวรรค",
    "İstanbul ﬁne Straße ΑΣ ας",
    "<|end|><|pad|> <|endoftext|>",
]
characters = st.sampled_from("".join(NASTY)) | st.characters(codec="utf-8")
texts = st.text(characters, max_size=50) | st.lists(st.sampled_from(NASTY), max_size=3).map("".join)
some = settings(max_examples=200)
CORPUS = [
    *NASTY,
    "the cat sat on the mat. The dog's bone, 12345 bones!\n" * 5,
    "低低低低 lower lowest newer newest " * 3,
]
TOKENIZERS = {pattern: train_bpe(CORPUS, 500, pattern) for pattern in ("gpt2", "gpt4")}
every = pytest.mark.parametrize("pattern", TOKENIZERS)


@pytest.fixture(scope="module")
def published():
    """The patterns inside tiktoken, taken from its own definitions while the files of ranks they load are left out."""
    load, openai_public.load_tiktoken_bpe = openai_public.load_tiktoken_bpe, lambda *_, **__: {}
    bpe, openai_public.data_gym_to_mergeable_bpe_ranks = (
        openai_public.data_gym_to_mergeable_bpe_ranks,
        lambda *_, **__: {bytes([place // 256, place % 256]): place for place in range(50256)},
    )
    try:
        return {"gpt2": openai_public.gpt2()["pat_str"], "gpt4": openai_public.cl100k_base()["pat_str"]}
    finally:
        openai_public.load_tiktoken_bpe, openai_public.data_gym_to_mergeable_bpe_ranks = load, bpe


@every
def test_tiktoken_by_its_published_pattern(pattern, published):
    tokenizer = TOKENIZERS[pattern]
    ranks = {token: token_id for token_id, token in enumerate(tokenizer.tokens)}
    witness = tiktoken.Encoding(
        "witness", pat_str=published[pattern], mergeable_ranks=ranks, special_tokens=tokenizer.control
    )

    @some
    @given(texts)
    def agree(text):
        assert tokenizer.encode(text) == witness.encode_ordinary(text)
        assert witness.decode(tokenizer.encode(text)) == text

    agree()
    for text in NASTY:
        assert tokenizer.encode(text) == witness.encode_ordinary(text)


@some
@given(texts)
def test_gpt2s_pattern_inside_tokenizers(text):
    """tokenizers carries GPT-2's pattern in its ByteLevel pre-tokenizer; its pieces are ours, spelled as signs."""
    signs = byte_characters()
    pieces = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str(text)
    ours = ["".join(signs[byte] for byte in piece.encode()) for piece in compile_pattern("gpt2").findall(text)]
    assert [piece for piece, _ in pieces] == ours


def trained_by_tokenizers(corpus, vocab_size):
    """A byte-level BPE of the tokenizers package, as its own GPT-2 implementation makes it."""
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator(corpus, trainer)
    return theirs


def test_we_read_what_tokenizers_has_trained(tmp_path):
    """vocab.json and merges.txt as that package saves them, into our tokenizer: same ids, in both directions."""
    theirs = trained_by_tokenizers(CORPUS, 400)
    theirs.model.save(str(tmp_path))
    ours = import_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")

    @some
    @given(texts)
    def agree(text):
        ids = ours.encode(text)
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids) == theirs.decode(ids) == text

    agree()


def pair_counts(corpus, merges):
    """How often each pair of neighbours stands in the corpus once these merges are made, pairs as two bytes objects."""
    counts = {}
    for word, count in count_pre_tokens(corpus, "gpt2").items():
        pieces = [bytes([byte]) for byte in word.encode()]
        for left, right in merges:
            merged, at = [], 0
            while at < len(pieces):
                pair = tuple(pieces[at : at + 2]) == (left, right)
                merged.append(left + right if pair else pieces[at])
                at += 2 if pair else 1
            pieces = merged
        for pair in itertools.pairwise(pieces):
            counts[pair] = counts.get(pair, 0) + count
    return counts


def test_the_merges_differ_by_ties_only():
    """Among pairs that stand equally often, both take the smallest ids; but we number bytes by value, and tokenizers by
    the order of the signs it writes them with ("!" before the space, which is "Ġ"). So the first merge in which the
    two differ must be a tie. With the bytes renumbered all merges are equal: test_same_merges_as_hugging_face_learns.
    """
    of_sign = {sign: bytes([byte]) for byte, sign in enumerate(byte_characters())}
    found = json.loads(trained_by_tokenizers(CORPUS, 400).to_str())["model"]["merges"]
    theirs = [tuple(b"".join(of_sign[sign] for sign in part) for part in merge) for merge in found]
    tokenizer = TOKENIZERS["gpt2"]
    ours = [(tokenizer.tokens[left], tokenizer.tokens[right]) for left, right in tokenizer.merges][: len(theirs)]
    first = next(at for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)) if mine != other)
    counts = pair_counts(CORPUS, ours[:first])
    assert first > 0
    assert counts[ours[first]] == counts[theirs[first]] == max(counts.values())
