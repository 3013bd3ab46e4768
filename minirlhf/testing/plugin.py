"""pytest options that say how many cases a property test draws. Without them this plugin does nothing.

    --gradcheck-examples N      N cases a test
    --gradcheck-profile NAME    laptop (30, the default beside a number), ci (200) or overnight (5000)

The environment variable MINIRLHF_GRADCHECK_PROFILE names a profile, too; the option is stronger. Both reach every
@given and @proved test; where a test's own @settings says max_examples, its author has decided, and it stays.

Found by itself where minirlhf is installed; elsewhere `-p minirlhf.testing.plugin`. The entry point has the name of
the module, so that pytest sees one plugin even if a conftest asks for it as well.
"""

import argparse
import os

import pytest

from minirlhf.testing.profiles import EXAMPLES, load_profile

VARIABLE = "MINIRLHF_GRADCHECK_PROFILE"


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"a number of examples is a whole number above 0, got {text!r}")
    return count


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradcheck", "minirlhf: drawn cases of property tests")
    group.addoption("--gradcheck-examples", type=_count, metavar="N", help="cases a hypothesis test draws")
    names = ", ".join(f"{name} ({count})" for name, count in EXAMPLES.items())
    group.addoption("--gradcheck-profile", choices=list(EXAMPLES), metavar="NAME", help=f"settings for {names} cases")


def pytest_configure(config: pytest.Config) -> None:
    examples = config.getoption("--gradcheck-examples")
    name = config.getoption("--gradcheck-profile") or os.environ.get(VARIABLE)
    if examples is None and not name:
        return
    try:
        load_profile(name or "laptop", examples)
    except (ValueError, ImportError) as error:
        raise pytest.UsageError(str(error)) from error
