"""What TRL's methods ask of the trainer they hang on, so that they can be called on tensors of ours.

TRL writes its losses inside methods of trainers that want datasets, configurations and a model to train. The methods
themselves only read attributes and call a model: here they get a record with those attributes, and a model whose
logits after a token are a row of a table, which is the smallest thing with a gradient and a shift to get wrong.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor


class OneProcess:
    """accelerate's Accelerator with nobody to talk to."""

    device = torch.device("cpu")
    num_processes, process_index = 1, 0
    is_main_process = sync_gradients = True

    def gather(self, x: Tensor) -> Tensor:
        return x

    def gather_for_metrics(self, x: Tensor) -> Tensor:
        return x

    def reduce(self, x: Tensor, reduction: str) -> Tensor:
        return x

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()


def stand_in(**settings: object) -> SimpleNamespace:
    """A record that passes for a trainer in training, with these settings."""
    shared = {
        "accelerator": OneProcess(),
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None),
        "aux_loss_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    return SimpleNamespace(**{**shared, **settings})


def their_model(table: Tensor, temperature: float = 1.0) -> Callable[..., SimpleNamespace]:
    """table [V V] as a model of theirs: the logits after token i are row i.

    TRL up to 1.13 asks its model for logits, and shifts and normalises them itself. Later releases ask it, with labels
    (-100 where nothing counts) and fused_lm_head, for what they need of every token but the first, at the temperature
    it was given when it was made: here by torch's cross-entropy and distributions, in float64.
    """

    def forward(
        input_ids: Tensor, labels: Tensor | None = None, fused_lm_head: bool = False, **_: object
    ) -> SimpleNamespace:
        logits = table[input_ids]  # [B T V]
        if not fused_lm_head:
            return SimpleNamespace(logits=logits)
        logits, labels = logits[:, :-1] / temperature, labels[:, 1:]
        counts = labels != -100
        return SimpleNamespace(
            log_probs=-F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none"),
            entropy=torch.distributions.Categorical(logits=logits).entropy() * counts,
            mean_logits=logits.detach().mean(-1) * counts,
            is_top1=(logits.argmax(-1) == labels) & counts,
        )

    return forward


def our_model(table: Tensor) -> Callable[..., Tensor]:
    """The same as a model of ours."""

    def forward(ids: Tensor, attention_mask: Tensor | None = None, last: int | None = None) -> Tensor:
        return table[ids if last is None else ids[:, -last:]]

    return forward
