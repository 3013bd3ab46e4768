"""The device to compute on: cuda, mps or cpu."""

import torch

from minirlhf.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device of this name; "auto" takes cuda, else mps, else cpu. Raises UserError when it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if not there.get(name, False):
        raise UserError(
            f"the device {name!r} is not available" if name in there else f"there is no device called {name!r}",
            expected=" or ".join(["auto", *(device for device, available in there.items() if available)]),
            fix="leave --device out to take the best one there is",
        )
    return torch.device(name)
