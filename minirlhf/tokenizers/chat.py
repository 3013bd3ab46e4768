"""Conversations as ids: the chat layout, and which tokens are the assistant's own.

    <|system|>text<|user|>text<|assistant|>answer<|end|><|user|>text<|assistant|>answer<|end|>

A role token opens each turn; only the assistant closes its turns, because only it has to learn when to stop.
Each turn is encoded on its own, so no token straddles two turns, and control tokens named in a turn are text.
"""

from collections.abc import Sequence

from minirlhf.errors import UserError
from minirlhf.records import Turn
from minirlhf.tokenizers.tokenizer import ASSISTANT, SYSTEM, USER, Tokenizer

ROLE_TOKENS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}


def encode_prompt(tokenizer: Tokenizer, turns: Sequence[Turn]) -> list[int]:
    """The turns, and the assistant's role token at the end: ready to be answered.

    Raises UserError for no turns, an unknown role, a turn without text or one whose content is not text.
    """
    ids, _ = encode_conversation(tokenizer, turns)
    return [*ids, tokenizer.control[ASSISTANT]]


def encode_conversation(tokenizer: Tokenizer, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
    """The ids, and for each id whether the assistant wrote it: the text and END of every assistant turn.

    Raises UserError for no turns, an unknown role, a turn without text or one whose content is not text.
    """
    if not turns:
        raise UserError("a conversation has no turns", expected="at least one turn with a role and a text")
    ids: list[int] = []
    assistant_mask: list[bool] = []
    for number, turn in enumerate(turns, start=1):
        _check(turn, number)
        written = tokenizer.encode(turn.content)
        if turn.role == "assistant":
            written.append(tokenizer.end_id)
        ids += [tokenizer.control[ROLE_TOKENS[turn.role]], *written]
        assistant_mask += [False, *[turn.role == "assistant"] * len(written)]
    return ids, assistant_mask


def _check(turn: Turn, number: int) -> None:
    if turn.role not in ROLE_TOKENS:
        raise UserError(
            "a turn of a conversation has an unknown role",
            where=f"turn {number}",
            found=repr(turn.role),
            expected=", ".join(f'"{role}"' for role in ROLE_TOKENS),
        )
    if not isinstance(turn.content, str):
        raise UserError(
            "the content of a turn is not text",
            where=f"turn {number}, role {turn.role!r}",
            found=f"{type(turn.content).__name__} {turn.content!r:.80}",
            expected="text",
        )
    if not turn.content:
        raise UserError(
            "a turn of a conversation is empty",
            where=f"turn {number}, role {turn.role!r}",
            expected="text",
            fix="leave the turn out, or the whole conversation",
        )
