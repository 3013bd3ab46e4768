"""Records from JSONL, JSON, CSV and TSV: the same as the standard parsers, with the line they start on."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.files import DataFile, kind_of
from minirlhf.data.formats import read_documents
from minirlhf.data.rows import read_rows
from minirlhf.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES = st.recursive(
    TEXT | st.integers() | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


def rows_of(path, text):
    path.write_bytes(text.encode("utf-8"))
    return list(read_rows(DataFile(str(path), kind_of(path.name) or "", path)))


def refused(path, text):
    with pytest.raises(UserError) as caught:
        rows_of(path, text)
    return caught.value


@settings(max_examples=50)
@given(RECORDS, st.sampled_from([None, 0, 2]), st.booleans())
def test_json_lists_and_lines_are_what_json_says(folder, records, indent, ascii_only):
    text = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    rows = rows_of(folder / "a.json", text)
    assert [row.value for row in rows] == records
    rows = rows_of(folder / "a.jsonl", "".join(json.dumps(r, ensure_ascii=ascii_only) + "\r\n" for r in records))
    assert [row.value for row in rows] == records
    assert [row.source for row in rows] == [f"{folder / 'a.jsonl'}:{n}" for n in range(1, len(records) + 1)]


def test_elements_of_a_list_carry_their_line(folder):
    rows = rows_of(folder / "a.json", '\n[\n {"a":\n 1}, {"a": 2},\n\n {"a": 3}\n]\n')
    assert [(row.value["a"], row.source.rsplit(":", 1)[1]) for row in rows] == [(1, "3"), (2, "4"), (3, "6")]


def test_objects_one_after_the_other_in_a_json_file_are_records_too(folder):
    assert [row.value for row in rows_of(folder / "a.json", '{"a": 1}\n{"a": 2}\n')] == [{"a": 1}, {"a": 2}]


@settings(max_examples=50)
@given(
    st.lists(
        TEXT.filter(lambda t: t.strip() and not set(t) & set("\r\ufeff;|\t")), min_size=1, max_size=3, unique=True
    ),
    st.data(),
)
def test_csv_cells_come_back_with_quotes_commas_and_line_breaks(folder, header, data):
    cells = TEXT.filter(lambda t: t and "\r" not in t)
    table = data.draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=4))
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([header, *table])
        rows = rows_of(folder / f"a{suffix}", buffer.getvalue())
        assert [row.value for row in rows] == [dict(zip(header, row, strict=True)) for row in table]
        line = 1 + "".join(header).count("\n")
        for row, written in zip(rows, table, strict=True):
            assert row.source.endswith(f":{line + 1}")
            line += 1 + "".join(written).count("\n")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{"a": 1}\n{"a": \n', 2, "column"),
        ('{"a": 1}\n\n{"a" 1}\n', 3, "delimiter"),
        ('{"a": 1, "a": 2}\n', 1, "'a' stands there twice"),
        ('{"a": 1} {"a": 2}\n', 1, "Extra data"),
        ("[" * 100_000 + "\n", 1, "nested too deeply"),
        ('[{"a": 1},\n{"a": 2}]\n', 1, "named .json"),
        ('[{"a": 1}]\n', 1, "named .json"),
    ],
)
def test_malformed_jsonl_names_the_line(folder, text, line, words):
    error = refused(folder / "a.jsonl", text)
    assert error.where == f"{folder / 'a.jsonl'}:{line}" and words in str(error)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[\n{"a": 1},\n{"a": }\n]', 3, "Expecting value"),
        ('[\n{"a": 1}\n{"a": 2}]', 3, "a comma or ] is missing"),
        ('[\n{"a": 1},\n', 3, "cut short"),
        ('[\n{"a": 1}', 2, "cut short"),
        ('[{"a": 1}]\nmore', 2, "text after the end"),
        ('[{"a": "' + "x" * 50, 1, "Unterminated string"),
        ("a story\n", 1, "Expecting value"),
    ],
)
def test_malformed_json_names_the_line(folder, text, line, words):
    error = refused(folder / "a.json", text)
    assert error.where == f"{folder / 'a.json'}:{line}" and words in str(error)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", 3, "3 cells"),
        ('a,b\n"1\n1",2\n1\n', 4, "1 cells"),
        ("a,b,a\n1,2,3\n", 1, "'a' stands there twice"),
        ("a,,b\n1,2,3\n", 1, "no name"),
        ("a;b\n1;2\n", 1, "separated by something else"),
        ('a,b\n1,2\n"1,2\n', 3, "unexpected end"),
        ('a,b\n"1"x,2\n', 2, "expected after"),
        ("a,b\n1," + "x" * 140_000 + "\n", 2, "too large"),
    ],
)
def test_malformed_csv_names_the_line_the_row_starts_on(folder, text, line, words):
    error = refused(folder / "a.csv", text)
    assert error.where == f"{folder / 'a.csv'}:{line}" and words in str(error)


def test_a_header_alone_or_an_empty_list_is_nothing(folder):
    for name, text in (("a.csv", "a,b\n"), ("a.json", "[ ]"), ("a.jsonl", "\n"), ("b.json", "")):
        (folder / name).write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="nothing in it"):
            read_documents(folder / name)
