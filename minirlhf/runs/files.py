"""The files of a run folder: rows appended line by line, everything else replaced in one move.

A process may die between any two instructions here. A file written by `write_text` is then either the old one or
the new one, never half of each; a file of rows may end in half a line, which `read_rows` leaves out.
"""

import json
import math
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from minirlhf.errors import UserError

TEMPORARY_SUFFIX = ".unfinished"


def write_text(path: Path, text: str) -> None:
    """Replaces the file in one move, after the new text is safely on the disk."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with naming(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A disk that is full does not say which file it had no room for; this adds it to the OSError."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes the value as readable JSON; numbers that JSON has no word for (NaN, infinity) become null."""
    write_text(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file. Raises UserError if it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("a file of the run is missing", where=str(path)) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError("a file of the run is not JSON", where=str(path), found=str(error)) from None


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Adds one line of JSON and hands it to the operating system, so that a killed process loses no row."""
    with naming(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(_without_nan(row), ensure_ascii=False, allow_nan=False) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; a last line without its line end is left out. A missing file has no rows.

    Raises UserError naming the line if a whole one is no row: only a person or a broken disk leaves such a thing.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(
                "a line is not a JSON object",
                where=f"{path}:{number}",
                found=repr(line[:60].decode("utf-8", errors="replace")),
                expected='{"step": …, …}',
                fix="repair or delete the line",
            )
        rows.append(row)
    return rows


def cut_rows(path: Path, last_step: int) -> list[dict[str, Any]]:
    """Takes away the rows after last_step, which a resumed run will write again; returns those that stay."""
    rows = [row for row in read_rows(path) if row.get("step", 0) <= last_step]
    if path.exists():
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows


def plain(value: Any) -> Any:
    """Config dataclasses, paths and tuples as the values JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"gpt": {"width": 8}} -> {"gpt.width": 8}."""
    result: dict[str, Any] = {}
    for key, part in value.items():
        result |= flat(part, f"{prefix}{key}.") if isinstance(part, Mapping) else {f"{prefix}{key}": part}
    return result


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return value


def check_same(folder: Path, command: str, settings: Mapping[str, Any], free_to_change: Collection[str]) -> None:
    """Raises UserError unless the folder's config.json tells of this command and these settings."""
    config = read_json(folder / "config.json")
    before, now = flat(config["settings"]), flat(settings)
    differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    differing = [name for name in differing if name.removeprefix("stage.run.") not in free_to_change]
    if config.get("command") != command:
        raise UserError(
            "the folder holds another kind of run",
            where=str(folder),
            found=str(config.get("command")),
            expected=command,
            fix="choose another --out",
        )
    if differing:
        raise UserError(
            "the run was started with other settings, so it cannot go on with these",
            where=str(folder / "config.json"),
            found="; ".join(f"{name} was {before.get(name)}, is now {now.get(name)}" for name in differing),
            fix="repeat the settings it was started with (argv in its config.json), or choose another --out",
        )


def git_commit() -> str | None:
    """The commit of the checkout this package runs from, if it is one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def move_aside(folder: Path) -> None:
    """Renames NAME to NAME.before-1, or the first number that is free: what a user made is never deleted."""
    if Path.cwd().is_relative_to(folder.resolve()):  # what is written next would follow it
        raise UserError("the current folder cannot be moved aside", where=str(folder.resolve()), fix="cd .. first")
    number = 1
    while (aside := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    folder.rename(aside)
