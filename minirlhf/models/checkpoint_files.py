"""A folder of files that changes as a whole or not at all, and reading it back with errors a person understands.

A new version is written beside the old one and flushed to disk; then the old folder steps aside and the new one
takes its name. Killed at any moment, one of the two is whole: either the folder itself, or, between the two
renames, the one that stepped aside.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from minirlhf.errors import UserError


def replace_folder(folder: Path, write_files: Callable[[Path], None], ours: frozenset[str]) -> None:
    """Put what write_files(part) writes into the empty folder `part` in the place of `folder`, atomically.

    Raises UserError when it cannot be written (no room, no permission) or when `folder` holds anything whose name
    is not in `ours`; whatever stood there before is then still there, and nothing else is left behind.
    """
    part, previous = _sibling(folder, "writing"), _sibling(folder, "previous")
    try:
        _settle(folder)
        strangers = sorted(set(os.listdir(folder)) - ours) if folder.exists() else []
        if strangers:
            raise UserError(
                "the folder holds files that would be lost",
                where=str(folder),
                found=", ".join(strangers[:5]),
                expected="a new folder, or one that holds only a checkpoint",
                fix="choose another folder",
            )
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_files(part)
        _flush_folder(part)
        if folder.exists():
            os.replace(folder, previous)
        os.replace(part, folder)
        _flush_folder(folder.parent)
        shutil.rmtree(previous, ignore_errors=True)
    except OSError as error:
        _settle(folder)
        raise UserError(
            "the checkpoint cannot be written",
            where=str(folder),
            found=error.strerror or str(error),
            expected="a folder that can be written to, with room left",
            fix="free some room or choose another folder; what was saved before is still there",
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def current_folder(folder: Path) -> Path | None:
    """Where the last whole version of `folder` lies; None when there has never been one."""
    return next((place for place in (folder, _sibling(folder, "previous")) if place.is_dir()), None)


def _sibling(folder: Path, role: str) -> Path:
    absolute = Path(os.path.abspath(folder))  # "." has no name of its own
    return absolute.parent / f".{absolute.name}.{role}"


def _settle(folder: Path) -> None:
    """Finish what a kill interrupted: the version that stepped aside comes back, or goes when it was replaced."""
    previous = _sibling(folder, "previous")
    if not previous.exists():
        return
    if folder.exists():
        shutil.rmtree(previous)
    else:
        os.replace(previous, folder)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows flushes folders by itself and has no way to ask for it
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file of these tensors, in their own dtypes."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(on_cpu, metadata={"format": "pt"}))


def read_bytes(path: Path) -> bytes:
    """Raises UserError when the file is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            "a file of the checkpoint is missing",
            where=str(path),
            fix="copy the whole folder again, with all its files",
        ) from None
    except OSError as error:
        raise UserError("the file cannot be read", where=str(path), found=error.strerror or str(error)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Raises UserError when the file is missing or is not a JSON object."""
    try:
        content = json.loads(read_bytes(path).decode("utf-8"))
    except ValueError as error:
        raise UserError(
            "the file is not JSON in UTF-8", where=str(path), found=str(error), fix="copy the whole folder again"
        ) from None
    if not isinstance(content, dict):
        raise UserError("the file holds no JSON object", where=str(path), found=type(content).__name__, expected="{…}")
    return content


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises UserError when the file is missing, cut off, or not a safetensors file."""
    content = read_bytes(path)
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            "the file is not a whole safetensors file",
            where=str(path),
            found=f"{len(content)} bytes, {error}",
            expected="the file as it was written; perhaps a copy or download was cut off",
            fix="copy it again, or train again with --resume",
        ) from None


def check_tensors(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises UserError unless names and shapes agree and every number is finite; names the first tensor that fails."""
    for name, want in expected.items():
        where = f'{path}, tensor "{name}"'
        if name not in found:
            raise UserError("a tensor of the model is missing", where=where, expected=f"shape {list(want.shape)}")
        have = found[name]
        if have.shape != want.shape:
            raise UserError(
                "a tensor does not have the shape that config.json asks for",
                where=where,
                found=f"shape {list(have.shape)}",
                expected=f"shape {list(want.shape)}",
                fix="use the config.json that was saved with these weights",
            )
        if not have.is_floating_point():
            raise UserError("a tensor holds no floating-point numbers", where=where, found=str(have.dtype))
        broken = int((~torch.isfinite(have)).sum())
        if broken:
            raise UserError(
                "the weights hold NaN or infinity",
                where=where,
                found=f"{broken} of {have.numel()} numbers are not finite",
                expected="finite numbers",
                fix="go back to an earlier checkpoint, and train with a lower learning rate",
            )
    strangers = sorted(set(found) - set(expected))
    if strangers:
        raise UserError(
            "the weights hold tensors this model does not have",
            where=f'{path}, tensor "{strangers[0]}"',
            found=f"{len(strangers)} tensors too many",
            expected=f"only the {len(expected)} tensors of the model in config.json",
        )
