"""The command `tokenizer`: text to a vocabulary of byte pairs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minirlhf.data.formats import read_documents
from minirlhf.stages.common import DataOptions, check_free, make_room, say
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.storage import save_tokenizer


@dataclass(frozen=True)
class TokenizerStage:
    """Learn a byte-pair vocabulary from text, for pretrain --tokenizer."""

    out: Path  # the folder to make; it will hold tokenizer.json
    source: DataOptions = field(default_factory=DataOptions)
    separator: str | None = None  # the line between two documents of a .txt file
    vocab_size: int = 1024  # ids in all: 256 bytes, 5 control tokens, and what is learnt
    pattern: Literal["gpt4", "gpt2"] = "gpt4"  # how text is cut before pairs are counted
    overwrite: bool = False  # if the folder exists, move it aside to NAME.before-1, -2, ... first


def run_tokenizer(stage: TokenizerStage) -> Path:
    """Learns and saves the tokenizer; returns the path of its file."""
    check_free(stage.out, stage.overwrite)
    documents, report = read_documents(
        stage.source.paths("stories.txt"), **stage.source.reading(), separator=stage.separator
    )
    say("documents", report)
    texts = [document.text for document in documents]
    tokenizer = train_bpe(texts, stage.vocab_size, stage.pattern)
    make_room(stage.out)
    path = stage.out / "tokenizer.json"
    save_tokenizer(tokenizer, path)
    some = texts[:200]
    size, tokens = sum(len(text.encode("utf-8")) for text in some), sum(map(len, tokenizer.encode_batch(some)))
    print(f"{tokenizer.vocab_size} ids, {size / max(tokens, 1):.2f} bytes per token")
    print(f"\ntokenizer  {path}\nnext       minirlhf pretrain --tokenizer {stage.out} --out runs/base")
    return path
