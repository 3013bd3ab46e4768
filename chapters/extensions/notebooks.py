"""Write the chapters as Jupyter notebooks: python chapters/extensions/notebooks.py build/notebooks

A notebook shows no file but its own, so every listing that a chapter includes is written out, and links are made to
lead from the new folder back to the checkout. The modules that the cells import are copied beside the notebooks.
"""

import ast
import os
import re
import shutil
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent
CHINESE = BOOK / "zh"
LISTING = re.compile(r"^```\{literalinclude\} (\S+)\n((?::[^\n]*\n)*)```$", re.MULTILINE)
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s]+)\)")


def definition(source: str, name: str) -> str:
    """The lines of a function, a class or a method (`Class.method`), with its decorators."""
    node: ast.AST = ast.parse(source)
    for part in name.split("."):
        node = next(
            each
            for each in ast.iter_child_nodes(node)
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name == part
        )
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def listed(match: re.Match[str], home: Path) -> str:
    """A literalinclude directive of a chapter in home as the code it includes."""
    source = (home / match[1]).read_text(encoding="utf-8")
    wanted = re.search(r"^:pyobject: (\S+)$", match[2], re.MULTILINE)
    return f"```python\n{definition(source, wanted[1]) if wanted else source.strip()}\n```"


def on_its_own(text: str, folder: Path, home: Path = BOOK) -> str:
    """The text of a chapter in home with its listings written out, and its links as seen from folder; to a chapter,
    its notebook.
    """

    def moved(match: re.Match[str]) -> str:
        name, hash_sign, place = match[2].partition("#")
        path = (home / name).resolve()
        if path.parent in (BOOK, CHINESE) and re.match(r"\d\d_.*\.md$", path.name):
            notebook = Path(os.path.relpath(path.with_suffix(".ipynb"), home)).as_posix()  # they lie as the chapters do
            return f"{match[1]}{notebook}{hash_sign}{place})"
        return f"{match[1]}{Path(os.path.relpath(path, folder.resolve())).as_posix()}{hash_sign}{place})"

    return LINK.sub(moved, LISTING.sub(lambda match: listed(match, home), text))


def main(folder: Path) -> None:
    import jupytext

    for home in (BOOK, CHINESE):
        target = folder / home.relative_to(BOOK)
        target.mkdir(parents=True, exist_ok=True)
        for module in BOOK.glob("*.py"):
            shutil.copyfile(module, target / module.name)
        for chapter in sorted(home.glob("[0-9][0-9]_*.md")):
            notebook = jupytext.reads(on_its_own(chapter.read_text(encoding="utf-8"), target, home), fmt="md:myst")
            jupytext.write(notebook, target / f"{chapter.stem}.ipynb")
            print(target / f"{chapter.stem}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
