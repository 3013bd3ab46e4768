"""One seed, many independent generators, each known by name.

Every random draw in minirlhf comes from a generator built here from (seed, names...), where the last
name is usually the step. So there is no generator state to carry: a run that is killed and resumed at
step 700 asks for the generators of step 700 and gets exactly the numbers it would have had.
"""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed from a root seed and a path of names, e.g. derive_seed(0, "rollout", rank, step)."""
    path = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(path.encode("utf-8")).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator of its own for this seed and path of names."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator of its own for this seed and path of names."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
