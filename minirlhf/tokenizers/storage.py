"""Tokenizers as files: our own JSON, GPT-2's two files in, a Hugging Face tokenizer.json out."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minirlhf.errors import UserError
from minirlhf.tokenizers.byte_characters import byte_characters
from minirlhf.tokenizers.files import read_json_object, read_text, write_whole
from minirlhf.tokenizers.merges import Pair
from minirlhf.tokenizers.pattern import PATTERNS
from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS, Tokenizer, build_tokenizer

FORMAT = "minirlhf tokenizer"
VERSION = 1


def save_tokenizer(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write the tokenizer to one JSON file, whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "pattern": tokenizer.pattern,
        "control": tokenizer.control,
        "byte_order": [token[0] for token in tokenizer.tokens[:256]],
        "merges": tokenizer.merges,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    write_whole(Path(path), "{\n" + ",\n".join(lines) + "\n}\n")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read what save_tokenizer wrote, from the file or from a folder with a tokenizer.json in it.

    Raises UserError, naming file and field, for a missing, truncated, damaged or foreign file.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    content = read_json_object(path)
    if content.get("format") != FORMAT:
        foreign = "a Hugging Face tokenizer.json" if "model" in content else f"the fields {', '.join(content)[:200]}"
        raise UserError(
            "this is not a tokenizer of minirlhf",
            where=f'{path}, field "format"',
            found=foreign if "format" not in content else repr(content["format"])[:200],
            expected=repr(FORMAT),
            fix="train one with `minirlhf tokenizer`, or import GPT-2's vocab.json and merges.txt",
        )
    _field(path, content, "version", lambda version: version == VERSION, str(VERSION))
    pattern = _field(path, content, "pattern", lambda name: name in list(PATTERNS), " or ".join(PATTERNS))
    byte_order = _field(
        path,
        content,
        "byte_order",
        lambda order: _ints(order) and sorted(order) == [*range(256)],
        "0 to 255, each once",
    )
    merges = _field(path, content, "merges", lambda merges: isinstance(merges, list), "a list of pairs of ids")
    for rank, pair in enumerate(merges):
        known = 256 + rank
        if not (_ints(pair) and len(pair) == 2 and all(0 <= token_id < known for token_id in pair)):
            raise _field_error(path, f"merges[{rank}]", pair, f"two ids from 0 to {known - 1}")
    control = _field(path, content, "control", lambda names: isinstance(names, dict), "an object, control token to id")
    first = 256 + len(merges)
    if list(control.values()) != list(range(first, first + len(control))):
        expected = f"ids counting up from {first}, the number of bytes and merges"
        raise _field_error(path, "control", control, expected)
    try:
        return build_tokenizer([(left, right) for left, right in merges], pattern, byte_order, control)
    except ValueError as error:
        raise UserError("the tokenizer's fields do not fit together", where=str(path), found=str(error)) from None


def import_gpt2(vocab_path: str | Path, merges_path: str | Path) -> Tokenizer:
    """GPT-2's tokenizer from its vocab.json and merges.txt, gzipped or not, with its own ids.

    What vocab.json holds beyond bytes and merges (`<|endoftext|>`) becomes a control token, followed by ours.
    Raises UserError if a file is missing or damaged or the two do not fit together.
    """
    vocab_path, merges_path = Path(vocab_path), Path(merges_path)
    vocab = read_json_object(vocab_path)
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    whole = _ints(list(vocab.values()))
    order = sorted(byte_of, key=lambda character: vocab.get(character, -1)) if whole else []
    if [vocab.get(character) for character in order] != list(range(256)):
        raise UserError(
            "vocab.json does not begin with the 256 bytes",
            where=str(vocab_path),
            found=f"{len(vocab)} entries",
            expected="GPT-2's signs for the 256 bytes with the ids 0 to 255",
            fix="check that this is the vocab.json of a GPT-2 tokenizer",
        )
    merges: list[Pair] = []
    for number, line in enumerate(read_text(merges_path).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.rstrip("\r").split(" ")
        expected_id = 256 + len(merges)
        known = all(vocab.get(part, expected_id) < expected_id for part in parts)
        if len(parts) != 2 or not known or vocab.get("".join(parts)) != expected_id:
            raise UserError(
                "a merge does not fit the vocabulary",
                where=f"{merges_path}:{number}",
                found=f"{line[:100]!r}, which vocab.json gives the id {vocab.get(''.join(parts), 'none')}",
                expected=f"two tokens of {vocab_path.name} with smaller ids that together have the id {expected_id}",
                fix="check that the two files belong together",
            )
        merges.append((vocab[parts[0]], vocab[parts[1]]))
    made = 256 + len(merges)
    extra = sorted((token for token, token_id in vocab.items() if token_id >= made), key=vocab.__getitem__)
    strange = [token for token in extra if not (token.startswith("<") and token.endswith(">"))]
    if strange or [vocab[token] for token in extra] != list(range(made, len(vocab))):
        raise UserError(
            "the vocabulary holds tokens that no merge makes",
            where=str(vocab_path),
            found=f"{len(extra)} tokens beyond the 256 bytes and {len(merges)} merges, e.g. {(strange or extra)[0]!r}",
            expected="only control tokens such as <|endoftext|>",
            fix=f"check that {merges_path} is complete",
        )
    ours = [name for name in CONTROL_TOKENS if name not in extra]
    return build_tokenizer(merges, "gpt2", [byte_of[character] for character in order], [*extra, *ours])


def export_hugging_face(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write a tokenizer.json that the `tokenizers` and `transformers` packages read, with the same ids.

    One difference remains: those packages recognise control tokens inside any text.
    """
    signs = byte_characters()
    spelled = ["".join(signs[byte] for byte in token) for token in tokenizer.tokens]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[tokenizer.pattern]},
        "behavior": "Isolated",
        "invert": False,
    }
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": at, "content": name, **flags} for name, at in tokenizer.control.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {sign: token_id for token_id, sign in enumerate(spelled)},
            "merges": [f"{spelled[left]} {spelled[right]}" for left, right in tokenizer.merges],
        },
    }
    write_whole(Path(path), json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _ints(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)  # True is no id


def _field(path: Path, content: Mapping[str, Any], name: str, right: Callable[[Any], bool], expected: str) -> Any:
    """The value of a field, if it is right."""
    if not right(content.get(name)):
        raise _field_error(path, name, content.get(name), expected)
    return content[name]


def _field_error(path: Path, field: str, found: object, expected: str) -> UserError:
    return UserError(
        "the tokenizer file is damaged or made by another version",
        where=f'{path}, field "{field}"',
        found=repr(found)[:200] if found is not None else "nothing",
        expected=expected,
        fix="save the tokenizer again",
    )
