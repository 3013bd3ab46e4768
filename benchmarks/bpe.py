"""Byte pair encoding against tokenizers, tiktoken and rustbpe: training, encoding, memory, growth.

    python -m benchmarks.bpe [--large FILE ...] [--small FILE] [--quick] [--only train encode growth limit]

Texts, gzipped or not: --large is to be about 11 MB of everything, --small about 1 MB of one kind. Without them the
shipped stories and this machine's Python library stand in. All get the same documents, files cut at line ends into
about 4,000 characters; the peers get whole files and single lines too, and the fastest counts. In training the peers
use all cores; so does "minirlhf, a process a core". Encoding is on one core, and cold means the first time.
"""

import argparse
import os
import random
import resource
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite import (
    Bar,
    Growth,
    Job,
    Measurement,
    Table,
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
PARTS = ("train", "encode", "growth", "limit")
SIZES = (1, 3, 10, 30, 100)
"""Megabytes of the growth series."""
LIMIT_MB = 300
"""Megabytes of the file that is larger than the memory allowed."""
ONE_CORE = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
ALL_CORES = {"RAYON_NUM_THREADS": str(CORES), "TOKENIZERS_PARALLELISM": "true", "OMP_NUM_THREADS": "1"}


# Texts


def default_texts(folder: Path, quick: bool) -> tuple[list[Path], Path]:
    """The shipped stories and Python's own library, about 11 MB together; and 1.1 MB of the stories."""
    from minirlhf.data.shipped import shipped_path

    stories = Path(shipped_path("stories.txt")).read_text(encoding="utf-8")
    library, size = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" not in path.parts and size < (1_000_000 if quick else 9_000_000):
            library.append(path.read_text(encoding="utf-8", errors="ignore"))
            size += len(library[-1])
    (folder / "stories.txt").write_text(stories, encoding="utf-8")
    (folder / "library.txt").write_text("\n".join(library), encoding="utf-8")
    (folder / "small.txt").write_text(stories[: 300_000 if quick else 1_100_000], encoding="utf-8")
    return [folder / "stories.txt", folder / "library.txt"], folder / "small.txt"


def plain(paths: Iterable[Path], folder: Path) -> list[str]:
    """The files unpacked into the folder."""
    from minirlhf.tokenizers.files import read_text

    made = []
    for number, path in enumerate(paths):
        made.append(str(folder / f"{number}-{path.name.removesuffix('.gz')}"))
        Path(made[-1]).write_text(read_text(path), encoding="utf-8", newline="")
    return made


def documents(files: Sequence[str], characters: int = 4000) -> Iterator[str]:
    """The files' lines, together up to about so many characters; the last line break of each is part of it."""
    for name in files:
        lines, length = list[str](), 0
        with open(name, encoding="utf-8", newline="") as file:
            for line in file:
                lines.append(line)
                length += len(line)
                if length >= characters:
                    yield "".join(lines)
                    lines, length = [], 0
        yield "".join(lines)


def drawn_text(files: Sequence[str], path: Path, megabytes: int, new_word_every: int) -> None:
    """Lines of the files drawn over and over, with a new word in one of every so many, so that new ones keep coming."""
    rng = random.Random(0)
    lines = [line for text in documents(files) for line in text.splitlines(keepends=True)]
    syllables = ["ka", "lo", "mi", "ter", "an", "sing", "ber", "ou", "pre", "ck", "st", "ü", "x_", "is", "er", "on"]
    size = number = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        while size < megabytes * 1_000_000:
            line = rng.choice(lines)
            number += 1
            if number % new_word_every == 0:
                line = "".join(rng.choices(syllables, k=rng.randint(2, 6))) + " " + line
            file.write(line)
            size += len(line.encode("utf-8"))


def prefix(path: str, megabytes: int) -> Iterator[str]:
    """The documents of the first megabytes of a file, read one after the other."""
    size = 0
    for document in documents([path]):
        yield document
        size += len(document.encode("utf-8"))
        if size >= megabytes * 1_000_000:
            return


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


def grow(who: str, file: str, megabytes: int) -> Measurement:
    """Seconds to learn merges from a file that is read while it is needed."""
    import_all(who)
    started = time.perf_counter()
    train_with(who, prefix(file, megabytes))
    return {"seconds": time.perf_counter() - started}


def encode(who: str, files: list[str], folder: str) -> Measurement:
    """MB/s, the first time and once it is warm, and the number of tokens."""
    from minirlhf.tokenizers.storage import load_tokenizer

    tokenizer = load_tokenizer(Path(folder) / "tokenizer.json")
    texts = list(documents(files))
    call: Callable[[list[str]], list[Any]]
    if who == "minirlhf":
        call = tokenizer.encode_batch
    elif who == "tiktoken":
        import tiktoken

        from minirlhf.tokenizers.pattern import PATTERNS

        ranks = {token: token_id for token_id, token in enumerate(tokenizer.tokens)}
        pattern = PATTERNS[tokenizer.pattern]
        theirs = tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=tokenizer.control)
        call = lambda given: [theirs.encode_ordinary(text) for text in given]  # noqa: E731
    else:
        from tokenizers import Tokenizer

        call = Tokenizer.from_file(str(Path(folder) / "hugging_face.json")).encode_batch_fast
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    layouts = [texts]
    if who != "minirlhf":
        layouts += [["".join(texts)], [line for text in texts for line in text.splitlines(keepends=True)]]
    rates, tokens = list[float](), 0
    for layout in layouts:
        for _ in range(2 if layout is texts else 1):
            started = time.perf_counter()
            found = call(layout)
            rates.append(size / (time.perf_counter() - started))
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
        if how == "whole":
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


def measure_encoding(title: str, files: list[str], folder: Path, rounds: int) -> list[Table]:
    """Encoding on one core, everybody in turn, and a check that all find the same number of tokens."""
    runs = interleave(
        {who: job("encode", ONE_CORE, who=who, files=files, folder=str(folder)) for who in CONTESTANTS},
        rounds,
        "cold_mb_per_second",
    )
    counts = {measured["tokens"] for rounds_of in runs.values() for measured in rounds_of}
    if len(counts) != 1:
        raise RuntimeError(f"the contestants disagree on the number of tokens: {counts}")
    return [
        Table(f"encoding, {title}, first time", "cold_mb_per_second", runs),
        Table(f"encoding, {title}, warm", "warm_mb_per_second", runs),
    ]


CONTESTANTS = ("minirlhf", "tokenizers", "tiktoken")


def megabytes(files: Iterable[str]) -> str:
    return f"{sum(Path(name).stat().st_size for name in files) / 1e6:.1f} MB"


def memory_bar(name: str, table: Table, theirs: str) -> Bar:
    return Bar(name, ratio(table, "minirlhf", theirs, "peak_rss_mib"), "<=", 1.0)


def main() -> None:
    parser = options(__doc__, parts=PARTS)
    parser.add_argument("--large", type=Path, nargs="+", help="about 11 MB of mixed text")
    parser.add_argument("--small", type=Path, help="about 1 MB of text")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(flags, Path(name))


def measure(flags: argparse.Namespace, folder: Path) -> None:
    from minirlhf.tokenizers.bpe import train_bpe
    from minirlhf.tokenizers.storage import export_hugging_face, save_tokenizer

    rounds = 1 if flags.quick else flags.rounds
    large_paths, small_path = default_texts(folder, flags.quick)
    large, small = plain(flags.large or large_paths, folder), plain([flags.small or small_path], folder)
    tables, bars, growth = list[Table](), list[Bar](), list[Growth]()
    notes = ["mixed text: " + ", ".join(f"{Path(name).name[2:]} {megabytes([name])}" for name in large)]
    for title, files, most in ((f"mixed text, {megabytes(large)}", large, 0.9), (f"{megabytes(small)}", small, 1.5)):
        if wanted(flags, "train"):
            table = measure_training(title, files, rounds)
            tables.append(table)
            bars += [
                Bar(
                    f"training on {title}: time over that of tokenizers",
                    ratio(table, "minirlhf", "tokenizers"),
                    "<=",
                    most,
                ),
                memory_bar(f"training on {title}: memory over that of tokenizers", table, "tokenizers"),
            ]
        if wanted(flags, "encode"):
            tokenizer = train_bpe(documents(files), VOCABULARY)
            save_tokenizer(tokenizer, folder / "tokenizer.json")
            export_hugging_face(tokenizer, folder / "hugging_face.json")
            cold, warm = measure_encoding(title, files, folder, rounds)
            tables += [cold, warm]
            for table, peer, least in ((cold, 0, 1.0), (cold, 1, 0.4), (warm, 0, 1.4), (warm, 1, 0.6)):
                theirs = CONTESTANTS[1 + peer]
                bars.append(
                    Bar(f"{table.title}: speed over that of {theirs}", ratio(table, "minirlhf", theirs), ">=", least)
                )
            bars += [memory_bar(f"encoding, {title}: memory over that of {who}", cold, who) for who in CONTESTANTS[1:]]
            if files is large:
                over = {
                    f"minirlhf, {each} process{'es' * (each > 1)}": job(
                        "encode_over", ONE_CORE, files=files, folder=str(folder), processes=each
                    )
                    for each in (CORES, 1)
                }
                table = Table(f"encode_batch, {title}", "mb_per_second", interleave(over, rounds, "mb_per_second"))
                tables.append(table)
                gain = ratio(table, *over)
                bars.append(
                    Bar(f"encode_batch: speed-up over {CORES} processes, per process", gain / CORES, ">=", 0.75)
                )

    sizes = SIZES[:2] if flags.quick else SIZES
    if wanted(flags, "growth"):
        path = folder / "drawn.txt"
        drawn_text(large, path, sizes[-1] + 1, new_word_every=10)
        measured = {
            who: [(size, run(job("grow", ALL_CORES, who=who, file=str(path), megabytes=size))) for size in sizes]
            for who in CONTESTANTS[:2]
        }
        present = {who: [(size, got) for size, got in points if got] for who, points in measured.items()}
        for cost, key in (("seconds", "seconds"), ("peak RSS, MiB", "peak_rss_mib")):
            series = {who: [(size, got[key]) for size, got in points] for who, points in present.items() if points}
            growth.append(Growth("training, read from a file", "MB", cost, series))
        per_mb = [got["seconds"] / size for size, got in present["minirlhf"]]
        bars.append(Bar("training: seconds per MB, the largest text over 1 MB", per_mb[-1] / per_mb[0], "<=", 1.0))
        notes.append("growth: lines of the large text drawn again and again, a new word in one of ten; one process")
        path.unlink()
    if wanted(flags, "limit"):
        path, mebibytes = folder / "big.txt", 20 if flags.quick else 160
        drawn_text(large, path, 30 if flags.quick else LIMIT_MB, new_word_every=50)
        found = {how: run(job("limited", ONE_CORE, file=str(path), how=how, mebibytes=mebibytes)) for how in HOW}
        whole, streamed = found["whole"], found["streamed"]
        if whole and streamed:
            tables.append(
                Table(
                    f"a file of {megabytes([str(path)])}, {mebibytes} MiB allowed",
                    "fits",
                    {
                        "minirlhf, streamed": [streamed],
                        "minirlhf, whole text": [whole],
                    },
                )
            )
            bars += [
                Bar("a file larger than the memory allowed: streamed, it is learnt", streamed["fits"], ">=", 1.0),
                Bar("a file larger than the memory allowed: as a whole, it fits", whole["fits"], "<=", 0.0),
            ]
        path.unlink()
    write("bpe", "Byte pair encoding", flags, tables, bars, growth, notes)


HOW = ("streamed", "whole")

if __name__ == "__main__":
    main()
