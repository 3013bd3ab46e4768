"""A GPT trained without autograd: it learns a text by heart, and every step is the torch trainer's step."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.objectives.cross_entropy import cross_entropy
from minirlhf.objectives.likelihood import token_log_probs
from minirlhf.reference.block import Shape
from minirlhf.reference.gpt import gpt
from minirlhf.reference.train import initial_weights, train
from minirlhf.trainers.optim import AdamW, OptimConfig, guarded_step

TEXT = "a rose is a rose is a rose"
LETTERS = sorted(set(TEXT))
IDS = np.array([LETTERS.index(letter) for letter in TEXT])
SHAPES = {"gpt2": Shape(1, 2, 2), "llama": Shape(1, 2, 1, "rope", "rms", "swiglu")}


@pytest.mark.parametrize("name", SHAPES)
def test_it_learns_a_text_by_heart(name):
    weights = initial_weights(SHAPES[name], len(LETTERS), len(IDS), width=16, seed=0)
    losses = list(train(weights, SHAPES[name], IDS, steps=100, learning_rate=1e-2))
    assert abs(losses[0] - np.log(len(LETTERS))) < 0.1  # at the start every letter is as likely as the next
    assert losses[-1] < 0.02
    said = [int(logits.argmax()) for logits in gpt(weights, SHAPES[name], IDS[:-1])]
    assert "".join(LETTERS[i] for i in said) == TEXT[1:]


@pytest.mark.parametrize("name", SHAPES)
def test_autograd_takes_the_same_steps(name):
    shape, steps = SHAPES[name], 5
    weights = initial_weights(shape, len(LETTERS), len(IDS), width=8, seed=1)
    config = GPTConfig(
        len(LETTERS),
        context=len(IDS),
        layers=1,
        heads=2,
        kv_heads=shape.kv_heads,
        width=8,
        mlp_width=32,
        positions=shape.positions,
        norm=shape.norm,
        mlp=shape.mlp,
        bias=False,
    )
    model = GPT(config).double()
    model.load_state_dict({key: torch.tensor(weight) for key, weight in weights.items()})
    optim = OptimConfig(learning_rate=3e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, max_grad_norm=0.5)
    optimizer, ids = AdamW(model.named_parameters(), optim), torch.tensor(IDS)[None]
    by_hand = train(weights, shape, IDS, steps, 3e-3, (0.9, 0.99), 1e-8, weight_decay=0.1, max_grad_norm=0.5)
    for wanted in by_hand:
        optimizer.zero_grad()
        loss = cross_entropy(token_log_probs(model(ids[:, :-1]), ids[:, 1:]), torch.ones(1, len(IDS) - 1).bool())
        loss.backward()
        guarded_step(model, optimizer, 3e-3, 0.5)
        assert_allclose(loss.item(), wanted, rtol=1e-9)
    for key, parameter in model.named_parameters():
        # Adam divides by √v: where a gradient is nearly 0 the last digits of two float64 roads differ more.
        assert_allclose(parameter.detach().numpy(), weights[key], rtol=1e-7, atol=1e-9, err_msg=key)
