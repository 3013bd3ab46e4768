"""What a road cost: seconds per stage, kept across several sittings, and the most memory held."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirlhf.runs.files import read_json, write_json


@dataclass(frozen=True)
class Clock:
    """Seconds per stage, kept in a file, so that a road walked in several sittings still knows its length."""

    path: Path

    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far, and their total."""
        known = read_json(self.path) if self.path.is_file() else {}
        return {**known, "total": sum(known.values())}

    def time(self, name: str, stage: Callable[[], Any]) -> Any:
        """Runs a stage and adds its seconds to the file, also when it is stopped half-way."""
        print(f"\n== {name} ==", flush=True)
        started = time.perf_counter()
        try:
            return stage()
        finally:
            known = read_json(self.path) if self.path.is_file() else {}
            known[name] = known.get(name, 0.0) + time.perf_counter() - started
            write_json(self.path, known)


def peak_rss_mib() -> float:
    """The most memory this process has held, in MiB; 0.0 on systems that do not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
