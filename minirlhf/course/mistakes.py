"""Planted mistakes that say what a wrong answer looks like: the project's bank, read and run.

The bank's files read like differences (see tests/mutants/bank): a section names a file below minirlhf, a block names
a mistake, `- ` the text it replaces, `+ ` what by. Running one means loading the library's module with that text
replaced, under a name of its own, so that nobody else meets it. The bank is ours; students' code never comes here.
"""

import importlib.machinery
import importlib.util
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from minirlhf.course.assignment import course_folder, module_source
from minirlhf.errors import UserError


@dataclass(frozen=True)
class Planted:
    """In minirlhf/`file`, `before`, which stands there once, becomes `after`."""

    name: str
    file: str
    before: str
    after: str

    @property
    def module(self) -> str:
        return self.file.removesuffix(".py").replace("/", ".")

    def source(self) -> str:
        """The module with the mistake in it."""
        source = module_source(self.module)
        if source.count(self.before) != 1:
            raise UserError(f"the planted mistake {self.name} does not fit minirlhf/{self.file}", found=self.before)
        return source.replace(self.before, self.after)


@cache
def bank() -> dict[str, Planted]:
    """Every planted mistake by its name."""
    found = {}
    for path in sorted(course_folder("bank").glob("*.txt")):
        file = ""
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# ")]
        for block in "\n".join(lines).split("\n\n"):
            head, *rest = block.strip("\n").split("\n")
            if head.startswith("=== "):
                file = head.removeprefix("=== ")
            elif head:
                sides = ["\n".join(line[2:] for line in rest if line[:1] == sign) for sign in "-+"]
                name = head.partition(" ")[0]
                found[name] = Planted(name, file, *sides)
    return found


def planted(name: str) -> Planted:
    if name not in bank():
        raise UserError(f"the bank knows no mistake {name}", where=str(course_folder("bank")))
    return bank()[name]


@cache
def library(module: str) -> ModuleType:
    """The library's own module."""
    return importlib.import_module(f"minirlhf.{module}")


@cache
def mistaken(name: str) -> ModuleType:
    """The module with the planted mistake, beside the real one."""
    mistake = planted(name)
    return load(f"minirlhf_mistake_{name.replace('-', '_')}", mistake.source())


def load(name: str, source: str) -> ModuleType:
    """A module of its own from our own source; it is not entered into sys.modules."""
    loader = _Text(name, f"<{name}>")
    loader.text = source.encode("utf-8")
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, loader))
    loader.exec_module(module)
    return module


class _Text(importlib.machinery.SourceFileLoader):
    text = b""

    def get_data(self, path: str | bytes) -> bytes:
        return self.text

    def path_stats(self, path: str | bytes) -> dict[str, float]:
        raise OSError("never compiled to a file")
