"""What the code under test may not do. Portable where Python is; limits of memory and time where the system has them.

This is a fence, not a wall: it stops accidents and the usual attacks from inside Python. The wall is that nothing
worth reading lies behind it: no expected value is computed before the child has ended. Whoever grades strangers'
code runs the whole grading in a container as well.
"""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from torch.overrides import TorchFunctionMode

FORBIDDEN_STATUS = 77
"""The exit status of a child that tried what is forbidden."""

FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill",
    "os.killpg", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink",
    "os.truncate", "os.putenv", "os.unsetenv", "os.chdir", "shutil.", "subprocess.", "socket.", "ctypes.", "signal.",
    "resource.", "pty.", "webbrowser.", "urllib.", "ftplib.", "smtplib.", "http.", "sqlite3.", "tempfile.", "mmap.",
    "code.__new__", "gc.get_objects", "gc.get_referrers", "sys.settrace", "sys.setprofile",
)  # fmt: skip
"""Audit events, or how their names begin, that end the child at once."""


class Banned(Exception):
    """A shortcut the assignment excludes was called."""


def limit(memory_mib: int, seconds: float, output_kib: int) -> None:
    """Caps memory (beyond what is in use), processor time and the size of files, where there is a `resource` module."""
    try:
        import resource
    except ImportError:
        return

    def cap(what: str, amount: int) -> None:
        if hasattr(resource, what):
            hard = resource.getrlimit(getattr(resource, what))[1]
            amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
            resource.setrlimit(getattr(resource, what), (amount, amount))

    cap("RLIMIT_CORE", 0)
    cap("RLIMIT_CPU", int(seconds) + 5)  # the parent's clock comes first; this one needs no parent
    cap("RLIMIT_FSIZE", output_kib * 1024)
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text(encoding="ascii").split()[0])
        cap("RLIMIT_AS", pages * resource.getpagesize() + memory_mib * 1024 * 1024)


def forbid(hidden: Iterable[Path], closed: Iterable[Path], opened: Iterable[Path], say: Callable[[str], None]) -> None:
    """From now on this process reads Python's own files and the library's, and writes nothing.

    Not readable are the `closed` files, and those in `hidden` folders unless they are `opened`.

    It cannot be undone: Python has no way to take an audit hook off.
    """
    package = Path(__file__).resolve().parent.parent
    places = {sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), str(package)}
    places |= {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    readable = (*(os.path.realpath(place) + os.sep for place in places), "/dev/null", "/dev/urandom")
    never, rarely, still = (
        tuple(str(path) for each in paths for path in shadows(each)) for paths in (closed, hidden, opened)
    )
    realpath, write_flags = os.path.realpath, os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC

    sys.dont_write_bytecode = True

    def end(what: str) -> NoReturn:
        say(what)
        os._exit(FORBIDDEN_STATUS)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & write_flags):
                end(f"tried to write {os.fspath(path)!r}")
            name = realpath(os.fsdecode(path))
            if not name.startswith(readable) or name.startswith(never) or (
                name.startswith(rarely) and not name.startswith(still)
            ):  # fmt: skip
                raise PermissionError(f"not yours to read: {os.path.basename(name)}")
        elif event.startswith(FORBIDDEN):
            end(f"tried {event}")

    sys.addaudithook(hook)


def shadows(path: Path) -> list[Path]:
    """A file and its compiled form; a folder as it is."""
    if path.suffix != ".py":
        return [path]
    return [path, Path(importlib.util.cache_from_source(str(path)).partition(".cpython")[0] + ".")]


def ban(names: Iterable[str]) -> None:
    """Every banned function, by its full name, raises from now on, whoever holds it and by whatever name."""
    for name in names:
        owner, _, attribute = name.rpartition(".")
        holder = sys.modules.get(owner)
        if holder is not None and hasattr(holder, attribute):
            setattr(holder, attribute, _refusal(name))
    BannedCalls({name.rpartition(".")[2] for name in names}).__enter__()


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise Banned(f"{name} is not allowed in this assignment")

    return refuse


class BannedCalls(TorchFunctionMode):
    """Sees every call of torch that takes a tensor, also through a name bound before `ban`."""

    def __init__(self, names: set[str]):
        super().__init__()
        self.names = names

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.names:
            raise Banned(f"{func.__name__} is not allowed in this assignment")
        return func(*args, **(kwargs or {}))
