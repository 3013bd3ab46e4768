"""Every benchmark one after the other, then the tables: python -m benchmarks [--quick] [NAME ...]"""

import argparse
import subprocess
import sys
import time

from benchmarks.suite import ROOT
from benchmarks.table import ORDER


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"some of {', '.join(ORDER)}")
    parser.add_argument("--quick", action="store_true", help="one short round of everything, written to runs/bench")
    arguments = parser.parse_args()
    failed = []
    for name in arguments.names or ORDER:
        started = time.perf_counter()
        print(f"== {name} ==", flush=True)
        flags = ["--quick"] if arguments.quick else []
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags], cwd=ROOT, check=False)
        failed += [name] if done.returncode else []
        print(f"== {name}: {time.perf_counter() - started:.0f} s ==\n", flush=True)
    if not arguments.quick:
        subprocess.run([sys.executable, "-m", "benchmarks.table"], cwd=ROOT, check=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
