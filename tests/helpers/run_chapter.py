"""Run the code cells of one chapter in order: python -m tests.helpers.run_chapter chapters/03_attention.md

Each cell is compiled under the chapter's name and at its own lines, so that a traceback points into the chapter.
No cell may reach the network.
"""

import ast
import os
import re
import sys
from pathlib import Path
from types import CodeType
from typing import NamedTuple, NoReturn

CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", re.MULTILINE | re.DOTALL)


class Cell(NamedTuple):
    """The code of a cell, without its options, and the line of the chapter it begins on."""

    source: str
    line: int


def cells(text: str) -> list[Cell]:
    """The code cells of a chapter, in order."""
    found = []
    for match in CELL.finditer(text):
        options = OPTIONS.match(match[1])
        start = match.start(1) + (options.end() if options else 0)
        found.append(Cell(text[start : match.end(1)], text.count("\n", 0, start) + 1))
    return found


def compiled(cell: Cell, chapter: Path) -> CodeType:
    """The code of a cell, which must be plain Python, with the line numbers of its chapter."""
    tree = ast.parse(cell.source, str(chapter))
    return compile(ast.increment_lineno(tree, cell.line - 1), str(chapter), "exec")


def refuse_the_network(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and not isinstance(arguments[1], str):  # a string is a socket on this machine
        raise PermissionError(f"a chapter must run without a network, and this one wants {arguments[1]}")


def main(chapter: Path) -> None:
    """Runs a chapter as its reader would: in its folder, in one namespace, pictures drawn but not shown."""
    codes = [compiled(cell, chapter) for cell in cells(chapter.read_text(encoding="utf-8"))]
    sys.addaudithook(refuse_the_network)
    os.environ["MPLBACKEND"] = "Agg"
    os.chdir(chapter.parent)
    sys.path.insert(0, str(chapter.parent))
    import matplotlib.pyplot as plt

    namespace: dict[str, object] = {"__name__": "__main__"}
    for code in codes:
        exec(code, namespace)
        for number in plt.get_fignums():  # drawn to the end, so that a picture that cannot be painted is noticed
            plt.figure(number).canvas.draw()
        plt.close("all")


def usage() -> NoReturn:
    raise SystemExit(__doc__)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve()) if len(sys.argv) == 2 else usage()
