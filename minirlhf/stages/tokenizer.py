"""The command `tokenizer`: text to a vocabulary of byte pairs."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minirlhf.data.formats import stream_documents
from minirlhf.data.reports import Tally
from minirlhf.stages.common import DataOptions, check_free, make_room, say
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.pattern import BLOCK_CHARACTERS
from minirlhf.tokenizers.storage import save_tokenizer
from minirlhf.trainers.checks import check_settings


@dataclass(frozen=True)
class TokenizerStage:
    """Learn a byte-pair vocabulary from text, for pretrain --tokenizer."""

    out: Path  # the folder to make; it will hold tokenizer.json
    source: DataOptions = field(default_factory=DataOptions)
    separator: str | None = None  # the line between two documents of a .txt file
    vocab_size: int = 1024  # ids in all: 256 bytes, 5 control tokens, and what is learnt
    pattern: Literal["gpt4", "gpt2"] = "gpt4"  # how text is cut before pairs are counted
    processes: int | None = None  # that count the text, if it is long; without it, one a core
    overwrite: bool = False  # if the folder exists, move it aside to NAME.before-1, -2, ... first


def run_tokenizer(stage: TokenizerStage) -> Path:
    """Learns and saves the tokenizer; returns the path of its file. The text is read once and may exceed the memory."""
    check_free(stage.out, stage.overwrite)
    check_settings(stage, processes=(1, float("inf")))
    tally, sources, some = Tally(), Counter[str](), list[str]()
    documents = stream_documents(
        stage.source.paths("stories.txt"),
        tally,
        **stage.source.reading(),
        separator=stage.separator,
        longest=BLOCK_CHARACTERS,
    )

    def texts() -> Iterator[str]:
        last = None
        for document in documents:
            sources["documents"] += document.source != last
            last = document.source
            if len(some) < 200:
                some.append(document.text[:10_000])
            yield document.text

    tokenizer = train_bpe(texts(), stage.vocab_size, stage.pattern, stage.processes or os.cpu_count() or 1)
    say("documents", tally.report(sources["documents"]))
    make_room(stage.out)
    path = stage.out / "tokenizer.json"
    save_tokenizer(tokenizer, path)
    size, tokens = sum(len(text.encode("utf-8")) for text in some), sum(map(len, tokenizer.encode_batch(some)))
    print(f"{tokenizer.vocab_size} ids, {size / max(tokens, 1):.2f} bytes per token")
    print(f"\ntokenizer  {path}\nnext       minirlhf pretrain --tokenizer {stage.out} --out runs/base")
    return path
