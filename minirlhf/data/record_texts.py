"""Records read as plain texts, labelled or not."""

from collections.abc import Iterator, Mapping

from minirlhf.data.examples import examples_of
from minirlhf.data.files import DataFile
from minirlhf.data.rows import read_rows
from minirlhf.data.shapes import field_list, likely_text, recognise, record_of
from minirlhf.data.turns import text_of, transcript
from minirlhf.errors import UserError
from minirlhf.records import Document, Labelled, Turn


def record_documents(file: DataFile, encoding: str, fields: Mapping[str, str]) -> Iterator[Document]:
    """Each record's "text", or its "paragraphs" joined by line breaks, or the record itself if it is a string."""
    for row in read_rows(file, encoding):
        if isinstance(row.value, str) and not fields:  # a JSON list of strings
            yield Document(text_of(row.value, row.source, "(the element itself)"), row.source)
            continue
        record = record_of(row, fields)
        paragraphs = record.get("paragraphs")
        if "text" in record:
            yield Document(text_of(record["text"], row.source, "text"), row.source)
        elif isinstance(paragraphs, list) and "text" not in fields:
            lines = [text_of(line, row.source, f"paragraphs[{i}]") for i, line in enumerate(paragraphs)]
            yield Document("\n".join(lines), row.source)
        else:
            shape = recognise(record)
            raise UserError(
                "these records are no plain texts" + (f" but {shape}" if shape else ""),
                where=row.source,
                found=f"fields {field_list(record)}",
                expected='{"text"}, {"paragraphs"} or a list of strings',
                fix=("use minirlhf sft or reward for them, or " if shape else "")
                + f"name the field to read as text: --field text={likely_text(record)}",
            )


def labelled_record(record: dict[str, object], source: str) -> Labelled:
    """{"text","label"}, or a conversation with a true/false label as its transcript."""
    shape = recognise(record)
    if shape is not None and shape.endswith("with a label"):
        example = examples_of(record, shape, source)[0]
        answer = (Turn("assistant", example.answer),) if example.answer is not None else ()
        return Labelled(transcript((*example.prompt, *answer)), str(example.label), source)
    for name in ("text", "label"):
        if name not in record:
            others = [column for column in record if column not in ("text", "label")]
            guess = likely_text(record) if name == "text" else others[0] if len(others) == 1 else "COLUMN"
            raise UserError(
                f"there is no field {name!r}",
                where=f'{source}, field "{name}"',
                found=f"fields {field_list(record)}",
                expected='{"text","label"}',
                fix=f"name the field: --field {name}={guess}",
            )
    label = record["label"]
    if not isinstance(label, str | int | float):  # bool is an int
        text_of(label, source, "label")  # raises
    return Labelled(text_of(record["text"], source, "text"), str(label), source)
