"""Reading and writing a tokenizer's files: every failure says which file and why."""

import contextlib
import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

from minirlhf.errors import UserError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, gzipped or not. Raises UserError if it cannot be had."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path), expected="a tokenizer file") from None
    except OSError as error:
        raise UserError("the file cannot be read", where=str(path), found=error.strerror or str(error)) from None
    except (EOFError, zlib.error) as error:
        raise UserError("the gzip file is damaged or cut off", where=str(path), found=str(error)) from None
    except UnicodeDecodeError as error:
        raise UserError(
            "the file is not UTF-8 text",
            where=f"{path}, byte {error.start}",
            found=f"the byte 0x{error.object[error.start]:02x}",
            expected="UTF-8",
        ) from None


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, gzipped or not."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            "the JSON file is damaged or cut off",
            where=f"{path}:{error.lineno}, column {error.colno}",
            found=error.msg,
            expected="one whole JSON object",
            fix="copy or save the file again",
        ) from None
    if not isinstance(content, dict):
        raise UserError("the JSON file holds no object", where=str(path), found=type(content).__name__, expected="{…}")
    return content


def write_whole(path: Path, text: str) -> None:
    """Write to a temporary file beside the target, flush it to disk, and rename: never a half-written file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            "the file cannot be written",
            where=str(path),
            found=error.strerror or str(error),
            expected="a folder that can be written to, with room left",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
