"""What an idea needs to be proved: cases, the NumPy formula, its derived gradient, the torch code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

Case = tuple[Any, ...]
Size = Callable[[int, int], int]


@dataclass(frozen=True)
class Idea:
    """formula and torch_code take a drawn case and give a number; gradient gives an array for each argument in wrt.

    kinks gives arrays that change their sign where the idea has no derivative.
    """

    name: str
    cases: st.SearchStrategy[Case]
    formula: Callable[..., float]
    gradient: Callable[..., tuple[Any, ...]]
    torch_code: Callable[..., torch.Tensor]
    wrt: tuple[int, ...]
    kinks: Callable[..., list[np.ndarray]] | None = None


def drawn(build: Callable[[Size, np.random.Generator], Case]) -> st.SearchStrategy[Case]:
    """Cases that build(size, rng) makes: size(low, high) draws a whole number, rng fills arrays."""

    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        return build(lambda low, high: draw(st.integers(low, high)), rng)

    return cases()


def weighed(
    name: str,
    cases: st.SearchStrategy[Case],
    formula: Callable[..., Any],
    gradient: Callable[..., tuple[Any, ...]],
    torch_code: Callable[..., torch.Tensor],
    wrt: tuple[int, ...],
    kinks: Callable[..., list[np.ndarray]] | None = None,
) -> Idea:
    """An idea whose outcome is an array, made a number by weighing it with the case's last argument, dout.

    The gradient of Σ dout · f(x) by x is what f's backward makes of dout; by dout it is f(x) itself.
    """

    def number(*arguments: Any) -> float:
        return float((formula(*arguments[:-1]) * arguments[-1]).sum())

    def back(*arguments: Any) -> tuple[Any, ...]:
        return (*gradient(*arguments), np.asarray(formula(*arguments[:-1])))

    def torch_number(*arguments: Any) -> torch.Tensor:
        return (torch_code(*arguments[:-1]) * arguments[-1]).sum()

    def all_kinks(*arguments: Any) -> list[np.ndarray]:
        return kinks(*arguments[:-1]) if kinks else []

    return Idea(name, cases, number, back, torch_number, (*wrt, -1), all_kinks if kinks else None)
