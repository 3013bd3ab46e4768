"""Drawn inputs for a04: the norm, the gated MLP, the decoder's parts, and the twist; the cache's are in cache_cases.py.

Every function draws one case from a generator. Sizes differ from each other, so that axes that were mixed up show.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.assignments.a04_decoder.cache_cases import append, reserve, select
from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
Bools = NDArray[np.bool_]


# -- layers -------------------------------------------------------------------------------------------------------


def standardise(rng: Rng, scale: float = 1.5) -> Case:
    """x [B T D]. At scale 0.003 the variance is as small as eps."""
    x = rng.normal(size=(2, int(rng.integers(3, 5)), int(rng.integers(5, 8)))) * scale + scale
    return Case(Job("standardise", ["x", {"value": 1e-5}]), {"x": x})


def swiglu(rng: Rng) -> Case:
    """SwiGLU.forward on x [B T D], with biases."""
    width, hidden = int(rng.integers(3, 5)), int(rng.integers(5, 8))
    sizes = {
        "to_gate_and_up.weight": (2 * hidden, width),
        "to_gate_and_up.bias": (2 * hidden,),
        "to_out.weight": (width, hidden),
        "to_out.bias": (width,),
    }
    arrays: Arrays = {name: rng.normal(size=size) for name, size in sizes.items()}
    arrays |= {name: rng.normal(size=(2, 3, width)) for name in ("x", "dout")}
    job = Job(
        "SwiGLU.forward",
        ["x"],
        make={"width": width, "hidden": hidden, "bias": True},
        weights={name: name for name in sizes},
        gradients=["x"],
        cotangents=["dout"],
    )
    return Case(job, arrays)


# -- the decoder --------------------------------------------------------------------------------------------------

SHAPE = {"vocab_size": 11, "context": 9, "layers": 1, "heads": 2, "width": 8, "mlp_width": 10}


def padded(rng: Rng, tokens: int, holes: int = 2, first: int = 1) -> Bools:
    """A mask [2 S]: `holes` columns of padding before the first row; one less inside the second, from `first` on."""
    mask = np.ones((2, tokens), dtype=bool)
    mask[0, :holes] = False
    mask[1, rng.choice(np.arange(first, tokens - 2), holes - 1, replace=False)] = False
    return mask


def on_decoder(method: str, arguments: list[Any], arrays: Arrays, weights: Sequence[str] = (), **config: Any) -> Case:
    """A method of a decoder of SHAPE, whose `weights` are the arrays of the same name."""
    job = Job(
        f"GPT.{method}",
        arguments,
        weights={name: name for name in weights},
        play="a04_decoder.plays:decoder",
        setting={"config": SHAPE | config},
    )
    return Case(job, arrays)


def positions(rng: Rng, mask: bool = False) -> Case:
    """ids [B T] behind `seen` cached tokens."""
    tokens, seen = int(rng.integers(3, 5)), int(rng.integers(2, 5))
    arrays: Arrays = {"ids": rng.integers(0, 11, size=(2, tokens))}
    if mask:
        arrays["attention_mask"] = padded(rng, seen + tokens)
    return on_decoder("positions", ["ids", {"value": seen}, masked(arrays)], arrays)


def masked(arrays: Arrays) -> Any:
    return "attention_mask" if "attention_mask" in arrays else {"value": None}


def visible(rng: Rng, mask: bool = False, beyond: bool = False) -> Case:
    """beyond: with padding there are more columns than the context has places."""
    tokens, seen = int(rng.integers(3, 5)), 8 if beyond else int(rng.integers(2, 5))
    arrays: Arrays = {}
    if beyond:
        arrays["attention_mask"] = padded(rng, seen + tokens, holes=4)
    elif mask:
        arrays["attention_mask"] = padded(rng, seen + tokens, first=seen)  # somebody who asks is padding
    return on_decoder("visible", [{"value": tokens}, {"value": seen}, masked(arrays)], arrays)


def embed(rng: Rng, rope: bool = False, per_row: bool = False) -> Case:
    """ids [B T] at positions [T], or [B T] of each row's own."""
    tokens = int(rng.integers(3, 6))
    arrays: Arrays = {
        "ids": rng.integers(0, 11, size=(2, tokens)),
        "positions": rng.integers(1, 9, size=(2, tokens) if per_row else (tokens,)),
        "token_embedding.weight": rng.normal(size=(11, 8)),
    }
    weights = ["token_embedding.weight"]
    if not rope:
        arrays["position_embedding.weight"] = rng.normal(size=(9, 8))
        weights.append("position_embedding.weight")
    return on_decoder("embed", ["ids", "positions"], arrays, weights, positions="rope" if rope else "learned")


def logits(rng: Rng, tied: bool = True) -> Case:
    """x [B T D] against the rows of the embedding, or of an unembedding of its own."""
    names = ["token_embedding.weight", *([] if tied else ["unembedding.weight"])]
    arrays: Arrays = {"x": rng.normal(size=(2, 3, 8))} | {name: rng.normal(size=(11, 8)) for name in names}
    return on_decoder("logits", ["x"], arrays, names, tie_embeddings=tied)


def block(rng: Rng, asked: int | None = None) -> Case:
    """Block.forward on x [B T D], causal, all weights drawn; what joins the stream is faded, as dropout would."""
    tokens, width, hidden = int(rng.integers(3, 5)), 8, 10
    sizes: dict[str, tuple[int, ...]] = {
        "attention_norm.weight": (width,),
        "attention_norm.bias": (width,),
        "attention.to_qkv.weight": (3 * width, width),
        "attention.to_qkv.bias": (3 * width,),
        "attention.to_out.weight": (width, width),
        "attention.to_out.bias": (width,),
        "mlp_norm.weight": (width,),
        "mlp_norm.bias": (width,),
        "mlp.to_hidden.weight": (hidden, width),
        "mlp.to_hidden.bias": (hidden,),
        "mlp.to_out.weight": (width, hidden),
        "mlp.to_out.bias": (width,),
    }
    arrays: Arrays = {name: rng.normal(size=size) * 0.7 for name, size in sizes.items()}
    arrays |= {"x": rng.normal(size=(2, tokens, width)), "visible": np.tri(tokens, dtype=bool)}
    arrays["dout"] = rng.normal(size=(2, asked or tokens, width))
    job = Job(
        "Block.forward",
        ["x", "visible", {"value": None}, {"value": None}, {"value": asked}],
        weights={name: name for name in sizes},
        gradients=["x"],
        cotangents=["dout"],
        play="a04_decoder.plays:block",
        setting={"config": SHAPE},
    )
    return Case(job, arrays)


def hidden(rng: Rng, cached: int = 0, mask: bool = False, asked: int | None = None) -> Case:
    """GPT.hidden on ids [B T], with parts that tell what they were given: `plays.hidden`."""
    tokens = int(rng.integers(3, 5))
    arrays: Arrays = {
        "ids": rng.integers(0, 11, size=(2, tokens)),
        "token_embedding.weight": rng.normal(size=(11, 8)),
        "final_norm.weight": rng.normal(size=8),
        "final_norm.bias": rng.normal(size=8),
    }
    if mask:
        arrays["attention_mask"] = padded(rng, cached + tokens)
    if cached:
        arrays |= {name: rng.normal(size=(3, 2, 1, cached, 8)) for name in ("keys", "values")}
    cache = {"shown": f"a cache with {cached} tokens"} if cached else {"value": None}
    job = Job(
        "GPT.hidden",
        ["ids", masked(arrays), cache, {"value": asked}],
        weights={name: name for name in arrays if "." in name},
        play="a04_decoder.plays:hidden",
        setting={"config": SHAPE | {"layers": 3, "positions": "rope"}, "cached": cached},
    )
    return Case(job, arrays)


# -- the twist ----------------------------------------------------------------------------------------------------


def twisted_norm(rng: Rng, scale: float = 1.5) -> Case:
    """x [B T D] and weight [D], both gradients."""
    width = int(rng.integers(4, 7))
    x = rng.normal(size=(2, 3, width))
    arrays = {"x": (x + 0.1 * np.sign(x)) * scale, "weight": rng.normal(size=width), "dout": rng.normal(size=x.shape)}
    job = Job("twisted_norm", ["x", "weight", {"value": 1e-5}], gradients=["x", "weight"], cotangents=["dout"])
    return Case(job, arrays)


def twisted_block(rng: Rng, tokens: int = 3) -> Case:
    """x [B T D] and four layers in plain sight: gains, a matrix that looks back, one that mixes, one below a tanh."""
    width = int(rng.integers(4, 6))
    arrays: Arrays = {name: rng.normal(size=(2, tokens, width)) for name in ("x", "dout")}
    arrays |= {"first": rng.normal(size=width) + 1, "second": rng.normal(size=width) + 1}
    arrays |= {"mixing": rng.normal(size=(width, width)), "inner": rng.normal(size=(width, width)) * 0.5}
    arrays["look"] = np.tril(rng.uniform(0.2, 1, size=(tokens, tokens)))
    shown = [{"shown": name} for name in ("attention_norm", "attention", "mlp_norm", "mlp")]
    job = Job(
        "twisted_block",
        ["x", *shown],
        gradients=["x", "first", "second"],
        cotangents=["dout"],
        play="a04_decoder.plays:own_block",
    )
    return Case(job, arrays)


def twisted_visible(rng: Rng, mask: bool = True) -> Case:
    """Ten or eleven columns, five or six of them cached."""
    tokens, seen = 5, int(rng.integers(5, 7))
    arrays: Arrays = {"attention_mask": padded(rng, seen + tokens) if mask else np.ones((2, seen + tokens), dtype=bool)}
    return Case(Job("twisted_visible", [{"value": tokens}, {"value": seen}, "attention_mask"]), arrays)


CASES: dict[str, Callable[..., Case]] = {
    "standardise": standardise,
    "swiglu": swiglu,
    "append": append,
    "select": select,
    "reserve": reserve,
    "positions": positions,
    "visible": visible,
    "embed": embed,
    "logits": logits,
    "block": block,
    "hidden": hidden,
    "twisted_norm": twisted_norm,
    "twisted_block": twisted_block,
    "twisted_visible": twisted_visible,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
