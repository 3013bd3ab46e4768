"""The decoder: token ids in, logits for the next token out. GPT-2's shape by default; Llama's is a configuration.

GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
Llama: Touvron et al. 2023, arXiv:2302.13971 = positions "rope", norm "rms", mlp "swiglu", bias False, untied.

Dimension letters: B batch, T new tokens, S cached + new tokens, D width, V vocabulary.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from minirlhf.models.gpt_config import MLPS, GPTConfig
from minirlhf.models.initialise import initialise
from minirlhf.nn.attention import Asked, Attend, CausalSelfAttention, eager_attend, of_asked
from minirlhf.nn.cache import AnyCache, Buffers, KVCache, empty_cache
from minirlhf.nn.linear import linear
from minirlhf.nn.norm import LayerNorm, RMSNorm
from minirlhf.nn.rope import Rotation, rotation_table

Then = Callable[..., Any]
"""A callback applied to the logits [B V], with whatever else it is given."""


def itself(logits: Tensor) -> Tensor:
    """The logits as they are."""
    return logits


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the residual stream is only ever added to. [B T D] -> [B T D]."""

    def __init__(self, config: GPTConfig, layer: int, attend: Attend):
        super().__init__()
        self.attention_norm = make_norm(config)
        qk_norm_eps = config.norm_eps if config.qk_norm else None
        self.attention = CausalSelfAttention(
            config.width, config.heads, config.key_value_heads, config.bias, layer, attend, qk_norm_eps
        )
        self.mlp_norm = make_norm(config)
        self.mlp = MLPS[config.mlp](config.width, config.hidden_width, config.bias)
        self.drop = make_dropout(config)

    def forward(
        self, x: Tensor, visible: Tensor, rotation: Rotation | None, cache: AnyCache | None, asked: Asked = None
    ) -> Tensor:
        x = of_asked(x, asked) + self.drop(self.attention(self.attention_norm(x), visible, rotation, cache, asked))
        return x + self.drop(self.mlp(self.mlp_norm(x)))


class GPT(nn.Module):
    """A decoder-only transformer. All weights are drawn from `generator` (seed 0 when none is given).

    `attend` is how attention is computed; the default is the readable definition. `precision` is that of the matrix
    products, whoever asks for them (a rollout, an update, a measurement); None: that of the weights.
    """

    causal: Tensor
    precision: torch.dtype | None = None

    def __init__(self, config: GPTConfig, generator: torch.Generator | None = None, attend: Attend = eager_attend):
        super().__init__()
        self.config = config
        self.read_one: Callable[..., Any] = read_tokens  # or the same compiled: models/speed.py
        with torch.random.fork_rng(devices=[]):  # torch's layers draw weights we replace: leave its generator alone
            self.token_embedding = nn.Embedding(config.vocab_size, config.width)
            learned = config.positions == "learned"
            self.position_embedding = nn.Embedding(config.context, config.width) if learned else None
            self.drop = make_dropout(config)
            self.blocks = nn.ModuleList(Block(config, layer, attend) for layer in range(config.layers))
            self.final_norm = make_norm(config)
            self.unembedding = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        square = torch.ones(config.context, config.context, dtype=torch.bool)
        self.register_buffer("causal", square.tril(), persistent=False)
        initialise(self, config.layers, config.zero_init, generator or torch.Generator().manual_seed(0))

    def hidden(
        self, ids: Tensor, attention_mask: Tensor | None = None, cache: KVCache | None = None, asked: Asked = None
    ) -> tuple[Tensor, KVCache | None]:
        """The residual stream after the final norm, [B T D], and the cache with these T tokens added.

        With asked, only of those tokens: the last block then reads the others and leaves them as they are.

        ids int64 [B T]. attention_mask bool [B S], S = cached + new tokens, True on real tokens; padding may stand
        anywhere, positions do not count it, nobody looks at it, and what comes out at its places means nothing.
        Without a mask every token is real. Raises ValueError when there are more real tokens than the context.
        """
        tokens, seen = ids.shape[1], 0 if cache is None else cache.length
        positions = self.positions(ids, seen, attention_mask)  # [T] or [B T]
        visible = self.visible(tokens, seen, attention_mask)  # [T S] or [B 1 T S]
        x, rotation = self.embed(ids, positions)
        if cache is not None:
            cache = cache.reserve(tokens)
        with self.products():
            for block in self.blocks[:-1]:
                x = block(x, visible, rotation, cache)
            x = self.blocks[-1](x, visible, rotation, cache, asked)
        return self.final_norm(x), None if cache is None else cache.advance(tokens)

    def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Rotation | None]:
        """What the first block reads of ids [B T] at positions [T] or [B T]: x [B T D], and how to turn q and k."""
        x = self.token_embedding(ids)  # [B T D]
        if self.position_embedding is not None:
            return self.drop(x + self.position_embedding(positions)), None
        config = self.config
        cos, sin = rotation_table(config.context, config.head_width, config.rope_base, x.dtype, x.device)
        cos, sin = cos[positions], sin[positions]  # [(B) T K/2]
        return self.drop(x), (cos, sin) if positions.dim() == 1 else (cos.unsqueeze(1), sin.unsqueeze(1))

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None, last: int | None = None) -> Tensor:
        """Logits for the token after each of ids, [B T V], or only of the last `last` positions, [B last V]."""
        x, _ = self.hidden(ids, attention_mask, asked=last)
        return self.logits(x)

    @torch.no_grad()
    def decode(
        self, ids: Tensor, attention_mask: Tensor | None, cache: KVCache, then: Then = itself, *arguments: Any
    ) -> tuple[Any, KVCache]:
        """Logits for the token after the last of ids [B T], [B V], and the cache with ids added. No gradient.

        attention_mask bool [B S] covers the cached tokens and ids; None when no token is padding. With `then`, instead
        of the logits what it makes of them, then(logits, *arguments): compiled decoding compiles it too.
        """
        cache = cache.reserve(ids.shape[1])
        read = self.read_one if ids.shape[1] == 1 else read_tokens
        found = read(self, ids, attention_mask, cache.keys, cache.values, cache.length, then, *arguments)
        return found, cache.advance(ids.shape[1])

    def logits(self, x: Tensor) -> Tensor:
        """How well each token of the vocabulary would come next after x, [... D] -> [... V]."""
        with self.products():
            return linear(x, self.unembedding_weight)

    def products(self) -> AbstractContextManager[object]:
        """Inside, matrix products are of self.precision; weights, norms and the residual stream stay what they are."""
        return nullcontext() if self.precision is None else torch.autocast(self.causal.device.type, self.precision)

    @property
    def unembedding_weight(self) -> Tensor:
        """The matrix [V D] whose rows say what each token looks like from the end of the residual stream."""
        return self.token_embedding.weight if self.unembedding is None else self.unembedding.weight

    def empty_cache(self, batch: int, capacity: int | None = None) -> KVCache:
        """A cache for `batch` rows with room for `capacity` tokens, padding included (the context when not given)."""
        config, places = self.config, self.config.context if capacity is None else capacity
        like = self.token_embedding.weight[:0].to(self.precision)
        return empty_cache(config.layers, batch, config.key_value_heads, places, config.head_width, like)

    def positions(self, ids: Tensor, seen: int, attention_mask: Tensor | None) -> Tensor:
        """Which place in its text each of ids has: [T], or [B T] when padding has to be skipped."""
        if attention_mask is None:
            end = seen + ids.shape[1]
            if end > self.config.context:
                raise ValueError(f"{end} tokens do not fit the context of {self.config.context}")
            return torch.arange(seen, end, device=ids.device)
        expected = (ids.shape[0], seen + ids.shape[1])
        if attention_mask.shape != expected:
            raise ValueError(f"attention_mask has shape {tuple(attention_mask.shape)}, expected {expected}")
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)  # [B S]
        if positions.shape[1] > self.config.context and int(positions.max()) >= self.config.context:
            raise ValueError(f"{int(positions.max()) + 1} tokens do not fit the context of {self.config.context}")
        return positions[:, seen:]

    def visible(self, tokens: int, seen: int, attention_mask: Tensor | None) -> Tensor:
        """Who may look at whom: itself and what came before, padding never. bool [T S] or [B 1 T S]."""
        end = seen + tokens
        if end <= self.config.context:
            causal = self.causal[seen:end, :end]
        else:  # only with padding, which the context does not count
            causal = torch.ones(tokens, end, dtype=torch.bool, device=self.causal.device).tril(seen)
        return causal if attention_mask is None else causal & attention_mask[:, None, None, :]


def read_tokens(
    model: GPT,
    ids: Tensor,
    mask: Tensor | None,
    keys: Buffers,
    values: Buffers,
    length: int,
    then: Then = itself,
    *arguments: Any,
) -> Any:
    """What GPT.decode does, ids [B T] -> then(logits [B V]), with the cache taken apart, as a compiler wants it."""
    x, _ = model.hidden(ids, mask, KVCache(keys, values, length, [length]), asked=1)
    return then(model.logits(x[:, 0]), *arguments)


def make_norm(config: GPTConfig) -> LayerNorm | RMSNorm:
    """The normalisation this configuration asks for."""
    if config.norm == "layer":
        return LayerNorm(config.width, config.bias, config.norm_eps)
    return RMSNorm(config.width, config.norm_eps)


def make_dropout(config: GPTConfig) -> nn.Module:
    """Dropout, or nothing at all where the rate is 0."""
    return nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
