"""How many cases a property test draws: a laptop's handful, what a merge waits for, or a night of them."""

from collections.abc import Callable
from typing import Any

EXAMPLES = {"laptop": 30, "ci": 200, "overnight": 5000}
"""Profile -> drawn cases a test."""

MISSING = "the strategies and profiles of minirlhf.testing need hypothesis: pip install 'minirlhf[test]'"


def load_profile(name: str = "laptop", examples: int | None = None) -> int:
    """Make a profile hypothesis's default from here on, with another number of examples if given; returns the number.

    No deadlines, because shared machines stumble. "laptop" and "ci" draw the same cases every time, "overnight" new
    ones, and prints how to draw a failing one again. Tests that are already decorated keep what they have.
    Raises: ValueError for an unknown name or a number below 1; ImportError without hypothesis.
    """
    if name not in EXAMPLES:
        raise ValueError(f"there is no profile {name!r}, only {', '.join(EXAMPLES)}")
    count = EXAMPLES[name] if examples is None else examples
    if count < 1:
        raise ValueError(f"at least one example must be drawn, got {count}")
    try:
        from hypothesis import HealthCheck, settings
    except ImportError as error:
        raise ImportError(MISSING) from error
    # The prefix keeps hypothesis's own "ci", which it loads by itself on a build server, what it is.
    profile, overnight = f"minirlhf-{name}", name == "overnight"
    settings.register_profile(
        profile,
        settings.get_profile("default"),
        max_examples=count,
        deadline=None,
        derandomize=not overnight,
        print_blob=overnight,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile(profile)
    return count


def proved(*strategies: Any, share: float = 1.0, **named: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """hypothesis's @given without deadline, for `share` of the examples of the profile (and at least one).

    share is for a test whose cases are slow or, above 1, for one that needs more of them than the others.
    Raises: ValueError unless share is positive; ImportError without hypothesis.
    """
    if not share > 0:
        raise ValueError(f"share must be positive, got {share}")
    try:
        from hypothesis import given, settings
    except ImportError as error:
        raise ImportError(MISSING) from error

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        count = settings().max_examples  # that of the profile
        return settings(max_examples=max(1, round(count * share)), deadline=None)(given(*strategies, **named)(test))

    return decorate
