"""What TRL's methods ask of the trainer they hang on, so that they can be called on tensors of ours.

TRL writes its losses inside methods of trainers that want datasets, configurations and a model to train. The methods
themselves only read attributes and call a model: here they get a record with those attributes, and a model whose
logits after a token are a row of a table, which is the smallest thing with a gradient and a shift to get wrong.
"""

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace

import torch
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


def their_model(table: Tensor) -> Callable[..., SimpleNamespace]:
    """table [V V] as a model of theirs: the logits after token i are row i."""
    return lambda input_ids, **_: SimpleNamespace(logits=table[input_ids])


def our_model(table: Tensor) -> Callable[..., Tensor]:
    """The same as a model of ours."""

    def forward(ids: Tensor, attention_mask: Tensor | None = None, last: int | None = None) -> Tensor:
        return table[ids if last is None else ids[:, -last:]]

    return forward
