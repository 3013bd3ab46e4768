"""Shortcuts found by reading: banned calls, and what no exercise needs. Nothing is run here.

What a file may import is a short list: torch, numpy, einops, a few of Python's own, and of minirlhf exactly what its
skeleton imports. So whatever reaches for the system, the grader or another implementation is seen before it runs; the
sandbox is there for what is hidden too well to be seen.
"""

import ast
from collections.abc import Iterator

from minirlhf.course.assignment import Assignment, allowed_imports, file_name

LARGEST = 256 * 1024
"""Bytes of a file. The longest module of the library has a tenth of it."""

REACHES_OUT = frozenset(
    ("__import__", "open", "exec", "eval", "compile", "globals", "builtins", "importlib",
     "__builtins__", "__subclasses__", "__globals__", "__code__", "__loader__", "__spec__", "__bases__", "__mro__",
     "subprocess", "os", "sys", "ctypes", "gc", "inspect", "from_file", "load", "save", "load_library", "f_back",
     "cpp_extension", "settrace", "setprofile", "tb_frame")
)  # fmt: skip
"""Names that lead out of the exercise, as a name or behind a dot."""


def shortcuts(assignment: Assignment, module: str, source: bytes, skeleton: str) -> list[str]:
    """`attention.py, line 3: …`, a sentence for each. A file that is no Python has none: its tests will say so."""
    if len(source) > LARGEST:
        return [f"{file_name(module)} has {len(source)} bytes; at most {LARGEST} are read"]
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    known = set(imported(ast.parse(skeleton)))
    starter = {name for node in ast.walk(ast.parse(skeleton)) for name in names(node)}
    banned = {full.rpartition(".")[2]: full for full in assignment.banned}
    found = []
    for node in ast.walk(tree):
        line = f"{file_name(module)}, line {getattr(node, 'lineno', 0)}"
        found += [f"{line}: {full} is not allowed in this assignment" for name in names(node)
                  if (full := banned.get(name.rpartition(".")[2]))]  # fmt: skip
        found += [f"{line}: {name} has no place in an exercise" for name in names(node)
                  if name in REACHES_OUT and name not in starter]  # fmt: skip
        if isinstance(node, ast.Import | ast.ImportFrom):
            for what, name in imported(node):
                free = what.partition(".")[0] in allowed_imports(assignment)
                if (what, name) not in known and not (free and not what.startswith("minirlhf")):
                    shown = f"{what}.{name}" if name else what
                    found.append(f"{line}: the import of {shown} is not allowed in this assignment")
    return list(dict.fromkeys(found))


def names(node: ast.AST) -> Iterator[str]:
    """What a node names: a variable, an attribute, an import and where from, a text that may be handed to getattr."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.alias):
        yield node.name.rpartition(".")[2]
    elif isinstance(node, ast.ImportFrom):
        yield from (node.module or "").split(".")
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
        yield node.value


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a tree; name is "" for `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)
