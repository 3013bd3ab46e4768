"""Opening files: plain, gzip, a folder, or a zip; decoded line by line so that every complaint has a line number.

Nothing is ever unpacked to disk. Text is exact: line breaks stay as they are, and only a byte-order mark
at the very beginning is taken away.
"""

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from minirlhf.errors import UserError

KIND_OF_SUFFIX = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
FORMATS = ".txt, .jsonl, .json, .csv, .tsv (each also as .gz), a folder of such files, or a .zip of one"
BINARY_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("parquet", "arrow", "feather", "npy", "npz", "h5", "sqlite", "db"),
        *("pdf", "doc", "docx", "odt", "xls", "xlsx", "png", "jpg", "jpeg", "gif", "mp3", "mp4"),
        *("safetensors", "bin", "pt", "pth", "pkl", "tar", "tgz", "bz2", "xz", "zst", "7z", "rar"),
    )
)
MAX_LINE_BYTES = 2**28  # 256 MiB on one line is no line
NOT_FOR_FILES = ("punycode", "idna")  # encodings of domain names: neither can be read line by line
BOMB_BYTES, BOMB_RATIO = 2**28, 200  # text packs 3 to 20 times; only a trap packs 200 times


@dataclass(frozen=True)
class DataFile:
    """One readable file. name is for messages; parts are the path below the folder or zip it came from, if any."""

    name: str
    kind: str  # "text", "jsonl", "json", "csv" or "tsv"
    path: Path
    parts: tuple[str, ...] = ()
    in_zip: tuple[zipfile.ZipFile, zipfile.ZipInfo] | None = None


def kind_of(name: str) -> str | None:
    """The format a file name promises, .gz aside; None if the suffix says nothing."""
    return KIND_OF_SUFFIX.get(Path(name.lower().removesuffix(".gz")).suffix)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns what can go wrong between a disk and a stream of bytes into a UserError that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise UserError(
            "the compressed file is damaged or was cut short",
            where=where,
            found=str(error),
            expected="a complete .gz or .zip file",
            fix="download or copy the file again; `gzip -t FILE` or `unzip -t FILE` checks it",
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile's words for a password, a strange compression
        raise UserError(
            "the zip cannot be read", where=where, found=str(error), fix="unpack it and give the folder"
        ) from error
    except FileNotFoundError as error:
        raise UserError("no such file or folder", where=where, fix="check the spelling of the path") from error
    except OSError as error:
        raise UserError("the file cannot be read", where=where, found=error.strerror or str(error)) from error


class _Guarded(io.RawIOBase):
    """A readable stream that stops when far more comes out of a compressed file than went in."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, packed_bytes: int, name: str):
        self.stream, self.packed_bytes, self.name, self.seen = stream, max(packed_bytes, 1), name, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.seen += len(data)
        if self.seen > BOMB_BYTES and self.seen > BOMB_RATIO * self.packed_bytes:
            raise UserError(
                "the file unpacks to suspiciously much",
                where=self.name,
                found=f"more than {self.seen:,} bytes from {self.packed_bytes:,}",
                expected=f"text, which packs less than {BOMB_RATIO} times",
                fix="unpack it yourself and give the result, if you trust it",
            )
        return len(data)


@contextmanager
def open_bytes(file: DataFile) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed. gzip is recognised by its first bytes, whatever the name."""
    packed = file.in_zip[1].compress_size if file.in_zip else file.path.stat().st_size
    with file.in_zip[0].open(file.in_zip[1]) if file.in_zip else open(file.path, "rb") as raw:
        start = raw.read(4)
        raw.seek(0)
        if start[:2] == b"\x1f\x8b":
            yield io.BufferedReader(_Guarded(gzip.GzipFile(fileobj=raw), packed, file.name), 2**16)
        elif file.in_zip:
            yield io.BufferedReader(_Guarded(raw, packed, file.name), 2**16)
        else:
            if file.name.lower().endswith(".gz") and start:
                raise gzip.BadGzipFile(f"begins with {start!r}, not with gzip's mark")
            yield raw


def numbered_lines(file: DataFile, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """(line number from 1, the line with its line break), exact, in constant memory but for the longest line.

    Raises UserError: undecodable bytes, NUL bytes, another encoding's byte-order mark, damaged compression,
    an unreadable file, an unknown encoding.
    """
    try:
        codec = codecs.lookup(encoding).name
        "".encode(encoding)  # a LookupError too for base64, rot13 and the like, which turn no text into bytes
        if codec in NOT_FOR_FILES:
            raise LookupError(encoding)
    except (LookupError, UnicodeError) as error:  # "undefined" refuses even the empty text
        raise UserError(
            "unknown encoding",
            where="--encoding",
            found=encoding,
            expected="utf-8, latin-1, cp1252, gb18030, …",
            fix="leave it out for UTF-8",
        ) from error
    with explained(file.name), open_bytes(file) as stream:
        if codec.startswith(("utf-16", "utf-32")):  # there a byte 10 is not always a line break
            yield from _wide_lines(file, stream, encoding)
            return
        lines = iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b"")
        for number, raw in enumerate(lines, start=1):
            if number == 1:
                raw = _without_mark(file, raw, codec)
            yield number, _decoded(file, number, raw, encoding)


def read_text(file: DataFile, encoding: str = "utf-8") -> str:
    """The whole file as one exact string. Raises UserError as numbered_lines does."""
    return "".join(line for _, line in numbered_lines(file, encoding))


def _without_mark(file: DataFile, raw: bytes, codec: str) -> bytes:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(
            "the file is UTF-16, not UTF-8",
            where=f"{file.name}:1",
            found=f"it begins with the byte-order mark {raw[:2]!r}",
            expected=f"text in {codec}",
            fix="name the encoding: --encoding utf-16",
        )
    if raw.startswith((b"PK\x03\x04", b"PAR1", b"%PDF", b"SQLite format 3")):
        raise UserError("this is not a text file", where=file.name, found=f"it begins with {raw[:4]!r}", fix=FORMATS)
    return raw.removeprefix(codecs.BOM_UTF8)


def _decoded(file: DataFile, number: int, raw: bytes, encoding: str) -> str:
    where = f"{file.name}:{number}"
    if len(raw) > MAX_LINE_BYTES:
        raise UserError("a line is too long to be one", where=where, found=f"more than {MAX_LINE_BYTES:,} bytes")
    if b"\0" in raw:
        raise UserError(
            "the file holds NUL bytes, so it is not text",
            where=where,
            found=f"a zero byte at byte {raw.index(0) + 1} of the line",
            expected=f"text in {encoding}",
            fix="export it as text; if it is UTF-16 text without a mark, name it: --encoding utf-16-le",
        )
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"the file is not valid {encoding}",
            where=where,
            found=f"byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line",
            expected=f"text in {encoding}",
            fix="save it as UTF-8, or name its encoding: --encoding cp1252 (Western), --encoding gb18030 (Chinese), …",
        ) from error


def _wide_lines(file: DataFile, stream: IO[bytes], encoding: str) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        for number, line in enumerate(io.TextIOWrapper(stream, encoding, newline=""), start=1):
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeError as error:
        raise UserError(
            f"the file is not valid {encoding}",
            where=f"{file.name}:{number + 1}",
            found=str(error),
            fix="leave --encoding out if the file is UTF-8, or name the encoding it has",
        ) from error
