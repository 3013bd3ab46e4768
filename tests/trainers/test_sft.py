"""Supervised fine-tuning: exactly the assistant's tokens count, each with its end token."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.data.batches import conversation_batch
from minirlhf.data.tokenize import TokenizedConversation, tokenize_conversations
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.records import Conversation, TokenBatch, Turn
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.tokenizer import ASSISTANT, USER, byte_tokenizer
from minirlhf.trainers.optim import AdamW, OptimConfig
from minirlhf.trainers.sft import SftConfig, train_sft

TOKENIZER = byte_tokenizer()
TALKS = (
    (("user", "hi"), ("assistant", "ho")),
    (("user", "a longer question"), ("assistant", "yes")),
    (("user", "1"), ("assistant", "2"), ("user", "three?"), ("assistant", "four!")),
)


def conversations(texts=TALKS) -> list[Conversation]:
    return [Conversation(tuple(Turn(role, text) for role, text in turns), "here") for turns in texts]


def tiny_model(dropout: float = 0.0) -> GPT:
    config = GPTConfig(vocab_size=TOKENIZER.vocab_size, context=48, layers=1, heads=2, width=8, dropout=dropout)
    return GPT(config, torch_generator(1, "model")).double()


def batch_of(items: list[TokenizedConversation]) -> TokenBatch:
    return conversation_batch(items, TOKENIZER.pad_id)


def one_step(model: GPT, micro_batches: list[TokenBatch]) -> tuple[float, dict[str, torch.Tensor]]:
    """The first step's loss and the gradients it leaves."""
    model = copy.deepcopy(model)
    config = SftConfig(optim=OptimConfig(max_grad_norm=float("inf")))
    optimizer = AdamW(model.named_parameters(), config.optim)
    report = next(train_sft(model, lambda step: micro_batches, optimizer, config, steps=1))
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return report.metrics["loss_nats_per_token"], found


def test_the_loss_is_that_of_exactly_the_assistants_tokens_added_up_by_hand():
    model = tiny_model()
    total, count = 0.0, 0
    for conversation in conversations():
        ids = []  # written out here, not by the chat layout under test
        for turn in conversation.turns:
            answer = turn.role == "assistant"
            ids.append(TOKENIZER.control[ASSISTANT if answer else USER])
            content = [*turn.content.encode("utf-8"), *([TOKENIZER.end_id] if answer else [])]
            for token in content:
                if answer:
                    logits = model(torch.tensor([ids]))[0, -1]
                    total -= float(logits[token] - torch.logsumexp(logits, 0))
                    count += 1
                ids.append(token)
    items, _ = tokenize_conversations(conversations(), TOKENIZER, 48)
    assert count == sum(len(b) + 1 for b in ("ho", "yes", "2", "four!"))
    assert one_step(model, [batch_of(items)])[0] == pytest.approx(total / count, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    words=st.lists(
        st.tuples(st.text("ab ", min_size=1, max_size=9), st.text("xyz", min_size=1, max_size=9)),
        min_size=2,
        max_size=4,
    ),
    cut=st.integers(1, 3),
)
def test_any_split_into_micro_batches_gives_the_gradient_of_the_whole_batch(words, cut):
    model = tiny_model()
    talks = conversations([(("user", question), ("assistant", answer)) for question, answer in words])
    items, _ = tokenize_conversations(talks, TOKENIZER, 48)
    cut = min(cut, len(items) - 1)
    loss, whole = one_step(model, [batch_of(items)])
    split_loss, split = one_step(model, [batch_of(items[:cut]), batch_of(items[cut:])])
    assert split_loss == pytest.approx(loss, rel=1e-12)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-10, atol=1e-13)


def test_the_mean_of_the_micro_batches_means_would_be_another_gradient():
    """The split above is only a test if weighing parts equally, the usual mistake, would be seen."""
    items, _ = tokenize_conversations(conversations(), TOKENIZER, 48)
    model = tiny_model()
    losses = [one_step(model, [batch_of([item])])[0] for item in items]
    assert abs(sum(losses) / 3 - one_step(model, [batch_of(items)])[0]) > 1e-4


def test_padding_and_what_stands_in_it_changes_nothing():
    model = tiny_model()
    items, _ = tokenize_conversations(conversations(), TOKENIZER, 48)
    batch = batch_of(items)
    ids = torch.cat([batch.ids, torch.full((3, 4), 7)], dim=1)
    for row, item in enumerate(items):
        ids[row, len(item.ids) :] = 7  # junk instead of PAD
    mask = torch.cat([batch.loss_mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    loss, whole = one_step(model, [batch])
    padded_loss, padded = one_step(model, [TokenBatch(ids, mask)])
    assert padded_loss == pytest.approx(loss, rel=1e-13)
    for name, gradient in whole.items():
        torch.testing.assert_close(padded[name], gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_anywhere_and_gone_on_it_ends_bit_identical(stop):
    items, _ = tokenize_conversations(conversations(), TOKENIZER, 48)
    config = SftConfig(optim=OptimConfig(learning_rate=1e-2, warmup_steps=2))

    def batches_at(step):
        return [batch_of([items[step % 3]]), batch_of([items[(step + 1) % 3]])]

    def run(model, optimizer, start, end):
        for report in train_sft(model, batches_at, optimizer, config, 6, seed=2, start_step=start):
            if report.step == end:
                break

    through, stopped, resumed = tiny_model(0.2), tiny_model(0.2), tiny_model(0.2)
    run(through, AdamW(through.named_parameters(), config.optim), 0, 6)
    optimizer = AdamW(stopped.named_parameters(), config.optim)
    run(stopped, optimizer, 0, stop)
    resumed.load_state_dict(stopped.state_dict())
    resumed_optimizer = AdamW(resumed.named_parameters(), config.optim)
    resumed_optimizer.load_state_tensors(optimizer.state_tensors())
    run(resumed, resumed_optimizer, stop, 6)
    assert all(torch.equal(a, resumed.state_dict()[name]) for name, a in through.state_dict().items())
    assert not torch.equal(through.token_embedding.weight, stopped.token_embedding.weight)


@pytest.mark.parametrize(
    ("epochs", "count", "batch", "steps"), [(1, 10, 4, 3), (2, 10, 4, 5), (0.01, 10, 4, 1), (1, 8, 4, 2)]
)
def test_epochs_become_steps(epochs, count, batch, steps):
    assert SftConfig(epochs=epochs, batch_size=batch).steps(count) == steps
