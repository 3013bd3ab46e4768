"""Records, one at a time with the line they start on, from .jsonl, .json, .csv and .tsv."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from minirlhf.data.files import DataFile, numbered_lines, read_text
from minirlhf.errors import UserError


@dataclass(frozen=True)
class Row:
    """One record. value is a dict of fields, or whatever else the JSON holds there; source is `file:line`."""

    value: object
    source: str


def read_rows(file: DataFile, encoding: str = "utf-8") -> Iterator[Row]:
    """The file's records. JSONL and CSV are streamed. Raises UserError with the line of the first malformed one."""
    readers = {"jsonl": _jsonl_rows, "json": _json_rows, "csv": _csv_rows, "tsv": _csv_rows}
    return readers[file.kind](file, encoding)


def shown(value: object, width: int = 60) -> str:
    """A value as a message shows it: one line, cut."""
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return fields


def _malformed(where: str, error: Exception, around: str) -> NoReturn:
    message = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, json.JSONDecodeError):
        message = f"{error.msg} at column {error.colno}"
    raise UserError(
        "the JSON is malformed",
        where=where,
        found=f"{message}: {shown(around)}",
        expected="one complete JSON object, each field once",
        fix="repair this line; a JSON file that spreads one record over many lines is named .json, not .jsonl",
    ) from error


def _jsonl_rows(file: DataFile, encoding: str) -> Iterator[Row]:
    decoder = _decoder()
    for number, line in numbered_lines(file, encoding):
        if not line.strip():
            continue
        where = f"{file.name}:{number}"
        try:
            value = decoder.decode(line)
        except (ValueError, RecursionError) as error:
            start = max(error.pos - 20, 0) if isinstance(error, json.JSONDecodeError) else 0
            _malformed(where, error, line.strip()[start:])
        if isinstance(value, list):
            raise UserError(
                "a list where a line should hold one object",
                where=where,
                found=shown(value),
                expected='one object per line, such as {"text": "…"}',
                fix="a file that is one JSON list is named .json, not .jsonl",
            )
        yield Row(value, where)


def _json_rows(file: DataFile, encoding: str) -> Iterator[Row]:
    """The elements of a list, each with its line; a single object as one row; objects one after the other as rows."""
    text = read_text(file, encoding)
    position, line, decoder = 0, 1, _decoder()

    def skip_space(start: int) -> int:
        end = start
        while end < len(text) and text[end] in " \t\r\n":
            end += 1
        return end

    def take(start: int) -> tuple[Row, int]:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            at = error.pos if isinstance(error, json.JSONDecodeError) else start
            _malformed(f"{file.name}:{text.count(chr(10), 0, at) + 1}", error, text[at : at + 80])
        return Row(value, f"{file.name}:{line}"), end

    position = skip_space(position)
    in_list = text.startswith("[", position)
    position = skip_space(position + 1) if in_list else position
    if in_list and text.startswith("]", position):
        return
    counted = 0
    while position < len(text):
        line += text.count("\n", counted, position)
        counted = position
        row, position = take(position)
        yield row
        position = skip_space(position)
        if not in_list:
            continue
        if text.startswith("]", position):
            if (rest := skip_space(position + 1)) < len(text):
                _malformed(
                    f"{file.name}:{text.count(chr(10), 0, rest) + 1}", ValueError("text after the end"), text[rest:]
                )
            return
        if not text.startswith(",", position):
            where = f"{file.name}:{text.count(chr(10), 0, position) + 1}"
            _malformed(where, ValueError("a comma or ] is missing, or the file was cut short"), text[position:])
        position = skip_space(position + 1)
    if in_list:
        _malformed(
            f"{file.name}:{text.count(chr(10)) + 1}", ValueError("the list is not closed: the file was cut short"), ""
        )


def _csv_rows(file: DataFile, encoding: str) -> Iterator[Row]:
    lines = (line for _, line in numbered_lines(file, encoding))
    reader = csv.reader(lines, delimiter="\t" if file.kind == "tsv" else ",", strict=True)
    header: list[str] = []
    number = 1  # the line the next row starts on; a quoted cell may hold line breaks
    while True:
        where = f"{file.name}:{number}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _malformed_csv(where, str(error))
        if not cells:
            pass
        elif not header:
            header = _checked_header(cells, where)
        elif len(cells) != len(header):
            raise UserError(
                "the row does not fit the header",
                where=where,
                found=f"{len(cells)} cells, beginning {shown(cells[0])}",
                expected=f"{len(header)} cells: {', '.join(header)}",
                fix='cells that hold a comma, a quote or a line break must be quoted: "like, this"',
            )
        else:
            yield Row(_fields(header, cells), where)
        number = reader.line_num + 1


def _fields(header: list[str], cells: list[str]) -> Mapping[str, object]:
    return dict(zip(header, cells, strict=True))


def _checked_header(cells: list[str], where: str) -> list[str]:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    problem = f"the column {twice[0]!r} stands there twice" if twice else ""
    if len(cells) == 1 and any(mark in cells[0] for mark in ";\t|"):
        problem = "the columns seem to be separated by something else than the file's name says"
    elif not all(cells):
        problem = "a column has no name"
    if problem:
        raise UserError(
            problem,
            where=where,
            found=shown(cells),
            expected="a first line of different column names, separated by , in .csv and by a tab in .tsv",
            fix="give every column a name of its own in the first line",
        )
    return cells


def _malformed_csv(where: str, message: str) -> NoReturn:
    if "field larger" in message:
        raise UserError(
            "a cell is too large for CSV",
            where=where,
            found=f"more than {csv.field_size_limit():,} characters in one cell",
            fix="close the quote that was left open; texts as long as that go into .jsonl",
        )
    raise UserError(
        "the CSV is malformed",
        where=where,
        found=message,
        expected='cells in double quotes where they hold a comma or a line break, "" for a quote inside',
        fix="export the table again as CSV with standard quoting",
    )
