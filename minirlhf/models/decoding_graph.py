"""Reading one more token on a GPU without a call from Python for every kernel: a CUDA graph, recorded once, replayed.

A graph repeats the same kernels on the same memory. So nothing in it may depend on how many tokens there are: queries
meet the whole buffer of the cache, what is not written yet is masked, and the place to write to is itself a tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minirlhf.models.gpt import GPT, Then, itself
from minirlhf.nn.cache import Buffers

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""ids int64 [B 1], positions int64 [B 1], visible bool [B 1 1 C], place int64 [1]."""


@dataclass(frozen=True)
class WholeCache:
    """The buffers [B G C K] of a cache, all of which is looked at, and the place int64 [1] that is written next."""

    keys: Buffers
    values: Buffers
    place: Tensor

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v [B G 1 K] at the place; all there is room for, [B G C K]."""
        self.keys[layer].index_copy_(2, self.place, k)
        self.values[layer].index_copy_(2, self.place, v)
        return self.keys[layer], self.values[layer]


def inputs_of(ids: Tensor, attention_mask: Tensor | None, capacity: int, length: int) -> Inputs:
    """What read_whole needs, from what GPT.decode is given: attention_mask bool [B length+1] or None."""
    mask = ids.new_ones((len(ids), length + 1), dtype=torch.bool) if attention_mask is None else attention_mask
    visible = F.pad(mask, (0, capacity - length - 1))[:, None, None, :]
    positions = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    return ids.clone(), positions, visible, torch.full((1,), length, device=ids.device)


def read_whole(model: GPT, inputs: Inputs, keys: Buffers, values: Buffers) -> Tensor:
    """models/gpt.py's read_tokens for one token, logits [B V], in which no shape and no address depends on the length.

    Buffers must hold finite numbers throughout: what is masked gets weight 0, and 0 times NaN would be NaN.
    """
    ids, positions, visible, place = inputs
    x, rotation = model.embed(ids, positions)
    with model.products():
        for block in model.blocks:
            x = block(x, visible, rotation, WholeCache(keys, values, place))
    return model.logits(model.final_norm(x)[:, 0])


Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Work to something that does it again, and the tensor in which its result then stands."""


def record(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """The Recorder of a GPU: a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up in the first call, which must not be recorded
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()
    return graph.replay, out


@dataclass(frozen=True)
class Recording:
    """The graph of one cache's buffers: fill `inputs`, `replay`, and `out` holds the logits [B V]."""

    keys: Buffers
    inputs: Inputs
    replay: Callable[[], None]
    out: Tensor


def replaying(recorder: Recorder = record) -> Callable[..., Any]:
    """A function for GPT.read_one, in read_tokens' place: records when it is given new buffers, replays after that.

    Recorded is the way to the logits; what comes then is done as it is written.
    """
    last: Recording | None = None

    def read_one(
        model: GPT,
        ids: Tensor,
        attention_mask: Tensor | None,
        keys: Buffers,
        values: Buffers,
        length: int,
        then: Then = itself,
        *arguments: Any,
    ) -> Any:
        nonlocal last
        now = inputs_of(ids, attention_mask, keys[0].shape[2], length)
        if last is None or last.keys is not keys:
            for buffer in (*keys, *values):
                buffer[:, :, length:] = 0  # memory nobody has written to may hold anything
            last = Recording(keys, now, *recorder(lambda: read_whole(model, now, keys, values)))
        else:
            for kept, new in zip(last.inputs, now, strict=True):
                kept.copy_(new)
        last.replay()
        return then(last.out.clone(), *arguments)

    return read_one
