"""Drawn inputs for a05: momentum and RMSprop, the schedule, AdamW, clipping, the guarded step, and the twist.

Every function draws one case from a generator. eps is large throughout, so that it shows where it is added.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
Floats = NDArray[np.float64]
SHAPES = {"matrix": (3, 2), "bias": (4,), "gain": (), "cube": (2, 1, 3)}


def number(rng: Rng, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 3)


# -- the road to Adam -----------------------------------------------------------------------------------------------


def momentum(rng: Rng, steps: int = 1) -> Case:
    """weight, gradients [steps ...] and velocity: one call, or several in a row."""
    arrays = moving(rng, steps, "velocity")
    settings = [{"value": number(rng, 0.05, 0.5)}, {"value": number(rng, 0.4, 0.95)}]
    return along("momentum_step", arrays, "velocity", settings)


def rmsprop(rng: Rng, steps: int = 1) -> Case:
    """weight, gradients [steps ...] and second: one call, or several in a row."""
    arrays = moving(rng, steps, "second")
    arrays["second"] = arrays["second"] ** 2 + 0.05
    settings = [{"value": number(rng, 0.05, 0.5)}, {"value": number(rng, 0.6, 0.95)}, {"value": number(rng, 0.02, 0.1)}]
    return along("rmsprop_step", arrays, "second", settings)


def moving(rng: Rng, steps: int, state: str) -> Arrays:
    shape = tuple(int(size) for size in rng.integers(2, 5, size=2))
    shapes = {"weight": shape, "gradients": (steps, *shape), state: shape}
    return {name: rng.normal(size=each) for name, each in shapes.items()}


def along(target: str, arrays: Arrays, state: str, settings: list[Any]) -> Case:
    arguments = ["weight", "gradients", state, *settings]
    return Case(Job(target, arguments, numpy=True, play="a05_adamw.plays:along"), arrays)


# -- the schedule ---------------------------------------------------------------------------------------------------


def schedule(rng: Rng, kind: str, warmup: bool = True, edges: bool = False) -> Case:
    """The rates of a whole run. edges: of a run of one step, of one that ends in its warm-up, and beyond the end."""
    total, warm = int(rng.integers(15, 25)), int(rng.integers(3, 7)) if warmup else 0
    runs: list[tuple[int, list[int]]] = [(total, list(range(total)))]
    if edges:
        runs = [(1, [0]), (warm, list(range(warm + 3))), (warm + 1, list(range(warm + 3))), (total, [total, total + 9])]
    config = {
        "learning_rate": number(rng, 0.1, 2.0),
        "warmup_steps": 0 if edges and rng.random() < 0.3 else warm,
        "final_fraction": number(rng, 0.1, 0.4),
        "schedule": kind if kind != "any" else str(rng.choice(["constant", "linear", "cosine"])),
    }
    shown = [f"steps {steps[0]} … {steps[-1]} of {total}" for total, steps in runs]
    arguments = [{"shown": ", ".join(shown)}, {"shown": settings_of(config)}]
    job = Job("learning_rate_at", arguments, play="a05_adamw.plays:rates", setting={"config": config, "runs": runs})
    return Case(job, {})


def settings_of(config: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in config.items())


# -- AdamW ----------------------------------------------------------------------------------------------------------


def adamw(rng: Rng, steps: int = 1, decay: bool = False, late: bool = False) -> Case:
    """Parameters of four shapes, and their gradients [steps ...]. late: some get a gradient only now and then."""
    arrays = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    arrays |= {f"gradients of {name}": rng.normal(size=(steps, *shape)) for name, shape in SHAPES.items()}
    names = list(SHAPES)
    present = [[name for name in names if not late or rng.random() < 0.6] for _ in range(steps)]
    if late:
        present[0], present[-1] = names[:2], names
        present[int(rng.integers(1, steps - 1))] = []
    config = {
        "betas": [number(rng, 0.6, 0.9), number(rng, 0.91, 0.98)],
        "eps": number(rng, 0.02, 0.1),
        "weight_decay": number(rng, 0.2, 0.8) if decay else 0.0,
    }
    setting = {"config": config, "present": present, "rates": [number(rng, 0.05, 0.5) for _ in range(steps)]}
    shown = f"{steps} step{'s' * (steps > 1)} of matrix [3 2], bias [4], gain [], cube [2 1 3]; {settings_of(config)}"
    return Case(Job("AdamW.step", [{"shown": shown}], play="a05_adamw.plays:steps", setting=setting), arrays)


# -- clipping, and the guarded step ---------------------------------------------------------------------------------


def clip(rng: Rng, long: bool = True, infinite: bool = False) -> Case:
    """Three gradients; their norm is above max_norm, below it, or infinite."""
    arrays = {f"gradient {i}": rng.normal(size=size) for i, size in enumerate([(3, 2), (4,), ()])}
    norm = float(np.sqrt(sum((array**2).sum() for array in arrays.values())))
    if infinite:
        arrays["gradient 1"][int(rng.integers(4))] = np.inf
    most = norm * (rng.uniform(0.2, 0.7) if long else rng.uniform(1.3, 3))
    return Case(Job("clip_grad_norm", [{"list": list(arrays)}, {"value": most}], changed=list(arrays)), arrays)


def guarded(rng: Rng, broken: str = "") -> Case:
    """Three gradients of a model, one of them broken by "nan" or "inf" or by none, and a parameter without."""
    arrays = {name: rng.normal(size=size) for name, size in (("first", (3, 2)), ("second", (4,)), ("third", ()))}
    if broken:
        arrays["second"][int(rng.integers(4))] = {"nan": np.nan, "inf": np.inf}[broken]
    setting = {"learning_rate": number(rng, 0.1, 0.9), "max_grad_norm": number(rng, 0.3, 0.9), "broken": broken}
    shown = f"gradients of first, second{broken and f' (with {broken})'}, third"
    arguments = [{"shown": shown}, {"shown": f"learning rate {setting['learning_rate']}"},
                 {"shown": f"max_grad_norm {setting['max_grad_norm']}"}]  # fmt: skip
    return Case(Job("guarded_step", arguments, play="a05_adamw.plays:guarded", setting=setting), arrays)


# -- the twist ------------------------------------------------------------------------------------------------------


def own_rate(rng: Rng, long: bool = False) -> Case:
    """The rates of a whole run; its warm-up is over by step 8."""
    total, peak = int(rng.integers(24, 32)) + 40 * long, number(rng, 0.1, 2.0)
    arguments = [{"shown": f"step 0 … {total - 1}"}, {"value": total}, {"value": peak}]
    return Case(Job("own_rate", arguments, play="a05_adamw.plays:own_rates"), {})


def own_step(rng: Rng, axes: int = 2) -> Case:
    """One step from moments as they might be; some coordinates move far, some little."""
    shape = tuple(int(size) for size in rng.integers(3, 6, size=axes))
    arrays = {name: rng.normal(size=shape) for name in ("weight", "gradient", "start", "first")}
    arrays["second"] = rng.uniform(0.05, 0.6, size=shape)
    arguments = [*arrays, {"value": int(rng.integers(2, 7))}, {"value": number(rng, 0.1, 0.6)}]
    return Case(Job("own_step", arguments), arrays)


CASES: dict[str, Callable[..., Case]] = {
    "momentum": momentum,
    "rmsprop": rmsprop,
    "schedule": schedule,
    "adamw": adamw,
    "clip": clip,
    "guarded": guarded,
    "own_rate": own_rate,
    "own_step": own_step,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
