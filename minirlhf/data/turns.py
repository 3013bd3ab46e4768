"""Turns of a conversation, from the ways people write them: message lists, ShareGPT, Human/Assistant transcripts."""

import re
from collections.abc import Sequence

from minirlhf.errors import UserError
from minirlhf.records import Turn

ROLE_OF = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
SPEAKER_OF = {"system": "System", "user": "Human", "assistant": "Assistant"}
_SPEAKER = re.compile(r"(?:\A\n\n|\A|\n\n)(System|Human|Assistant):")


def transcript(turns: Sequence[Turn]) -> str:
    """Turns as text: before each a blank line, the speaker and a colon, as "\\n\\nHuman: Hi\\n\\nAssistant: Yes"."""
    return "".join(f"\n\n{SPEAKER_OF[turn.role]}: {turn.content}" for turn in turns)


def is_transcript(text: str) -> bool:
    return _SPEAKER.match(text) is not None


def parse_transcript(text: str) -> tuple[Turn, ...]:
    """The inverse of `transcript`: one space after the colon belongs to the mark, everything else to the turn.

    A text that itself holds "\\n\\nHuman:" cannot be told from a new turn; this form has no way to say so.
    """
    marks = list(_SPEAKER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return tuple(
        Turn(ROLE_OF[mark[1].lower()], text[mark.end() : end].removeprefix(" "))
        for mark, end in zip(marks, ends, strict=True)
    )


def text_of(value: object, where: str, field: str) -> str:
    """The value, if it is a string that can be written as UTF-8. Raises UserError naming the field otherwise."""
    if not isinstance(value, str):
        raise UserError(
            f"the field {field!r} is not a text",
            where=f'{where}, field "{field}"',
            found=f"{_kind(value)}",
            expected="a string",
            fix="write it as a string, or take another field: --field NAME=COLUMN",
        )
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                "half a character: a surrogate without its partner",
                where=f'{where}, field "{field}"',
                found=f"\\u{ord(value[error.start]):04x} at character {error.start + 1}",
                expected="complete Unicode text",
                fix="repair the escape in the file, or write it as \\ufffd",
            ) from error
    return value


def parse_turn(value: object, where: str, field: str) -> Turn:
    """{"role", "content"} or ShareGPT's {"from", "value"}."""
    if isinstance(value, dict):
        for role_field, text_field in (("role", "content"), ("from", "value")):
            if role_field in value and text_field in value:
                role = ROLE_OF.get(str(value[role_field]).lower())
                if role is None:
                    raise UserError(
                        "an unknown role",
                        where=f'{where}, field "{field}.{role_field}"',
                        found=repr(value[role_field]),
                        expected=", ".join(ROLE_OF),
                        fix="rename the role, or leave this conversation out; tool calls are not learnt from",
                    )
                return Turn(role, text_of(value[text_field], where, f"{field}.{text_field}"))
    raise UserError(
        "a turn is not complete",
        where=f'{where}, field "{field}"',
        found=f"fields {', '.join(map(str, value))}" if isinstance(value, dict) else _kind(value),
        expected='{"role", "content"} or {"from", "value"}',
        fix="give every turn a role and a text",
    )


def parse_turns(value: object, where: str, field: str) -> tuple[Turn, ...]:
    """A list of turns, or a string: a transcript if it begins like one, else one user turn."""
    if isinstance(value, list):
        return tuple(parse_turn(turn, where, f"{field}[{position}]") for position, turn in enumerate(value))
    if isinstance(value, str):
        text = text_of(value, where, field)
        return parse_transcript(text) if text.startswith("\n\n") and is_transcript(text) else (Turn("user", text),)
    raise UserError(
        f"the field {field!r} is neither a text nor a list of turns",
        where=f'{where}, field "{field}"',
        found=_kind(value),
        expected='a string, or a list of {"role", "content"}',
    )


def _kind(value: object) -> str:
    if value is None:
        return "null (nothing)"
    names = {bool: "true/false", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return f"{names.get(type(value), type(value).__name__)}: {str(value)[:40]!r}"
