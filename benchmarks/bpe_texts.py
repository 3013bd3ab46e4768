"""The texts that the tokenizers learn from and encode."""

import random
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path


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


def megabytes(files: Iterable[str]) -> str:
    return f"{sum(Path(name).stat().st_size for name in files) / 1e6:.1f} MB"
