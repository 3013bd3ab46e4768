"""From what a person names (a file, a folder, a zip) to the files to read."""

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from minirlhf.data.files import BINARY_SUFFIXES, BOMB_BYTES, FORMATS, DataFile, explained, kind_of
from minirlhf.data.reports import Tally
from minirlhf.errors import UserError

MAX_ARCHIVE_BYTES = 2**33  # 8 GiB of text, as the zip's own table of contents states it
SIDE_FILES = ("readme", "license", "licence", "copying", "notice", "source.txt", "changelog")


def find_files(
    paths: Sequence[str | Path] | str | Path, prefer: Literal["text", "records"], tally: Tally
) -> list[DataFile]:
    """The files to read, folders and zips opened, in a fixed order (sorted by path inside a folder or zip).

    In a folder or zip, `prefer` decides when there are both text files and files of records; README, LICENSE
    and hidden files are left out, and everything left out is noted in the tally.
    Raises UserError: nothing there, no file of a known kind, a zip with unsafe names or absurd sizes.
    """
    files: list[DataFile] = []
    for path in [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]:
        with explained(str(path)):
            if path.is_dir():
                members = [
                    DataFile(str(found), kind_of(found.name) or "", found, found.relative_to(path).parts)
                    for found in sorted(path.rglob("*"))
                    if found.is_file()
                ]
                files += _chosen(str(path), members, prefer, tally)
            elif not path.exists():
                raise FileNotFoundError
            elif not path.is_file():
                raise UserError("not a regular file", where=str(path), expected=FORMATS, fix="save the data to a file")
            elif path.suffix.lower() == ".zip" or _is_zip(path):
                files += _chosen(str(path), _zip_members(path), prefer, tally)
            else:
                _refuse_binary(path.name, str(path))
                files.append(DataFile(str(path), kind_of(path.name) or "text", path))
    if not files:
        raise UserError("no data files were given", expected=FORMATS)
    return files


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04" and path.suffix.lower() not in BINARY_SUFFIXES


def _refuse_binary(name: str, where: str) -> None:
    suffix = Path(name.lower()).suffix
    if suffix in BINARY_SUFFIXES:
        advice = {
            ".parquet": "convert it to .jsonl (pandas: read_parquet(…).to_json(…, orient='records', lines=True))",
            ".xlsx": "save the sheet as .csv in UTF-8",
            ".xls": "save the sheet as .csv in UTF-8",
        }
        raise UserError(
            f"{suffix} files are not read",
            where=where,
            expected=FORMATS,
            fix=advice.get(suffix, "save or unpack it as one of these"),
        )


def _zip_members(path: Path) -> list[DataFile]:
    try:
        archive = zipfile.ZipFile(path)
    except UnicodeDecodeError as error:  # zipfile lets a spoilt name through as it is
        raise zipfile.BadZipFile(f"a name in its list of files is spoilt: {error}") from error
    members = {info.filename: info for info in archive.infolist() if not info.is_dir()}  # a later namesake wins
    for name, info in members.items():
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name).parts or ":" in name.split("/")[0]:
            raise UserError(
                "the zip holds a name that points outside of it",
                where=str(path),
                found=name,
                expected="relative names without ..",
                fix="do not trust this zip; pack the files again",
            )
        if info.file_size > BOMB_BYTES and info.file_size > 1000 * max(info.compress_size, 1):
            raise UserError("the zip unpacks to suspiciously much", where=f"{path}!{name}", found=f"{info.file_size:,}")
    if sum(info.file_size for info in members.values()) > MAX_ARCHIVE_BYTES:
        raise UserError(
            "the zip is too large", where=str(path), expected=f"at most {MAX_ARCHIVE_BYTES:,} bytes unpacked"
        )
    return [
        DataFile(f"{path}!{name}", kind_of(name) or "", path, PurePosixPath(name).parts, (archive, members[name]))
        for name in sorted(members)
    ]


def _chosen(where: str, members: list[DataFile], prefer: str, tally: Tally) -> list[DataFile]:
    """The data among a folder's or zip's files."""
    visible = [m for m in members if not any(part.startswith((".", "__MACOSX")) for part in m.parts)]
    data = [m for m in visible if not m.parts[-1].lower().startswith(SIDE_FILES)]
    known = [m for m in data if m.kind]
    plain = [m for m in known if m.kind == "text"]
    records = [m for m in known if m.kind != "text"]
    chosen = (plain or records) if prefer == "text" else (records or plain)
    if not chosen:  # suffixes that say nothing, such as reviews.neg and reviews.pos
        unknown = [m for m in data if Path(m.parts[-1].lower()).suffix not in BINARY_SUFFIXES]
        chosen = [DataFile(m.name, "text", m.path, m.parts, m.in_zip) for m in unknown]
    if not chosen:
        names = ", ".join("/".join(m.parts) for m in members[:5]) or "nothing"
        raise UserError(
            "the folder or zip holds no data files",
            where=where,
            found=names + (f" and {len(members) - 5} more" if len(members) > 5 else ""),
            expected=FORMATS,
        )
    left_out = sorted({m.name for m in members} - {m.name for m in chosen})
    if left_out:
        more = "" if len(left_out) == 1 else f" and {len(left_out) - 1} more"
        tally.note(f"{where}: not read as data: {left_out[0]}{more}")
    return chosen
