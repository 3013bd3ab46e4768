"""Is this machine ready for the course? Versions, memory, and whether a child process can be limited."""

import importlib.metadata
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from minirlhf import __version__

LEAST_PYTHON = (3, 11)
LEAST = {"torch": (2, 6), "numpy": (1, 26), "einops": (0, 8), "safetensors": (0, 4)}
LEAST_MEMORY_MIB = 2048


@dataclass(frozen=True)
class Finding:
    """One thing looked at: is it fine, and what was found (and expected, if it is not)."""

    what: str
    fine: bool
    says: str


def examine() -> list[Finding]:
    """Everything a student's machine needs, and the version of minirlhf itself."""
    python = Finding("Python", *judged(platform.python_version(), LEAST_PYTHON, "install a newer Python"))
    found = [Finding("minirlhf", True, __version__), python]
    for name, least in LEAST.items():
        try:
            found.append(Finding(name, *judged(importlib.metadata.version(name), least, f"pip install -U {name}")))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, False, f"not installed; pip install {name}"))
    free = free_memory_mib()
    if free is None:
        found.append(Finding("memory", True, "not known on this system"))
    else:
        few = f"; at least {LEAST_MEMORY_MIB} MiB are wanted: close what you do not need"
        found.append(
            Finding("memory", free >= LEAST_MEMORY_MIB, f"{free} MiB free{'' if free >= LEAST_MEMORY_MIB else few}")
        )
    return [*found, Finding("limits", True, limits())]


def judged(version: str, least: tuple[int, ...], fix: str) -> tuple[bool, str]:
    """(is it new enough, what to say)."""
    digits = [int("".join(letter for letter in part if letter.isdigit()) or 0) for part in version.split(".")[:2]]
    fine = tuple(digits) >= least
    return fine, version if fine else f"{version}, at least {'.'.join(map(str, least))} is needed: {fix}"


def free_memory_mib() -> int | None:
    """Memory that can be had without swapping, where the system tells."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    return None


def limits() -> str:
    if sys.platform == "linux":
        return "time, memory and output of a test are limited"
    return "time and output of a test are limited; memory only on Linux"
