"""Held-out examples, chosen by prompt, so that no prompt is on both sides."""

from collections.abc import Sequence
from typing import TypeVar

from minirlhf.errors import UserError
from minirlhf.records import Conversation, Document, Labelled, Preference, Prompt
from minirlhf.seeding import derive_seed

Item = TypeVar("Item", Conversation, Document, Labelled, Preference, Prompt)


def prompt_key(item: Conversation | Document | Labelled | Preference | Prompt) -> str:
    """What must not be on both sides: the turns before the (last) answer, or the text where there are no turns."""
    if isinstance(item, Document | Labelled):
        return item.text.strip()
    if isinstance(item, Preference):
        turns = item.prompt
    elif isinstance(item, Prompt):
        turns = item.turns
    else:
        last = max((i for i, turn in enumerate(item.turns) if turn.role == "assistant"), default=len(item.turns))
        turns = item.turns[:last]
    return repr([(turn.role, turn.content.strip()) for turn in turns])


def split_by_prompt(items: Sequence[Item], held_out_fraction: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(train, held out): round(fraction x prompts) of the different prompts, at least one, with all their items.

    The choice depends on the prompts and the seed, not on the order of the items; the order within a side is kept.
    Raises UserError for a fraction outside [0, 1), and if there is only one prompt to split.
    """
    if not 0 <= held_out_fraction < 1:
        raise UserError(
            "held_out_fraction is out of range",
            where="--held-out-fraction",
            found=str(held_out_fraction),
            expected="at least 0 and below 1",
            fix="for instance --held-out-fraction 0.1",
        )
    keys = [prompt_key(item) for item in items]
    prompts = sorted(set(keys), key=lambda key: (derive_seed(seed, "held out", key), key))
    if held_out_fraction == 0:
        return list(items), []
    if len(prompts) < 2:
        raise UserError(
            "there is only one prompt, so nothing can be held out",
            where=items[0].source if items else "",
            found=f"{len(items)} examples with {len(prompts)} different prompts",
            expected="at least 2 different prompts",
            fix="give more data, or --held-out-fraction 0 to hold out nothing",
        )
    count = min(max(round(held_out_fraction * len(prompts)), 1), len(prompts) - 1)
    held_out = set(prompts[:count])
    train = [item for item, key in zip(items, keys, strict=True) if key not in held_out]
    return train, [item for item, key in zip(items, keys, strict=True) if key in held_out]
