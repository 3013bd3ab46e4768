"""Opening files: text is exact, every broken file is refused with its line."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data import files as files_module
from minirlhf.data.files import DataFile, numbered_lines, read_text
from minirlhf.data.formats import read_conversations, read_documents, read_labelled, read_prompts
from minirlhf.errors import UserError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def text_file(path: Path, content: bytes) -> DataFile:
    path.write_bytes(content)
    return DataFile(str(path), "text", path)


def refusal(read, *args, **options) -> UserError:
    with pytest.raises(UserError) as caught:
        read(*args, **options)
    return caught.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@settings(max_examples=50)
@given(TEXT.filter(lambda text: not text.startswith("\ufeff")), st.booleans(), st.booleans())
def test_text_comes_back_exactly_whatever_its_line_breaks(folder, text, mark, packed):
    content = (b"\xef\xbb\xbf" if mark else b"") + text.encode("utf-8")
    file = text_file(folder / "text", gzip.compress(content, mtime=0) if packed else content)
    assert read_text(file) == text
    lines = list(numbered_lines(file))
    assert [number for number, _ in lines] == list(range(1, len(lines) + 1))
    assert all(line.endswith("\n") for _, line in lines[:-1])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "gb18030"])
def test_another_encoding_is_read_when_it_is_named(tmp_path, encoding):
    text = "café\r\n" if encoding in ("latin-1", "cp1252") else "café 村庄\r\nĊ end"  # Ċ holds a byte 10 in UTF-16
    assert read_text(text_file(tmp_path / "a.txt", text.encode(encoding)), encoding) == text


@pytest.mark.parametrize(
    ("content", "where", "words"),
    [
        (b"fine\ncaf\xe9\n", ":2", "0xe9 at byte 4"),
        ("text".encode("utf-16"), ":1", "--encoding utf-16"),
        (b"one\ntwo\0three\n", ":2", "zero byte at byte 4"),
        (gzip.compress(b"a story " * 5000, mtime=0)[:-20], "", "cut short"),
        (gzip.compress(b"a story" * 5000, mtime=0)[:40], "", "cut short"),
        (gzip.compress(b"a story " * 50, mtime=0)[:-8] + b"12345678", "", "damaged"),
        (b"%PDF-1.7 ...", "", "not a text file"),
        (b"PAR1....", "", "not a text file"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, content, where, words):
    error = refusal(read_documents, text_file(tmp_path / "a.txt", content).path)
    assert error.where == f"{tmp_path / 'a.txt'}{where}"
    assert words in str(error)


@pytest.mark.parametrize("encoding", ["base64", "rot13", "hex", "zlib", "undefined", "punycode", "idna"])
def test_a_codec_that_is_no_encoding_of_text_is_refused_by_name(tmp_path, encoding):
    error = refusal(read_documents, text_file(tmp_path / "a.txt", b"a story\n").path, encoding=encoding)
    assert error.where == "--encoding" and error.found == encoding


def test_files_that_are_not_there_empty_or_something_else(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_text(" \n\n", encoding="utf-8")
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    (tmp_path / "plain.txt.gz").write_text("not compressed", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    assert "no such file" in str(refusal(read_documents, tmp_path / "none.txt"))
    assert "nothing in it" in str(refusal(read_documents, tmp_path / "empty.txt"))
    assert "empty document: 1" in str(refusal(read_documents, tmp_path / "blank.txt"))
    assert "to_json" in str(refusal(read_documents, tmp_path / "table.parquet"))
    assert "not with gzip's mark" in str(refusal(read_documents, tmp_path / "plain.txt.gz"))
    assert "holds no data files" in str(refusal(read_documents, tmp_path / "folder"))
    assert "no data files" in str(refusal(read_documents, []))
    assert "unknown encoding" in str(refusal(read_documents, tmp_path / "blank.txt", encoding="utf-9"))
    assert "not valid utf-16" in str(refusal(read_documents, tmp_path / "blank.txt", encoding="utf-16"))


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../escape.txt", "/etc/passwd.txt", "a/../../b.txt", "C:/a.txt"])
def test_a_zip_with_names_that_point_outside_is_refused(tmp_path, name):
    error = refusal(read_documents, make_zip(tmp_path / "a.zip", {name: b"text"}))
    assert "points outside" in str(error) and name in error.found
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]  # nothing was unpacked


def test_a_damaged_zip_is_refused(tmp_path):
    content = make_zip(tmp_path / "a.zip", {"a.txt": b"a long story " * 999}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    broken = bytearray(content)
    broken[45] ^= 0xFF  # inside the compressed text
    (tmp_path / "flipped.zip").write_bytes(bytes(broken))
    (tmp_path / "not.zip").write_bytes(b"hello")
    for name in ("cut.zip", "flipped.zip", "not.zip"):
        assert "damaged" in str(refusal(read_documents, tmp_path / name))


def test_what_unpacks_to_far_too_much_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "BOMB_BYTES", 2**16)
    bomb = b"a" * 2**18
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(bomb, mtime=0))
    make_zip(tmp_path / "bomb.zip", {"a.txt": bomb})
    make_zip(tmp_path / "nested.zip", {"a.txt.gz": gzip.compress(bomb, mtime=0)})
    for name in ("bomb.txt.gz", "bomb.zip", "nested.zip"):
        assert "suspiciously much" in str(refusal(read_documents, tmp_path / name))
    honest = bytes(range(32, 127)) * 2**10
    (tmp_path / "text.txt").write_bytes(honest)
    assert read_documents(tmp_path / "text.txt")[0][0].text == honest.decode("ascii")


def test_a_line_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "MAX_LINE_BYTES", 100)
    assert "too long" in str(refusal(read_documents, text_file(tmp_path / "a.txt", b"a\n" + b"b" * 101).path))
    read_documents(text_file(tmp_path / "a.txt", b"b" * 100).path)


def test_documents_are_split_at_separator_lines_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b" one\r\n<|endoftext|>\r\ntwo <|endoftext|>\n\n<|endoftext|>\n \n<|endoftext|>\nthree\n")
    documents, report = read_documents(path)
    assert [(d.text, d.source) for d in documents] == [
        (" one", f"{path}:1"),
        ("two <|endoftext|>\n", f"{path}:3"),
        ("three", f"{path}:8"),
    ]
    assert report.dropped == {"empty document": 1} and report.first["empty document"] == f"{path}:6"


@settings(max_examples=50)
@given(st.lists(TEXT.filter(lambda text: text.strip() and "===" not in text), min_size=1, max_size=5))
def test_documents_joined_by_separator_lines_come_back(folder, texts):
    path = folder / "joined.txt"
    path.write_bytes(("\n===\n".join(texts) + "\n===\n").encode("utf-8").replace(b"\xef\xbb\xbf", b""))
    wanted = [t.replace("\ufeff", "") for t in texts]
    wanted = [t.removesuffix("\r") for t in wanted]  # "\r" and "\n" together are one line break
    if all(text.strip() for text in wanted):
        assert [document.text for document in read_documents(path, separator="===")[0]] == wanted


def test_blank_lines_separate_only_when_asked(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n\none\nmore\n \n\ntwo\n")
    assert [d.text for d in read_documents(path)[0]] == ["\n\none\nmore\n \n\ntwo\n"]
    split, _ = read_documents(path, separator="blank")
    assert [(d.text, d.source) for d in split] == [("one\nmore", f"{path}:3"), ("two", f"{path}:7")]
    assert "no line is exactly '###'" in str(read_documents(path, separator="###")[1])


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_or_zip_gives_a_document_per_file(tmp_path, packed):
    members = {
        "b.txt": b"two",
        "sub/a.txt.gz": gzip.compress(b"one", mtime=0),
        "README": b"no",
        ".hidden.txt": b"no",
        "c.txt": b"",
    }
    if packed:
        path = make_zip(tmp_path / "a.zip", members)
    else:
        path = tmp_path / "texts"
        (path / "sub").mkdir(parents=True)
        for name, content in members.items():
            (path / name).write_bytes(content)
    documents, report = read_documents(path)
    assert [document.text for document in documents] == ["two", "one"]
    assert report.dropped == {"empty document": 1}
    assert "not read as data" in report.notes[0] and "1 more" in report.notes[0]


def test_labels_from_folders_from_file_names_and_from_nothing(tmp_path):
    folders = make_zip(tmp_path / "a.zip", {"r/pos/1.txt": b"good\nfilm", "r/neg/1.txt": b"bad", "r/README": b"x"})
    assert [(i.text, i.label) for i in read_labelled(folders)[0]] == [("bad", "neg"), ("good\nfilm", "pos")]
    lines = make_zip(
        tmp_path / "b.zip", {"r/polarity.neg": b"bad\nworse\r\n", "r/polarity.pos": b"good\n\n", "README.txt": b"x"}
    )
    assert [(i.text, i.label) for i in read_labelled(lines)[0]] == [("bad", "neg"), ("worse", "neg"), ("good", "pos")]
    names = make_zip(tmp_path / "c.zip", {"negative.txt": b"bad", "positive.txt": b"good"})
    assert [i.label for i in read_labelled(names)[0]] == ["negative", "positive"]
    (tmp_path / "plain.txt").write_text("text", encoding="utf-8")
    assert "which label" in str(refusal(read_labelled, tmp_path / "plain.txt"))


def test_plain_text_is_prompts_by_line_and_no_conversation(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffTell a story\r\n\nSing\n".encode())
    assert [(p.turns[0].content, p.source) for p in read_prompts(path)[0]] == [
        ("Tell a story", f"{path}:1"),
        ("Sing", f"{path}:3"),
    ]
    assert len(read_prompts(path, separator="###")[0]) == 1
    assert "plain text where conversations" in str(refusal(read_conversations, path))


def test_an_encrypted_or_odd_zip_gets_a_reason(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "secret")
    content = bytearray(buffer.getvalue())
    for start in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[start] |= 1  # the flag that says "encrypted"
    (tmp_path / "a.zip").write_bytes(bytes(content))
    assert "the zip cannot be read" in str(refusal(read_documents, tmp_path / "a.zip"))


def test_a_zip_whose_list_of_names_is_damaged_is_refused_in_words(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("é.txt", "a story")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace("é".encode(), b"\xa6\xa6"))
    assert "damaged" in str(refusal(read_documents, tmp_path / "a.zip"))
