"""Drawn inputs for a03: rotary positions, grouped products, attention and its layer, and the twist.

Every function draws one case from a generator. Sizes differ from each other within a case, so that axes that were
mixed up show; what must not be read (hidden keys and values) holds large numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator


def rotate(rng: Rng, per_row: bool = False) -> Case:
    """x [B H T K] and cos, sin of random angles, [T K/2] or [B 1 T K/2]."""
    batch, heads, tokens, half = 2, int(rng.integers(1, 4)), int(rng.integers(3, 6)), int(rng.integers(2, 4))
    angles = rng.uniform(-3, 3, size=(batch, 1, tokens, half) if per_row else (tokens, half))
    x = rng.normal(size=(batch, heads, tokens, 2 * half))
    arrays = {"x": x, "cos": np.cos(angles), "sin": np.sin(angles), "dout": rng.normal(size=x.shape)}
    return Case(Job("rotate", ["x", ["cos", "sin"]], gradients=["x"], cotangents=["dout"]), arrays)


def per_group(rng: Rng, group: int = 1, kv_heads: int = 2) -> Case:
    """x [B H T I], y [B G I J], H = G times group."""
    batch, tokens, inner, outer = 2, 3, int(rng.integers(4, 6)), int(rng.integers(2, 8))
    x = rng.normal(size=(batch, kv_heads * group, tokens, inner))
    y = rng.normal(size=(batch, kv_heads, inner, outer))
    arrays = {"x": x, "y": y, "dout": rng.normal(size=(batch, kv_heads * group, tokens, outer))}
    return Case(Job("per_group", ["x", "y"], gradients=["x", "y"], cotangents=["dout"]), arrays)


def attend(
    rng: Rng,
    mask: str = "all",
    group: int = 1,
    scale: float = 1.0,
    gradients: bool = False,
    target: str = "eager_attend",
) -> Case:
    """q [B H T K], k and v [B G S K], visible [B 1 T S]. mask: "all", "causal" (with a padded row) or "empty rows".

    scale multiplies queries and keys: at 30 the matches reach thousands.
    """
    batch, kv_heads, tokens, width = 2, 2, int(rng.integers(3, 5)), int(rng.integers(2, 6))
    seen = tokens + int(rng.integers(1, 3))
    q = rng.normal(size=(batch, kv_heads * group, tokens, width)) * scale
    k, v = (rng.normal(size=(batch, kv_heads, seen, width)) for _ in range(2))
    k = k * scale
    visible = np.ones((batch, 1, tokens, seen), dtype=bool)
    if mask != "all":
        visible &= np.tri(tokens, seen, seen - tokens, dtype=bool)
        visible[0, :, :, 0] = False  # the first row of the batch is padded on the left
    if mask == "empty rows":
        visible[1, :, 0] = False
    arrays = {"q": q, "k": k, "v": v, "visible": visible}
    job = Job(target, ["q", "k", "v", "visible"])
    if gradients:
        arrays["dout"] = rng.normal(size=(*q.shape[:3], width))
        job = Job(target, ["q", "k", "v", "visible"], gradients=["q", "k", "v"], cotangents=["dout"])
    return Case(job, arrays)


def twist(rng: Rng, mask: str = "causal", group: int = 2, scale: float = 1.5) -> Case:
    """The same, with gradients, for the student's own attention."""
    return attend(rng, mask, group, scale, gradients=True, target="twisted_attend")


def layer(
    rng: Rng,
    rotation: bool = False,
    qk_norm: bool = False,
    cached: int = 0,
    asked: int | None = None,
    group: int = 2,
) -> Case:
    """CausalSelfAttention.forward on x [B T D] with drawn weights. Attention is `plays.probe`."""
    batch, tokens, kv_heads, half = 2, 3, 2, 2
    heads, head = kv_heads * group, 2 * half
    width, seen = heads * head, tokens + cached
    arrays: Arrays = {
        "x": rng.normal(size=(batch, tokens, width)),
        "visible": np.tri(tokens, seen, cached, dtype=bool)[None, None].repeat(batch, axis=0),
        "dout": rng.normal(size=(batch, asked or tokens, width)),
    }
    sizes = {"to_qkv.weight": ((heads + 2 * kv_heads) * head, width), "to_qkv.bias": ((heads + 2 * kv_heads) * head,),
             "to_out.weight": (width, width), "to_out.bias": (width,)}  # fmt: skip
    if qk_norm:
        sizes |= {"q_norm.weight": (head,), "k_norm.weight": (head,)}
    arrays |= {name: weight(rng, size) for name, size in sizes.items()}
    named: dict[str, Any] = {}
    if rotation:
        angles = rng.uniform(-3, 3, size=(tokens, half))
        arrays |= {"cos": np.cos(angles), "sin": np.sin(angles)}
        named["rotation"] = ["cos", "sin"]
    if cached:
        arrays |= {name: rng.normal(size=(batch, kv_heads, cached, head)) for name in ("keys", "values")}
        named["cache"] = {"shown": f"a cache with {cached} tokens"}
    make = {
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "bias": True,
        "qk_norm_eps": 1e-6 if qk_norm else None,
    }
    differentiated = not cached  # a cache is written in place, and serves generation only
    return Case(
        Job(
            "CausalSelfAttention.forward",
            ["x", "visible"],
            named,
            make,
            {name: name for name in sizes},
            gradients=["x"] if differentiated else [],
            cotangents=["dout"] if differentiated else [],
            play="a03_attention.plays:layer",
            setting={"capacity": seen + 1} if cached else {},
        ),
        arrays,
    )


def weight(rng: Rng, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Around 1 for gains, small enough elsewhere that nothing saturates."""
    return rng.normal(size=size) * 0.4 + (1.0 if size[0] <= 4 and len(size) == 1 else 0.0)


CASES: dict[str, Callable[..., Case]] = {
    "rotate": rotate,
    "per_group": per_group,
    "attend": attend,
    "layer": layer,
    "twist": twist,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
