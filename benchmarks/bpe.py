"""Byte pair encoding against tokenizers, tiktoken and rustbpe: training, encoding, memory, growth.

    python -m benchmarks.bpe [--large FILE ...] [--small FILE] [--quick] [--only train encode growth limit]

Texts, gzipped or not: --large is to be about 11 MB of everything, --small about 1 MB of one kind. Without them the
shipped stories and this machine's Python library stand in. All get the same documents, files cut at line ends into
about 4,000 characters; where a peer is faster on whole files or on single lines, that counts. In training the peers
use all cores; so does "minirlhf, a process a core". Encoding is on one core, timed by the processor's clock, and cold
means the first time.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bpe_texts import default_texts, documents, drawn_text, megabytes, plain, prefix
from benchmarks.suite import (
    Bar,
    Growth,
    Job,
    Measurement,
    Table,
    exponent,
    interleave,
    options,
    peak_rss_mib,
    ratio,
    run,
    wanted,
    write,
)

VOCABULARY = 4096
CORES = os.cpu_count() or 1
CONTESTANTS = ("minirlhf", "tokenizers", "tiktoken")
PARTS = ("train", "encode", "growth", "limit")
SIZES = (1, 3, 10, 30, 100)
"""Megabytes of the growth series."""
ONE_CORE = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
ALL_CORES = {"RAYON_NUM_THREADS": str(CORES), "TOKENIZERS_PARALLELISM": "true", "OMP_NUM_THREADS": "1"}


# Workers


def train_with(who: str, texts: Iterable[str], processes: int = 1) -> int:
    """Trains, and returns the number of ids."""
    from minirlhf.tokenizers.bpe import train_bpe
    from minirlhf.tokenizers.pattern import PATTERNS
    from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS

    if who == "minirlhf":
        return train_bpe(texts, VOCABULARY, processes=processes).vocab_size
    if who == "rustbpe":
        import rustbpe

        peer = rustbpe.Tokenizer()
        peer.train_from_iterator(iter(texts), VOCABULARY - len(CONTROL_TOKENS), pattern=PATTERNS["gpt4"])
        return VOCABULARY
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    theirs = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS["gpt4"]), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    return int(theirs.get_vocab_size()) + len(CONTROL_TOKENS)


def train(who: str, files: list[str], processes: int = 1, characters: int = 4000) -> Measurement:
    """Seconds to learn merges from texts that lie in memory. Memory with that of the other processes, if any."""
    texts = list(documents(files, characters))
    import_all(who)
    started = time.perf_counter()
    ids = train_with(who, texts, processes)
    seconds = time.perf_counter() - started
    others = processes * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if processes > 1 else 0.0
    return {"seconds": seconds, "ids": ids, "peak_rss_mib": peak_rss_mib() + others}


def import_all(who: str) -> None:
    """So that importing is not timed."""
    __import__("minirlhf.tokenizers.bpe" if who == "minirlhf" else who)


def grow(who: str, file: str, size: int) -> Measurement:
    """Seconds to learn merges from a file that is read while it is needed."""
    import_all(who)
    started, worked = time.perf_counter(), time.process_time()
    train_with(who, prefix(file, size))
    return {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - worked}


def encode(who: str, files: list[str], folder: str) -> Measurement:
    """MB a second of processor time, the first time and once it is warm, and the number of tokens.

    Each reads a file of its own, so that none holds the modules of another.
    """
    texts = list(documents(files))
    call: Callable[[list[str]], list[Any]]
    if who == "minirlhf":
        from minirlhf.tokenizers.storage import load_tokenizer

        call = load_tokenizer(Path(folder) / "tokenizer.json").encode_batch
    elif who == "tiktoken":
        import tiktoken

        saved = json.loads((Path(folder) / "tiktoken.json").read_text(encoding="utf-8"))
        ranks = {bytes.fromhex(token): token_id for token_id, token in enumerate(saved.pop("tokens"))}
        theirs = tiktoken.Encoding("peer", mergeable_ranks=ranks, **saved)
        call = lambda given: [theirs.encode_ordinary(text) for text in given]  # noqa: E731
    else:
        from tokenizers import Tokenizer

        call = Tokenizer.from_file(str(Path(folder) / "hugging_face.json")).encode_batch_fast
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    layouts = [texts]
    if who == "tokenizers":
        layouts.append([line for text in texts for line in text.splitlines(keepends=True)])
    elif who == "tiktoken":
        layouts.append(["".join(texts)])
    rates, tokens = list[float](), 0
    for layout in layouts:
        for _ in range(2 if layout is texts else 1):
            started = time.process_time()
            found = call(layout)
            rates.append(size / (time.process_time() - started))
            if layout is texts:
                tokens = sum(len(ids) for ids in found)
                peak = peak_rss_mib()
            del found
    cold, warm = (rates[0], rates[1]) if who == "minirlhf" else (max(rates), max(rates))
    return {"cold_mb_per_second": cold, "warm_mb_per_second": warm, "tokens": tokens, "peak_rss_mib": peak}


def encode_over(files: list[str], folder: str, processes: int) -> Measurement:
    """MB/s of encode_batch over processes, cold."""
    from minirlhf.tokenizers.storage import load_tokenizer

    tokenizer = load_tokenizer(Path(folder) / "tokenizer.json")
    texts = list(documents(files))
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    started = time.perf_counter()
    tokenizer.encode_batch(texts, processes=processes)
    return {"mb_per_second": size / (time.perf_counter() - started)}


def limited(file: str, how: str, mebibytes: int) -> Measurement:
    """Learns merges with only so much memory left: 1 if it fits, and the seconds it took."""
    from minirlhf.data.formats import read_documents, stream_documents
    from minirlhf.data.reports import Tally
    from minirlhf.tokenizers.bpe import train_bpe

    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + mebibytes * 2**20,) * 2)
    started = time.perf_counter()
    try:
        if how == "whole text":
            train_bpe([document.text for document in read_documents(file)[0]], VOCABULARY)
        else:
            train_bpe((document.text for document in stream_documents(file, Tally(), longest=2**18)), VOCABULARY)
    except MemoryError:
        return {"fits": 0.0, "seconds": time.perf_counter() - started}
    return {"fits": 1.0, "seconds": time.perf_counter() - started}


# What is run


def job(function: str, environment: dict[str, str], **arguments: Any) -> Job:
    return Job("bpe", function, arguments, environment=environment)


def measure_training(title: str, files: list[str], rounds: int) -> Table:
    """Training on one text, everybody in turn."""
    runs = interleave(
        {
            "minirlhf": job("train", ALL_CORES, who="minirlhf", files=files),
            "minirlhf, a process a core": job("train", ALL_CORES, who="minirlhf", files=files, processes=CORES),
            "tokenizers": job("train", ALL_CORES, who="tokenizers", files=files),
            "tokenizers, whole files": job("train", ALL_CORES, who="tokenizers", files=files, characters=1 << 40),
            "rustbpe": job("train", ALL_CORES, who="rustbpe", files=files),
        },
        rounds,
        "seconds",
    )
    return Table(f"training, {title}", "seconds", runs)


def measure_encoding(title: str, files: list[str], folder: Path, rounds: int) -> tuple[Table, Table, Table]:
    """Encoding on one core: cold and warm; and by encode_batch over processes. All must find as many tokens."""
    from minirlhf.tokenizers.bpe import train_bpe
    from minirlhf.tokenizers.pattern import PATTERNS
    from minirlhf.tokenizers.storage import export_hugging_face, save_tokenizer

    tokenizer = train_bpe(documents(files), VOCABULARY)
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    export_hugging_face(tokenizer, folder / "hugging_face.json")
    for_tiktoken = {
        "tokens": [token.hex() for token in tokenizer.tokens],
        "pat_str": PATTERNS[tokenizer.pattern],
        "special_tokens": tokenizer.control,
    }
    (folder / "tiktoken.json").write_text(json.dumps(for_tiktoken), encoding="utf-8")
    given: dict[str, Any] = {"files": files, "folder": str(folder)}
    jobs = {who: job("encode", ONE_CORE, who=who, **given) for who in CONTESTANTS}
    runs = interleave(jobs, rounds, "cold_mb_per_second")
    counts = {measured["tokens"] for rounds_of in runs.values() for measured in rounds_of}
    if len(counts) != 1:
        raise RuntimeError(f"the contestants disagree on the number of tokens: {counts}")
    jobs = {
        f"minirlhf, {CORES} processes": job("encode_over", ONE_CORE, processes=CORES, **given),
        "minirlhf, one process": job("encode_over", ONE_CORE, processes=1, **given),
    }
    return (
        Table(f"encoding {title} on one core, the first time", "cold_mb_per_second", runs),
        Table(f"encoding {title} on one core, warm", "warm_mb_per_second", runs),
        Table(f"encode_batch of {title}, cold", "mb_per_second", interleave(jobs, rounds, "mb_per_second")),
    )


def measure_growth(files: list[str], path: Path, sizes: Sequence[int]) -> list[Growth]:
    """Seconds and memory of training against the megabytes read."""
    drawn_text(files, path, sizes[-1] + 1, new_word_every=10)
    series: dict[str, list[tuple[int, Measurement]]] = {}
    for who in CONTESTANTS[:2]:
        for size in sizes if who == "minirlhf" else sizes[:-1]:
            measured = run(job("grow", ALL_CORES, who=who, file=str(path), size=size))
            if measured:
                print(
                    f"  {who}, {size} MB: {measured['seconds']:.1f} s, {measured['peak_rss_mib']:.0f} MiB", flush=True
                )
                series.setdefault(who, []).append((size, measured))
    path.unlink()
    return [
        Growth(
            "training, text read from a file",
            "MB",
            cost,
            {who: [(size, measured[key]) for size, measured in points] for who, points in series.items()},
        )
        for cost, key in (
            ("seconds", "seconds"),
            ("seconds of processor time", "processor_seconds"),
            ("peak RSS, MiB", "peak_rss_mib"),
        )
    ]


def measure_limit(files: list[str], path: Path, size: int, mebibytes: int) -> Table:
    """Whether training on a file fits into less memory than it takes on the disk, streamed and as a whole."""
    drawn_text(files, path, size, new_word_every=50)
    jobs = {
        f"minirlhf, {how}": job("limited", ONE_CORE, file=str(path), how=how, mebibytes=mebibytes)
        for how in ("streamed", "whole text")
    }
    runs = interleave(jobs, 1, "seconds")
    path.unlink()
    return Table(f"training on {size} MB with {mebibytes} MiB allowed, until done or out of memory", "seconds", runs)


def memory_bar(table: Table, theirs: str) -> Bar:
    return Bar(f"{table.title}: memory over {theirs}", ratio(table, "minirlhf", theirs, "peak_rss_mib"), "<=", 1.0)


def main() -> None:
    parser = options(__doc__, parts=PARTS)
    parser.add_argument("--large", type=Path, nargs="+", help="about 11 MB of mixed text")
    parser.add_argument("--small", type=Path, help="about 1 MB of text")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(flags, Path(name))


def measure(flags: argparse.Namespace, folder: Path) -> None:
    rounds = 1 if flags.quick else flags.rounds
    large_paths, small_path = default_texts(folder, flags.quick)
    large, small = plain(flags.large or large_paths, folder), plain([flags.small or small_path], folder)
    tables, bars, growth = list[Table](), list[Bar](), list[Growth]()
    for title, files, most in ((f"mixed text, {megabytes(large)}", large, 0.9), (megabytes(small), small, 1.5)):
        if wanted(flags, "train"):
            table = measure_training(title, files, rounds)
            tables.append(table)
            bars.append(Bar(f"{table.title}: time over tokenizers", ratio(table, *CONTESTANTS[:2]), "<=", most))
            bars.append(memory_bar(table, "tokenizers"))
        if wanted(flags, "encode"):
            cold, warm, over = measure_encoding(title, files, folder, rounds)
            tables += [cold, warm, over]
            for table, leasts in ((cold, (1.0, 0.4)), (warm, (1.4, 0.6))):
                for who, least in zip(CONTESTANTS[1:], leasts, strict=True):
                    gain = ratio(table, "minirlhf", who)
                    bars.append(Bar(f"{table.title}: speed over {who}", gain, ">=", least))
            bars += [memory_bar(cold, who) for who in CONTESTANTS[1:]]
            if files is large:
                name = f"encode_batch, cold: what each of {CORES} processes adds, in the speed of one"
                bars.append(Bar(name, ratio(over, *over.runs) / CORES, ">=", 0.75))
    if wanted(flags, "growth"):
        growth += measure_growth(large, folder / "drawn.txt", (1, 2, 4) if flags.quick else SIZES)
        points = next(each for each in growth if "processor" in each.cost).series["minirlhf"]
        per_mb = [seconds / size for size, seconds in points]
        bars.append(Bar(f"training, s per MB: {points[-1][0]} MB over 1 MB", per_mb[-1] / per_mb[0], "<=", 1.0))
        bars.append(Bar("training: exponent of processor time in the text's size", exponent(points), "<=", 1.0))
    if wanted(flags, "limit"):
        size, mebibytes = (30, 48) if flags.quick else (300, 160)
        table = measure_limit(large, folder / "big.txt", size, mebibytes)
        tables.append(table)
        for how, sense, target in (("streamed", ">=", 1.0), ("whole text", "<=", 0.0)):
            bars.append(Bar(f"{table.title}: fits, {how}", table.runs[f"minirlhf, {how}"][0]["fits"], sense, target))
    notes = [
        "mixed text: " + ", ".join(f"{Path(name).name[2:]} {megabytes([name])}" for name in large),
        "growth: lines of the mixed text drawn again and again, with a new word in one of ten; minirlhf in one process",
        "memory allowed: beyond what the process held before it opened the file (RLIMIT_DATA)",
    ]
    write("bpe", "Byte pair encoding", flags, tables, bars, growth, notes)


if __name__ == "__main__":
    main()
