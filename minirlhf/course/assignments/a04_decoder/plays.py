"""How the child of a04 makes caches, blocks and decoders. Runs beside the student's code: no answer stands here."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from minirlhf.course.jobs import Job, Values, build, callee


class Faded(nn.Module):
    """Stands in for dropout: what passes is 0.6 times what came."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.6


# -- the cache ----------------------------------------------------------------------------------------------------


def cache_of(module: ModuleType, values: Values, length: int, newest: int) -> Any:
    """A KVCache whose buffers [B G C K] are the layers of keys and values [L B G C K]."""
    return module.KVCache(values["keys"].unbind(0), values["values"].unbind(0), length, [newest])


def append(module: ModuleType, job: Job, values: Values) -> tuple[Any, ...]:
    """What comes back, and all buffers afterwards."""
    length, layer = job.setting["length"], job.setting["layer"]
    cache = cache_of(module, values, length, length + values["k"].shape[2])
    returned = cache.append(layer, values["k"], values["v"])
    return (returned, torch.stack(cache.keys), torch.stack(cache.values))


def select(module: ModuleType, job: Job, values: Values) -> tuple[Any, ...]:
    """What the chosen rows hold, and what the original holds after somebody has scribbled over the copy."""
    length = job.setting["length"]
    cache = cache_of(module, values, length, length)
    chosen = cache.select(values["rows"] if "rows" in values else slice(None))
    told = held(chosen)
    for buffer in (*chosen.keys, *chosen.values):
        buffer.fill_(-1.0)
    chosen.newest[0] += 1
    return (told, held(cache))


def held(cache: Any) -> tuple[Any, ...]:
    """keys and values of the tokens a cache knows, its capacity, its length and how far its buffers are written."""
    keys, values = (torch.stack([each[:, :, : cache.length] for each in buffers])
                    for buffers in (cache.keys, cache.values))  # fmt: skip
    return keys.clone(), values.clone(), cache.capacity, cache.length, cache.newest[0]


def reserve(module: ModuleType, job: Job, values: Values) -> tuple[Any, ...]:
    """What the reserved value is, whether it has buffers of its own, and what the original then remembers."""
    setting = job.setting
    cache = cache_of(module, values, setting["length"], setting["newest"])
    refused = False
    if setting["full"]:
        try:
            cache.reserve(setting["tokens"] + 1)
        except ValueError:
            refused = True
    mine = cache.reserve(setting["tokens"])
    shared = mine.keys[0].data_ptr() == cache.keys[0].data_ptr()
    return (held(mine), shared, cache.newest[0], refused)


# -- the decoder --------------------------------------------------------------------------------------------------


def made(module: ModuleType, job: Job, values: Values) -> Any:
    """A decoder in double precision, with the job's weights and Faded for dropout."""
    from minirlhf.models.gpt_config import GPTConfig

    model = module.GPT(GPTConfig(**job.setting["config"])).double()
    model.drop = Faded()
    return with_weights(model, job, values)


def with_weights(layer: Any, job: Job, values: Values) -> Any:
    parameters = dict(layer.named_parameters())
    with torch.no_grad():
        for name, array in job.weights.items():
            parameters[name].copy_(values[array])
    return layer


def decoder(module: ModuleType, job: Job, values: Values) -> Any:
    """A method of a decoder."""
    method = getattr(made(module, job, values), job.target.partition(".")[2])
    return method(*(build(each, values) for each in job.arguments))


def block(module: ModuleType, job: Job, values: Values) -> Any:
    """Block.forward, with Faded for its dropout."""
    from minirlhf.models.gpt_config import GPTConfig
    from minirlhf.nn.attention import eager_attend

    layer = module.Block(GPTConfig(**job.setting["config"]), 0, eager_attend).double()
    layer.drop = Faded()
    return with_weights(layer, job, values)(*(build(each, values) for each in job.arguments))


class ProbeBlock(nn.Module):
    """Stands in for a block: what comes out depends on everything that goes in, and on the block's place."""

    def __init__(self, layer: int):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, visible: Tensor, rotation: Any, cache: Any, asked: Any = None) -> Tensor:
        from minirlhf.nn.attention import of_asked

        keys, values = x[:, None] + self.layer, x[:, None] * 0.5  # [B 1 T D]
        if cache is not None:
            keys, values = cache.append(self.layer, keys, values)
        looked = (visible.to(x) @ (keys + values.sin())).squeeze(1)  # [B T D]
        turned = torch.cat(rotation, dim=-1).sum(dim=-1)[..., None]  # [T 1]
        return of_asked(torch.tanh(x * (1 + self.layer)) + 0.3 * looked + turned, asked)


def hidden(module: ModuleType, job: Job, values: Values) -> tuple[Any, ...]:
    """GPT.hidden of a decoder whose other parts are probes; of the cache, its length and the mark in its buffers."""
    from minirlhf.nn.cache import empty_cache

    model = made(module, job, values)

    def positions(ids: Tensor, seen: int, attention_mask: Tensor | None) -> Tensor:
        return ids.sum(0) + 10 * seen + (0 if attention_mask is None else attention_mask.sum())  # [T]

    def visible(tokens: int, seen: int, attention_mask: Tensor | None) -> Tensor:
        checks = (torch.arange(tokens)[:, None] + torch.arange(seen + tokens)) % 2 == 0  # [T S]
        return checks if attention_mask is None else checks & attention_mask[:, None, None, :]

    def embed(ids: Tensor, positions: Tensor) -> tuple[Tensor, Any]:
        angles = positions[:, None].double()  # [T 1]
        return model.token_embedding(ids), (angles.cos(), angles.sin())

    model.positions, model.visible, model.embed = positions, visible, embed
    model.blocks = nn.ModuleList(ProbeBlock(layer) for layer in range(3))
    ids, mask, _, asked = job.arguments
    cached, cache = job.setting["cached"], None
    if cached:
        keys, tokens = values["keys"], values["ids"].shape[1]
        cache = empty_cache(3, keys.shape[1], 1, cached + tokens, keys.shape[-1], keys).reserve(cached)
        for layer in range(3):
            cache.append(layer, keys[layer], values["values"][layer])
        cache = cache.advance(cached)
    x, grown = model.hidden(build(ids, values), build(mask, values), cache, build(asked, values))
    return (x, None if grown is None else (grown.length, grown.newest[0]))


# -- the twist ----------------------------------------------------------------------------------------------------


def own_block(module: ModuleType, job: Job, values: Values) -> Any:
    """twisted_block with four layers in plain sight."""
    return callee(module, job, values)(
        values["x"],
        lambda x: x * values["first"],
        lambda n: values["look"] @ n @ values["mixing"],
        lambda x: torch.sin(x) * values["second"],
        lambda n: torch.tanh(n @ values["inner"]),
    )
