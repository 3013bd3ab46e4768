"""Settings for every test: no deadlines, because shared machines stumble, and the same drawn cases every time."""

import os

import pytest

# Before anything imports Triton: its own functions decide when they are defined whether they will be interpreted.
os.environ.setdefault("TRITON_INTERPRET", "1")

from minirlhf.testing.profiles import load_profile

pytest_plugins = ["minirlhf.testing.plugin", "pytester"]

load_profile("laptop")  # --gradcheck-profile and --gradcheck-examples are read after this, and are stronger


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rerun-chapters", action="store_true", help="run the cells of every chapter again")
    parser.addoption("--whole-class", action="store_true", help="grade thirty submissions in tests/course, not six")
