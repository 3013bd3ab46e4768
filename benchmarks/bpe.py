"""Byte pair encoding against `tokenizers` and `tiktoken`: python benchmarks/bpe.py FILE [--vocab-size 4096]

Times, on one text file (gzipped or not): learning merges, encoding with an empty cache of pre-tokens, encoding again.
The contestants take turns in the same process, and the median of the rounds is printed, with the number of tokens,
so that equal work can be seen. A peer that is not installed is left out. Peers are kept to one thread. --out FILE
writes the figures as JSON, with the date and the machine.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.files import read_text
from minirlhf.tokenizers.pattern import PATTERNS
from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS, Tokenizer


def train_hugging_face(text: str, vocab_size: int, pattern: str):
    """The same training by `tokenizers`, which counts no control tokens here."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    peer = HuggingFaceTokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    peer.train_from_iterator([text], trainer)
    return peer


def tiktoken_with_our_merges(tokenizer: Tokenizer):
    """tiktoken cannot learn merges; it encodes with ours."""
    import tiktoken

    ranks = {token: token_id for token_id, token in enumerate(tokenizer.tokens)}
    pattern = PATTERNS[tokenizer.pattern]
    return tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=tokenizer.control)


def timed(job: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--pattern", choices=["gpt2", "gpt4"], default="gpt4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = "1"
    text = read_text(options.file)
    megabytes = len(text.encode("utf-8")) / 1e6

    ours = train_bpe([text], options.vocab_size, options.pattern)
    jobs: dict[str, Callable[[], object]] = {
        "train minirlhf": lambda: train_bpe([text], options.vocab_size, options.pattern).vocab_size,
        "encode minirlhf, cold": lambda: len(
            Tokenizer(ours.tokens, ours.merges, ours.pattern, ours.control).encode(text)
        ),
        "encode minirlhf, warm": lambda: len(ours.encode(text)),
    }
    if importlib.util.find_spec("tokenizers"):
        peer = train_hugging_face(text, options.vocab_size, options.pattern)
        jobs["train tokenizers"] = lambda: (
            train_hugging_face(text, options.vocab_size, options.pattern).get_vocab_size() + len(CONTROL_TOKENS)
        )
        jobs["encode tokenizers"] = lambda: len(peer.encode(text).ids)
    if importlib.util.find_spec("tiktoken"):
        encoding = tiktoken_with_our_merges(ours)
        jobs["encode tiktoken"] = lambda: len(encoding.encode_ordinary(text))

    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    results: dict[str, object] = {}
    for _ in range(options.rounds):
        for name, job in jobs.items():
            elapsed, results[name] = timed(job)
            seconds[name].append(elapsed)

    print(f"{options.file.name}: {megabytes:.2f} MB, pattern {options.pattern}, median of {options.rounds} rounds")
    for name in sorted(jobs, reverse=True):
        median = statistics.median(seconds[name])
        unit = "ids in the vocabulary" if name.startswith("train") else "tokens"
        print(f"{name:<24}{median:8.3f} s {megabytes / median:8.2f} MB/s   {results[name]} {unit}")
    if options.out:
        medians = {
            name: {"seconds": statistics.median(times), "result": results[name]} for name, times in seconds.items()
        }
        machine = (
            f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
        )
        text_file = {"file": options.file.name, "megabytes": megabytes, "pattern": options.pattern}
        described = {"date": date.today().isoformat(), "machine": machine, "rounds": options.rounds, **text_file}
        options.out.write_text(json.dumps(described | {"medians": medians}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
