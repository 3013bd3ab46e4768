"""Records of every conversational shape, read as one kind: Example."""

from collections.abc import Mapping
from dataclasses import dataclass

from minirlhf.data.rows import shown
from minirlhf.data.shapes import FIELDS_OF, as_bool
from minirlhf.data.turns import is_transcript, parse_transcript, parse_turn, parse_turns, text_of
from minirlhf.errors import UserError
from minirlhf.records import Turn


@dataclass(frozen=True)
class Example:
    """One record of any conversational shape: a prompt and what is known about answers to it.

    prompt    the turns before the (last) answer
    answer    the answer, the better one of two; None if there is none
    rejected  the worse answer of two, or None
    label     for unpaired preferences: was the answer liked?
    unanswered  the whole conversation, if it ends with a user's turn after an answer
    defect    why this record cannot be used, in words for a report, or ""
    """

    prompt: tuple[Turn, ...]
    answer: str | None
    rejected: str | None = None
    label: bool | None = None
    defect: str = ""
    unanswered: tuple[Turn, ...] = ()


def examples_of(record: Mapping[str, object], shape: str, where: str) -> list[Example]:
    """The record as examples; only an instruction with instances makes several. Raises UserError naming the field."""
    if "chosen" in FIELDS_OF[shape]:
        return [_pair(record, shape, where)]
    if shape == "two outputs and which is better":
        return [_better_of_two(record, where)]
    if shape == "instruction with instances":
        return _instances(record, where)
    label = as_bool(record["label"]) if shape.endswith("with a label") else None
    for field in ("messages", "conversations"):
        if field in FIELDS_OF[shape]:
            return [_split_last_answer(_system(record, where) + parse_turns(record[field], where, field), label)]
    prompt = _prompt(record, FIELDS_OF[shape][0], where)
    if len(FIELDS_OF[shape]) == 1:
        return [Example(prompt, None)]
    field = FIELDS_OF[shape][1]
    return [Example(prompt, _answer(record[field], where, field), label=label)]


def _system(record: Mapping[str, object], where: str) -> tuple[Turn, ...]:
    text = record.get("system")
    return (Turn("system", text_of(text, where, "system")),) if text else ()


def _prompt(record: Mapping[str, object], field: str, where: str) -> tuple[Turn, ...]:
    """The turns before the answer, from a prompt, a question, an instruction and its input, or turns."""
    system = _system(record, where)
    if field != "instruction":
        turns = parse_turns(record[field], where, field)
        return system + (turns[:-1] if turns and turns[-1] == Turn("assistant", "") else turns)
    text = text_of(record["instruction"], where, "instruction")
    more = record.get("input")
    if more is not None and text_of(more, where, "input").strip():
        text = f"{text}\n\n{more}"
    return (*system, Turn("user", text))


def _answer(value: object, where: str, field: str) -> str:
    """An answer: a string, a turn, or a list that ends with one. Several strings do not say which is to be learnt."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(answer, str) for answer in value):
        raise UserError(
            "several answers where one is expected",
            where=f'{where}, field "{field}"',
            found=shown(value),
            expected='one answer as a text; for a better and a worse one, the fields "chosen" and "rejected"',
            fix="write the answer to learn alone, or a record for each",
        )
    if isinstance(value, list) and value:
        return _answer(value[-1], where, f"{field}[{len(value) - 1}]")
    if isinstance(value, dict):
        return parse_turn(value, where, field).content
    return text_of(value, where, field)


def _split_last_answer(turns: tuple[Turn, ...], label: bool | None = None) -> Example:
    """Everything before the last assistant turn is the prompt; what comes after it teaches nothing, but may ask."""
    unanswered = turns if turns and turns[-1].role == "user" else ()
    for position in range(len(turns) - 1, -1, -1):
        if turns[position].role == "assistant":
            return Example(turns[:position], turns[position].content, label=label, unanswered=unanswered)
    return Example(turns, None, label=label)


def _pair(record: Mapping[str, object], shape: str, where: str) -> Example:
    chosen, rejected = record["chosen"], record["rejected"]
    own_prompt = () if shape == "chosen/rejected transcripts" else _prompt(record, FIELDS_OF[shape][0], where)
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _from_shared_prefix(
            parse_turns(chosen, where, "chosen"), parse_turns(rejected, where, "rejected"), own_prompt
        )
    if own_prompt:
        return Example(own_prompt, _answer(chosen, where, "chosen"), _answer(rejected, where, "rejected"))
    texts = text_of(chosen, where, "chosen"), text_of(rejected, where, "rejected")
    for text, field in zip(texts, ("chosen", "rejected"), strict=True):
        if not is_transcript(text):
            raise UserError(
                "the pair has no prompt",
                where=f'{where}, field "{field}"',
                found=shown(text),
                expected='a transcript that begins "\\n\\nHuman: …", or a field "prompt"',
                fix="name the field that holds the prompt: --field prompt=COLUMN",
            )
    return _from_shared_prefix(parse_transcript(texts[0]), parse_transcript(texts[1]), ())


def _from_shared_prefix(chosen: tuple[Turn, ...], rejected: tuple[Turn, ...], own_prompt: tuple[Turn, ...]) -> Example:
    """Two whole conversations that differ in their last turn only."""
    if not chosen or not rejected or chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        return Example(own_prompt, None, defect="a conversation that does not end with an answer")
    if chosen[:-1] != rejected[:-1]:
        return Example(own_prompt, None, defect="the conversations differ before the last answer")
    prefix = chosen[:-1]
    retold = (*prefix, chosen[-1])  # "messages" beside a pair tells the chosen conversation once more
    prompt = prefix if own_prompt == retold or prefix[: len(own_prompt)] == own_prompt else own_prompt + prefix
    return Example(prompt, chosen[-1].content, rejected[-1].content)


def _better_of_two(record: Mapping[str, object], where: str) -> Example:
    label = str(record["label"]).strip()
    if label not in ("1", "2"):
        raise UserError(
            "the label does not say which output is better",
            where=f'{where}, field "label"',
            found=shown(record["label"]),
            expected="1 or 2",
            fix="leave out ties",
        )
    outputs = [text_of(record[field], where, field) for field in ("output_1", "output_2")]
    prompt = _prompt(record, "input", where)
    return Example(prompt, outputs[label == "2"], outputs[label == "1"])


def _instances(record: Mapping[str, object], where: str) -> list[Example]:
    instances = record["instances"]
    if not isinstance(instances, list) or not all(isinstance(i, dict) and "output" in i for i in instances):
        raise UserError(
            "the instances are not complete",
            where=f'{where}, field "instances"',
            found=shown(instances),
            expected='a list of {"input", "output"}',
        )
    return [
        Example(
            _prompt({**record, "input": instance.get("input", "")}, "instruction", where),
            text_of(instance["output"], where, f"instances[{position}].output"),
        )
        for position, instance in enumerate(instances)
    ]
