"""The key-value cache: what the tokens so far have already computed, so that a new token costs one token's work."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

Buffers = tuple[Tensor, ...]


class AnyCache(Protocol):
    """Interface of a key-value cache: append one layer's new k, v [B G T K], return all of them, [B G S K]."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class KVCache:
    """Keys and values of the `length` tokens seen so far: a value, passed in and returned.

    keys, values   one buffer per layer, [B G C K]: batch, key-value heads, capacity, head width
    length         how many of the C places hold this value's tokens; the rest is free

    Appending writes into free places, so nothing is copied per token. Two values may share buffers; `newest`
    (shared too) remembers how far they are written, and a value that is no longer the newest copies its part
    before it writes. So every value stays what it was, as if caches were immutable. Not differentiable.
    """

    keys: Buffers
    values: Buffers
    length: int = 0
    newest: list[int] = field(default_factory=lambda: [0])

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def reserve(self, tokens: int) -> "KVCache":
        """The same value with `tokens` free places it may write to. Raises ValueError when the capacity is exceeded."""
        if self.length + tokens > self.capacity:
            raise ValueError(f"the cache has {self.capacity} places, {self.length} are taken, {tokens} more do not fit")
        mine = self if self.newest[0] == self.length else self.select(slice(None))
        mine.newest[0] = mine.length + tokens
        return mine

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v [B G T K] of one layer behind the `length` known ones; all keys and values, [B G S K].

        Call `reserve` before the first layer and `advance` after the last.
        """
        keys, values, tokens = self.keys[layer], self.values[layer], k.shape[2]
        keys.narrow(2, self.length, tokens).copy_(k)
        values.narrow(2, self.length, tokens).copy_(v)
        return keys.narrow(2, 0, self.length + tokens), values.narrow(2, 0, self.length + tokens)

    def advance(self, tokens: int) -> "KVCache":
        """The value after `tokens` more tokens have been appended in every layer."""
        return KVCache(self.keys, self.values, self.length + tokens, self.newest)

    def select(self, rows: Tensor | slice) -> "KVCache":
        """A copy that holds only these rows of the batch (a slice or int64 [b]), in buffers of its own."""

        def copied(buffer: Tensor) -> Tensor:
            filled = buffer[rows, :, : self.length]
            fresh = buffer.new_empty((filled.shape[0], *buffer.shape[1:]))
            fresh[:, :, : self.length] = filled
            return fresh

        return KVCache(tuple(map(copied, self.keys)), tuple(map(copied, self.values)), self.length, [self.length])


def empty_cache(layers: int, batch: int, kv_heads: int, capacity: int, head_width: int, like: Tensor) -> KVCache:
    """A cache with room for `capacity` tokens and nothing in it; dtype and device as `like`."""

    def buffers() -> Buffers:
        return tuple(like.new_empty(batch, kv_heads, capacity, head_width) for _ in range(layers))

    with torch.no_grad():
        return KVCache(buffers(), buffers())
