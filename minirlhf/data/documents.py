"""Plain text files: as documents to pretrain on, and as labelled texts where folders or file names are the labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from minirlhf.data.files import DataFile, kind_of, numbered_lines, read_text
from minirlhf.data.reports import Tally
from minirlhf.errors import UserError
from minirlhf.records import Document, Labelled
from minirlhf.tokenizers.pattern import portions

SEPARATOR = "<|endoftext|>"


def text_documents(
    file: DataFile, encoding: str, separator: str | None, tally: Tally, longest: int | None = None
) -> Iterator[Document]:
    """The documents of one text file, split as read_documents says; one at a time in memory.

    A document of more than `longest` characters comes in portions, cut where tokens cannot straddle the cut.
    """
    if separator == "blank":
        yield from _paragraphs(file, encoding)
        return
    mark = SEPARATOR if separator is None else separator
    lines: list[str] = []
    start, marks, length, due = 1, 0, 0, longest
    for number, line in numbered_lines(file, encoding):
        if line.rstrip("\r\n") != mark:
            lines.append(line)
            length += len(line)
            if longest and due and length > due:
                *ready, rest = portions(lines, longest)
                yield from (Document(portion, f"{file.name}:{start}") for portion in ready)
                lines, length, due = [rest], len(rest), len(rest) + max(len(rest), longest)
            continue
        marks += 1
        yield Document(_without_last_break("".join(lines)), f"{file.name}:{start}")
        lines, start, length, due = [], number + 1, 0, longest
    text = "".join(lines)
    if not marks:
        if separator is not None:
            tally.note(f"{file.name}: no line is exactly {separator!r}, so the whole file is one document")
        yield Document(text, f"{file.name}:1")
    elif text:  # what follows the last mark ends as the others do
        yield Document(_without_last_break(text), f"{file.name}:{start}")


def _paragraphs(file: DataFile, encoding: str) -> Iterator[Document]:
    lines: list[str] = []
    start = 1
    for number, line in numbered_lines(file, encoding):
        if line.strip():
            start = start if lines else number
            lines.append(line)
        elif lines:
            yield Document(_without_last_break("".join(lines)), f"{file.name}:{start}")
            lines = []
    if lines:
        yield Document(_without_last_break("".join(lines)), f"{file.name}:{start}")


def text_lines(file: DataFile, encoding: str) -> Iterator[Document]:
    """A text per line that is not blank, without its line break."""
    for number, line in numbered_lines(file, encoding):
        if line.strip():
            yield Document(_without_last_break(line), f"{file.name}:{number}")


def _without_last_break(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def labelled_texts(files: Sequence[DataFile], encoding: str) -> Iterator[Labelled]:
    """Texts labelled by where they stand. Raises UserError if neither layout below is found.

    - sub-folders: pos/one.txt, neg/two.txt: a text per file, the label is the folder
    - one file per label: reviews.pos and reviews.neg, or positive.txt and negative.txt: a text per line
    """
    folders = [file.parts[-2] if len(file.parts) > 1 else "" for file in files]
    names = [_label_in_name(file.parts[-1]) if file.parts else "" for file in files]
    if all(folders) and len(set(folders)) > 1:
        for file, label in zip(files, folders, strict=True):
            yield Labelled(read_text(file, encoding), label, file.name)
    elif len(files) > 1 and all(names) and len(set(names)) == len(names) and len(names) <= 20:
        for file, label in zip(files, names, strict=True):
            for line in text_lines(file, encoding):
                yield Labelled(line.text, label, line.source)
    else:
        raise UserError(
            "nothing says which label a text has",
            where=files[0].name,
            found=", ".join("/".join(file.parts) or file.name for file in files[:4]) + (" …" if len(files) > 4 else ""),
            expected='records {"text","label"}; or a folder or zip with a sub-folder per label (pos/, neg/); '
            "or one with a file per label, a text a line (reviews.pos, reviews.neg)",
            fix="sort the texts into such folders, or write them as .jsonl",
        )


def _label_in_name(name: str) -> str:
    """ "neg" of "reviews.neg" and of "neg.txt"; an ending that only tells the format is no label."""
    path = Path(name.removesuffix(".gz"))
    return path.stem if kind_of(path.name) else path.suffix[1:] or path.stem
