"""Against the packages `tokenizers` and `tiktoken`, where they are installed."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.tokenizers.bpe import count_pre_tokens, learn_merges, train_bpe
from minirlhf.tokenizers.byte_characters import byte_characters
from minirlhf.tokenizers.pattern import PATTERNS
from minirlhf.tokenizers.storage import export_hugging_face
from minirlhf.tokenizers.tokenizer import byte_tokenizer

texts = st.text("the cat'sSlL 0123\r\n\t\u3000汉É🙂!?<|end|>", max_size=60) | st.text(max_size=30)


def some_text(seed, words=1500):
    rng = random.Random(seed)
    syllables = ["ka", "lo", "mi", "ter", "an", "s", "ing", "é", "汉字", "12", "'ll", "?!", "\n\n", "A", " "]
    return " ".join("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(words))


TOKENIZERS = {
    "gpt4": train_bpe([some_text(0)], 400),
    "gpt2": train_bpe([some_text(0)], 400, "gpt2"),
    "bytes": byte_tokenizer(),
}
every = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_same_merges_as_hugging_face_learns(pattern):
    """Its trainer breaks ties like ours, over its own numbers for the bytes: the order of their signs."""
    tokenizers = pytest.importorskip("tokenizers")
    hugging_face = tokenizers.Tokenizer(tokenizers.models.BPE())
    hugging_face.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERNS[pattern]), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    hugging_face.train_from_iterator([some_text(1)], trainer)
    theirs = [tuple(merge) for merge in json.loads(hugging_face.to_str())["model"]["merges"]]

    signs = byte_characters()
    renumbered = bytes(alphabet.index(sign) for sign in signs)
    counts = count_pre_tokens([some_text(1)], pattern)
    ours = learn_merges({word.encode().translate(renumbered): count for word, count in counts.items()}, 700 - 256)
    spelled = list(alphabet)
    for left, right in ours:
        spelled.append(spelled[left] + spelled[right])
    assert [(spelled[left], spelled[right]) for left, right in ours] == theirs


@every
@given(text=texts)
def test_exported_file_gives_the_same_ids(tokenizer, text, tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path_factory.getbasetemp() / f"{tokenizer.pattern}.json"
    if not path.exists():
        export_hugging_face(tokenizer, path)
    exported = tokenizers.Tokenizer.from_file(str(path))
    assert exported.get_vocab_size() == tokenizer.vocab_size
    ids = tokenizer.encode(text, allow_control=list(tokenizer.control))  # that package always allows them
    assert exported.encode(text).ids == ids
    assert exported.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
    assert exported.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids, skip_control=True)


@every
@given(text=texts)
def test_tiktoken_gives_the_same_ids(tokenizer, text):
    tiktoken = pytest.importorskip("tiktoken")
    published = {
        "gpt2": pytest.importorskip("tiktoken_ext.openai_public").r50k_pat_str,
        "gpt4": PATTERNS["gpt4"],
        "bytes": PATTERNS["bytes"],
    }
    ranks = {token: token_id for token_id, token in enumerate(tokenizer.tokens)}
    witness = tiktoken.Encoding(
        "witness", pat_str=published[tokenizer.pattern], mergeable_ranks=ranks, special_tokens=tokenizer.control
    )
    assert tokenizer.encode(text) == witness.encode_ordinary(text)
    assert tokenizer.encode(text, list(tokenizer.control)) == witness.encode(text, allowed_special="all")
    assert tokenizer.decode(tokenizer.encode(text)) == witness.decode(witness.encode_ordinary(text))


def test_signs_for_bytes():
    tokenizers = pytest.importorskip("tokenizers")
    assert set(byte_characters()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
