"""The five readers. Each takes paths and returns (items, report): what was read, and what was dropped and why.

Common options of all readers:
    fields     minirlhf's name of a field -> the file's, for files that call things otherwise: {"text": "review"}
    encoding   of the files; UTF-8 unless told otherwise, with or without a byte-order mark
    separator  the line between two texts of a .txt file; "blank" for blank lines; matters to documents and prompts
Every problem a person can repair raises UserError with file, line, field, what was found and what was expected.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from minirlhf.data.documents import labelled_texts, text_documents, text_lines
from minirlhf.data.examples import Example, examples_of
from minirlhf.data.files import DataFile
from minirlhf.data.preferences import clean_pairs
from minirlhf.data.record_texts import labelled_record, record_documents
from minirlhf.data.reports import ReadReport, Tally
from minirlhf.data.rows import Row, read_rows
from minirlhf.data.shapes import (
    CONVERSATION_FIELDS,
    FIELDS_OF,
    NO_FIELDS,
    PREFERENCE_FIELDS,
    check_fields,
    field_list,
    likely_text,
    recognise,
    record_of,
)
from minirlhf.data.sources import find_files
from minirlhf.errors import UserError
from minirlhf.records import Conversation, Document, Labelled, Preference, Prompt, Turn

Paths = Sequence[str | Path] | str | Path
Item = TypeVar("Item")


def read_documents(
    paths: Paths, *, fields: Mapping[str, str] = NO_FIELDS, encoding: str = "utf-8", separator: str | None = None
) -> tuple[list[Document], ReadReport]:
    """Texts to pretrain on, exact to the byte.

    A .txt with lines that are exactly "<|endoftext|>" (or `separator`) is split there; the line break before such
    a line belongs to it. separator="blank" splits at blank lines. Any other .txt is one document, and so is each
    file of a folder or zip. Records give their "text", or their "paragraphs" joined by line breaks.
    """
    tally = Tally()
    documents = list(stream_documents(paths, tally, fields=fields, encoding=encoding, separator=separator))
    return documents, tally.report(len(documents))


def stream_documents(
    paths: Paths,
    tally: Tally,
    *,
    fields: Mapping[str, str] = NO_FIELDS,
    encoding: str = "utf-8",
    separator: str | None = None,
    longest: int | None = None,
) -> Iterator[Document]:
    """The documents of read_documents one by one, for files larger than memory; those of a .txt in portions of about
    `longest` characters, if given. The tally holds what was dropped once all are read."""
    check_fields(fields)
    files = find_files(paths, "text", tally)
    check_fields_apply(fields, files)
    kept = False
    for file in files:
        if file.kind == "text":
            found: Iterator[Document] = text_documents(file, encoding, separator, tally, longest)
        else:
            found = record_documents(file, encoding, fields)
        for document in found:
            if document.text.strip():
                kept = True
                yield document
            else:
                tally.drop("empty document", document.source)
    if not kept:
        raise _nothing(files, tally)


def read_conversations(
    paths: Paths, *, fields: Mapping[str, str] = NO_FIELDS, encoding: str = "utf-8", separator: str | None = None
) -> tuple[list[Conversation], ReadReport]:
    """Conversations to imitate. Of preference pairs the chosen answer is taken, of labelled ones the liked; noted."""
    tally, conversations = Tally(), []
    files = find_files(paths, "records", tally)
    for file, _, example, source in _examples(files, encoding, fields, tally, CONVERSATION_FIELDS):
        if example.rejected is not None:
            tally.note(f"{file.name}: preference pairs; their chosen answers are learnt")
        if example.label is not None:
            tally.note(f"{file.name}: answers labelled true are learnt, the others left out")
        turns = (*example.prompt, Turn("assistant", example.answer or ""))
        if example.answer is None:
            tally.drop(example.defect or "no answer to learn", source)
        elif example.label is False:
            tally.drop("answer labelled false", source)
        elif not example.answer.strip():
            tally.drop("empty answer", source)
        elif not all(turn.content.strip() for turn in turns):
            tally.drop("empty turn", source)
        else:
            conversations.append(Conversation(turns, source))
    return _some(conversations, files, tally)


def read_preferences(
    paths: Paths, *, fields: Mapping[str, str] = NO_FIELDS, encoding: str = "utf-8", separator: str | None = None
) -> tuple[list[Preference], ReadReport]:
    """Pairs of answers, cleaned as clean_pairs says."""
    tally, pairs = Tally(), []
    files = find_files(paths, "records", tally)
    for _, record, example, source in _examples(files, encoding, fields, tally, PREFERENCE_FIELDS):
        if example.defect:
            tally.drop(example.defect, source)
        elif example.answer is None or example.rejected is None:
            unpaired = example.label is not None
            raise UserError(
                "single answers with a like or dislike, not pairs" if unpaired else "there is no rejected answer",
                where=source,
                found=f"fields {field_list(record)}",
                expected=f"pairs of answers: {PREFERENCE_FIELDS}",
                fix="a reward model learns from pairs; the liked answers can be learnt by imitation: minirlhf sft"
                if unpaired
                else "learn this file by imitation (minirlhf sft), or map its fields: --field rejected=COLUMN",
            )
        else:
            pairs.append(Preference(example.prompt, example.answer, example.rejected, source))
    return _some(clean_pairs(pairs, tally), files, tally)


def read_prompts(
    paths: Paths, *, fields: Mapping[str, str] = NO_FIELDS, encoding: str = "utf-8", separator: str | None = None
) -> tuple[list[Prompt], ReadReport]:
    """Prompts to answer: what stands before the answer in any conversational shape, or all of a conversation that ends
    with the user; in a .txt, one a line."""
    tally, prompts = Tally(), []
    files = find_files(paths, "records", tally)
    check_fields_apply(fields, files)
    for file in files:
        if file.kind == "text":
            lines = text_documents(file, encoding, separator, tally) if separator else text_lines(file, encoding)
            prompts += [Prompt((Turn("user", line.text),), line.source) for line in lines if line.text.strip()]
    records = [file for file in files if file.kind != "text"]
    for _, record, example, source in _examples(records, encoding, fields, tally, '{"prompt"}, ' + CONVERSATION_FIELDS):
        asked = example.unanswered or example.prompt
        if asked and all(turn.content.strip() for turn in asked):
            prompts.append(Prompt(asked, source, record))
        else:
            tally.drop(example.defect or "empty prompt", source)
    return _some(prompts, files, tally)


def read_labelled(
    paths: Paths, *, fields: Mapping[str, str] = NO_FIELDS, encoding: str = "utf-8", separator: str | None = None
) -> tuple[list[Labelled], ReadReport]:
    """Texts with a label: {"text","label"}, or a folder or zip with a sub-folder or a file of lines per label.

    Conversations with a true/false label come as their transcript, labelled "True" or "False".
    """
    check_fields(fields)
    tally, items = Tally(), []
    files = find_files(paths, "records", tally)
    check_fields_apply(fields, files)
    plain = [file for file in files if file.kind == "text"]
    found = labelled_texts(plain, encoding) if plain else iter(())
    for item in found:
        items.append(item)
    for file in files:
        for row in read_rows(file, encoding) if file.kind != "text" else ():
            record = record_of(row, fields)
            items.append(labelled_record(record, row.source))
    kept = []
    for item in items:
        if item.text.strip() and item.label.strip():
            kept.append(item)
        else:
            tally.drop("empty text" if item.label.strip() else "empty label", item.source)
    return _some(kept, files, tally)


def check_fields_apply(fields: Mapping[str, str], files: Sequence[DataFile]) -> None:
    """Raises UserError if fields are mapped but no file has any; beside files of records, plain text may stand."""
    if fields and all(file.kind == "text" for file in files):
        raise UserError(
            "there are no fields to map in plain text",
            where=files[0].name,
            found="--field " + " ".join(f"{ours}={theirs}" for ours, theirs in fields.items()),
            expected="a file of records: .jsonl, .json, .csv or .tsv",
            fix="leave --field out",
        )


def _examples(
    files: Sequence[DataFile], encoding: str, fields: Mapping[str, str], tally: Tally, expected: str
) -> Iterator[tuple[DataFile, dict[str, object], Example, str]]:
    """Every example of files of records, with its record and its source."""
    check_fields(fields)
    for file in files:
        if file.kind == "text":
            raise UserError(
                "plain text where conversations or pairs are needed",
                where=file.name,
                found="a text file without fields",
                expected=f".jsonl, .json, .csv or .tsv with {expected}",
                fix="learn plain text with minirlhf pretrain, or write it as records",
            )
        first_shape = ""
        for row in read_rows(file, encoding):
            record = record_of(row, fields)
            shape = recognise(record, fields)
            if shape is None or shape in ("labelled text", "text", "paragraphs"):
                raise _unrecognised(record, row, expected, first_shape, file.kind)
            first_shape = first_shape or shape
            for example in examples_of(record, shape, row.source):
                yield file, record, example, row.source


def _unrecognised(record: Mapping[str, object], row: Row, expected: str, first_shape: str, kind: str) -> UserError:
    if first_shape:
        missing = [field for field in FIELDS_OF[first_shape] if field not in record]
        field = missing[0] if missing else "label"
        return UserError(
            f"a field is missing: {field!r}",
            where=f'{row.source}, field "{field}"',
            found=f"fields {field_list(record)}",
            expected=f"{', '.join(FIELDS_OF[first_shape])}, as in the records before",
            fix="complete this record or take it out",
        )
    return UserError(
        "the records are of no shape that fits here",
        where=row.source,
        found=f"fields {field_list(record)}",
        expected=expected,
        fix=("the first line must name the columns; if it does, " if kind in ("csv", "tsv") else "")
        + "say which field is which: "
        + ("--field prompt=COLUMN --field chosen=COLUMN --field rejected=COLUMN" if "chosen" in expected else "")
        + (f"--field prompt={likely_text(record)} --field completion=COLUMN" if "chosen" not in expected else ""),
    )


def _some(items: list[Item], files: Sequence[DataFile], tally: Tally) -> tuple[list[Item], ReadReport]:
    if not items:
        raise _nothing(files, tally)
    return items, tally.report(len(items))


def _nothing(files: Sequence[DataFile], tally: Tally) -> UserError:
    dropped = "; ".join(f"{reason}: {count:,}" for reason, count in tally.dropped.items())
    return UserError(
        "there is nothing in it",
        where=", ".join(file.name for file in files[:3]),
        found=dropped or "no text, no records (empty files)",
        expected="at least one example",
        fix="check that this is the right file",
    )
