"""Settings for every test: no deadlines, because shared machines stumble, and the same drawn cases every time."""

from typing import Any

from hypothesis import settings

settings.register_profile("minirlhf", deadline=None, derandomize=True)
settings.load_profile("minirlhf")


def pytest_make_parametrize_id(config: Any, val: Any, argname: str) -> str | None:
    """A function is shown by its name, not by its address: two workers must collect the same tests."""
    return argname if callable(val) and getattr(val, "__name__", "") == "<lambda>" else None
