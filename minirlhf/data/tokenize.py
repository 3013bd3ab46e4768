"""Conversations, pairs and prompts as token ids of at most the context's length; whatever had to give is counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from minirlhf.data.reports import ReadReport, Tally
from minirlhf.data.turns import transcript
from minirlhf.errors import UserError
from minirlhf.records import Conversation, Preference, Prompt, Turn
from minirlhf.tokenizers.chat import encode_conversation, encode_prompt
from minirlhf.tokenizers.tokenizer import Tokenizer

Item = TypeVar("Item")


@dataclass(frozen=True)
class TokenizedConversation:
    """ids int64 [T+1]; loss_mask bool [T]: is ids[t+1] a token of the assistant, its end token included?"""

    ids: Tensor
    loss_mask: Tensor
    source: str = ""


@dataclass(frozen=True)
class TokenizedPair:
    """Prompt and answer as one sequence, twice: int64 [T], int64 [T']; they differ somewhere.

    prompt_tokens: how many ids the two have in common because they are the prompt; the answers begin there.
    """

    chosen_ids: Tensor
    rejected_ids: Tensor
    source: str = ""
    prompt_tokens: int = 0


def prompt_text(turns: Sequence[Turn]) -> str:
    """The prompt as a reward function sees it: the bare text of a single user turn, else the transcript."""
    return turns[0].content if len(turns) == 1 and turns[0].role == "user" else transcript(turns)


def prompt_ids_of(turns: Sequence[Turn], tokenizer: Tokenizer) -> list[int]:
    """A prompt's ids; the last one is the assistant token, ready to be answered."""
    return encode_prompt(tokenizer, turns)


def tokenize_conversations(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, context: int
) -> tuple[list[TokenizedConversation], ReadReport]:
    """Ids and loss masks. Whatever is longer than context + 1 ids is cut from the right.

    A conversation of which no counted token is left (its prompt fills the context) is dropped.
    Raises UserError if none remains.
    """
    tally, items = Tally(), []
    for conversation in conversations:
        ids, is_assistant = encode_conversation(tokenizer, conversation.turns)
        loss_mask = is_assistant[1 : context + 1]  # shifted: position t predicts ids[t + 1]
        if not any(loss_mask):
            reason = "longer than the context before the answer begins" if any(is_assistant) else "no assistant token"
            tally.drop(reason, conversation.source)
            continue
        if len(ids) > context + 1:
            tally.change(f"cut to the context of {context} tokens", conversation.source)
        items.append(
            TokenizedConversation(
                torch.tensor(ids[: context + 1], dtype=torch.int64), torch.tensor(loss_mask), conversation.source
            )
        )
    return _some_left(items, tally, len(conversations), context)


def tokenize_preferences(
    preferences: Sequence[Preference],
    tokenizer: Tokenizer,
    context: int,
    too_long: Literal["cut", "drop"] = "cut",
) -> tuple[list[TokenizedPair], ReadReport]:
    """Pairs as ids of at most `context` tokens.

    Longer answers are cut from the right, or their pairs dropped, as `too_long` says. Always dropped: pairs whose
    prompt leaves no room for a token of the answer, and pairs that are the same once they are cut.
    Raises UserError if none remains.
    """
    tally, pairs = Tally(), []
    for preference in preferences:
        chosen, rejected = (
            encode_conversation(tokenizer, (*preference.prompt, Turn("assistant", answer)))[0]
            for answer in (preference.chosen, preference.rejected)
        )
        prompt_tokens = len(encode_prompt(tokenizer, preference.prompt))
        longest = max(len(chosen), len(rejected))
        if prompt_tokens >= context or (too_long == "drop" and longest > context):
            what = "prompt" if prompt_tokens >= context else "pair"
            tally.drop(f"{what} longer than the context of {context} tokens", preference.source)
        elif chosen[:context] == rejected[:context]:
            same = "identical after truncation" if longest > context else "identical as tokens"
            tally.drop(f"{same}", preference.source)
        else:
            if longest > context:
                tally.change(f"cut to the context of {context} tokens", preference.source)
            pairs.append(
                TokenizedPair(
                    torch.tensor(chosen[:context], dtype=torch.int64),
                    torch.tensor(rejected[:context], dtype=torch.int64),
                    preference.source,
                    prompt_tokens,
                )
            )
    return _some_left(pairs, tally, len(preferences), context)


def drop_long_prompts(
    prompts: Sequence[Prompt], tokenizer: Tokenizer, max_prompt_tokens: int
) -> tuple[list[Prompt], ReadReport]:
    """The prompts that leave room for an answer. Raises UserError if none does."""
    tally, kept = Tally(), []
    for prompt in prompts:
        if len(prompt_ids_of(prompt.turns, tokenizer)) <= max_prompt_tokens:
            kept.append(prompt)
        else:
            tally.drop(f"prompt longer than {max_prompt_tokens} tokens", prompt.source)
    return _some_left(kept, tally, len(prompts), max_prompt_tokens)


def _some_left(items: list[Item], tally: Tally, given: int, limit: int) -> tuple[list[Item], ReadReport]:
    report = tally.report(len(items))
    if given and not items:
        reason, count = max(report.dropped.items(), key=lambda item: item[1])
        raise UserError(
            "nothing fits",
            where=f"first at {report.first[reason]}",
            found=f"{given:,} examples, none of which fits: {reason} ({count:,} times)",
            expected=f"examples shorter than {limit:,} tokens",
            fix="a larger --context, a tokenizer with a larger vocabulary, or shorter examples",
        )
    return items, report
