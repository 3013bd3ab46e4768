"""Recognising records by their fields, as the ecosystem writes them."""

from collections.abc import Mapping

from minirlhf.data.rows import Row, shown
from minirlhf.errors import UserError

# name -> the fields that make it; the first that matches wins, so the richer shapes stand first
SHAPES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("chosen/rejected answers to conversations", ("conversations", "chosen", "rejected")),
    ("chosen/rejected answers to messages", ("messages", "chosen", "rejected")),
    ("chosen/rejected answers to a prompt", ("prompt", "chosen", "rejected")),
    ("Alpaca with chosen/rejected", ("instruction", "chosen", "rejected")),
    ("chosen/rejected answers to a question", ("question", "chosen", "rejected")),
    ("chosen/rejected transcripts", ("chosen", "rejected")),
    ("two outputs and which is better", ("input", "output_1", "output_2", "label")),
    ("messages with a label", ("messages", "label")),
    ("prompt and completion with a label", ("prompt", "completion", "label")),
    ("messages", ("messages",)),
    ("ShareGPT conversations", ("conversations",)),
    ("instruction with instances", ("instruction", "instances")),
    ("Alpaca", ("instruction", "output")),
    ("prompt and completion", ("prompt", "completion")),
    ("prompt and response", ("prompt", "response")),
    ("question and answer", ("question", "answer")),
    ("labelled text", ("text", "label")),
    ("paragraphs", ("paragraphs",)),
    ("text", ("text",)),
    ("a prompt alone", ("prompt",)),
    ("an instruction alone", ("instruction",)),
    ("a question alone", ("question",)),
)
NO_FIELDS: Mapping[str, str] = {}
FIELDS_OF = dict(SHAPES)
KNOWN_FIELDS = sorted({field for _, fields in SHAPES for field in fields} | {"system"})
MANY_FIELDS = 1000
CONVERSATION_FIELDS = '{"prompt","completion"}, {"instruction","input","output"}, {"messages"}, {"conversations"}, '
CONVERSATION_FIELDS += '{"question","answer"}'
PREFERENCE_FIELDS = '{"prompt","chosen","rejected"}, {"chosen","rejected"}, {"input","output_1","output_2","label"}'


def check_fields(fields: Mapping[str, str]) -> None:
    """Raises UserError for a name on the left of --field NAME=COLUMN that no shape uses."""
    for name in fields:
        if name not in KNOWN_FIELDS:
            raise UserError(
                f"minirlhf has no field {name!r}",
                where=f"--field {name}={fields[name]}",
                expected="one of " + ", ".join(KNOWN_FIELDS),
                fix="write --field OURS=YOURS, for example --field text=review",
            )


def record_of(row: Row, fields: Mapping[str, str]) -> dict[str, object]:
    """The row's fields under the names minirlhf knows; `fields` maps its names to the file's (text -> review)."""
    if not isinstance(row.value, dict):
        raise UserError(
            "the file holds no records",
            where=row.source,
            found=shown(row.value),
            expected='objects with named fields, such as {"text": "…"}',
            fix="this looks like a list of names or numbers; give the file that holds the examples",
        )
    if len(row.value) > MANY_FIELDS:
        raise UserError(
            "this is a table of names, not an example",
            where=row.source,
            found=f"one object with {len(row.value):,} fields, beginning {shown(next(iter(row.value)))}",
            expected="a list of objects with a few fields each",
            fix="give the file that holds the examples; this one looks like a vocabulary or an index",
        )
    record: dict[str, object] = dict(row.value)
    for name, column in fields.items():
        if column not in row.value:
            raise UserError(
                f"there is no field {column!r}",
                where=f'{row.source}, field "{column}"',
                found=f"fields {field_list(row.value)}",
                expected=f"a field to read as {name!r}",
                fix=f"--field {name}=ONE_OF_THESE",
            )
        record[name] = row.value[column]
    return record


def field_list(record: Mapping[str, object]) -> str:
    """The names of a record's fields, at most a dozen."""
    names = [str(name) for name in record]
    return ", ".join(names[:12]) + (f" … ({len(names):,} in all)" if len(names) > 12 else "") or "none"


def recognise(record: Mapping[str, object], fields: Mapping[str, str] = NO_FIELDS) -> str | None:
    """The name of the first shape whose fields are all there; shapes with the fields a person mapped go first.

    A label makes unpaired preferences only if it says true or false.
    """
    mapped = set(fields) - {"input", "system"}
    for name, needed in sorted(SHAPES, key=lambda shape: not mapped.issubset(shape[1])):  # sorted() keeps ties in order
        unpaired = name.endswith("with a label")
        if all(field in record for field in needed) and not (unpaired and as_bool(record["label"]) is None):
            return name
    return None


def likely_text(record: Mapping[str, object]) -> str:
    """The field with the longest text, to suggest in a message; "COLUMN" if there is none."""
    lengths = {name: len(value) for name, value in record.items() if isinstance(value, str)}
    return max(lengths, key=lengths.__getitem__, default="COLUMN")


def as_bool(value: object) -> bool | None:
    """True or False as JSON, CSV and people write them, else None."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False, "1": True, "0": False}.get(str(value).strip().lower())
