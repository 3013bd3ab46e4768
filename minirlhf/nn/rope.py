"""Rotary position embedding. Su et al. 2021, arXiv:2104.09864, eq. 34.

Each head's K numbers are read as K/2 points of a plane. At position p the i-th point is turned by the angle
p · base^(-2i/K). A dot product of two turned vectors depends only on the difference of their positions.
Point i is the pair (x[i], x[i + K/2]), the layout Llama's checkpoints use, not the paper's (x[2i], x[2i + 1]).
"""

from functools import lru_cache

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]


@lru_cache(maxsize=8)
def rotation_table(context: int, head_width: int, base: float, dtype: torch.dtype, device: torch.device) -> Rotation:
    """cos and sin of every angle, [C K/2] each; reckoned in float64 and only then rounded to dtype."""
    with torch.inference_mode(False):  # a table first asked for in inference mode must still serve training
        frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64, device="cpu") / head_width)  # [K/2]
        angles = torch.outer(torch.arange(context, dtype=torch.float64, device="cpu"), frequencies)  # [C K/2]
        return angles.cos().to(device=device, dtype=dtype), angles.sin().to(device=device, dtype=dtype)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn x [B H T K] by cos, sin of its positions, [T K/2] or [B 1 T K/2]."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
