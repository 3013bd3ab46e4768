"""Cutting the exercise out of the solution: named function bodies become `raise NotImplementedError`.

The library is the only source. What stays of a blanked function is its signature with the comments in it, its
decorators and its docstring; everything else of the file stays as it is, byte for byte.
"""

import ast
from collections.abc import Mapping

from minirlhf.errors import UserError

Function = ast.FunctionDef | ast.AsyncFunctionDef


def cut(source: str, blanks: Mapping[str, str], where: str = "") -> str:
    """The source with every function of `blanks` (name -> message of its NotImplementedError) emptied.

    A name is `function` or `Class.method`. Cutting what has been cut changes nothing.
    Raises: UserError if a name is not a function of the source, or its body stands on the line of its `def`.
    """
    functions = functions_of(ast.parse(source))
    lines = source.splitlines(keepends=True)
    spans = []
    for name, message in blanks.items():
        if name not in functions:
            raise UserError(
                f"the blank {name} names nothing", where=where, expected=", ".join(functions) or "a file with functions"
            )
        first, last = body_lines(functions[name], lines)
        if first <= signature_end(functions[name]):
            raise UserError(f"the body of {name} stands on the line of its def", where=where, fix="give it lines")
        spans.append((first, last, message))
    for first, last, message in sorted(spans, reverse=True):  # from the bottom, so that the numbers above stay right
        text = lines[last - 1]
        margin = next(line for line in lines[first - 1 : last] if line.strip() and not line.lstrip().startswith("#"))
        indent = margin[: len(margin) - len(margin.lstrip())]
        ending = text[len(text.rstrip("\r\n")) :] or "\n"
        lines[first - 1 : last] = [f"{indent}raise NotImplementedError({_quoted(message)}){ending}"]
    return "".join(lines)


def functions_of(tree: ast.Module) -> dict[str, Function]:
    """Every function of the module and every method of its classes, by the name a blank calls it."""
    found: dict[str, Function] = {}
    for node in tree.body:
        if isinstance(node, Function):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}": each for each in node.body if isinstance(each, Function)}
    return found


def statements(function: Function) -> list[ast.stmt]:
    """The body without its docstring."""
    return function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body


def signature_end(function: Function) -> int:
    """The last line that certainly belongs to the signature or the docstring."""
    if ast.get_docstring(function, clean=False) is not None:
        return function.body[0].end_lineno or function.lineno
    ends = [function.returns, *function.args.args, *function.args.kwonlyargs, *function.args.posonlyargs]
    return max([function.lineno, *(node.end_lineno or 0 for node in ends if node is not None)])


def body_lines(function: Function, lines: list[str]) -> tuple[int, int]:
    """First and last line, counted from 1, of what is cut: statements, and the comments right above the first one."""
    body = statements(function)
    if not body:  # a docstring alone: the exception goes below it
        raise UserError(f"{function.name} has no body to cut", expected="a function that does something")
    first, last = body[0].lineno, body[-1].end_lineno or body[-1].lineno
    while first - 1 > signature_end(function) and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return first, last


def _quoted(message: str) -> str:
    return '"' + message.replace("\\", "\\\\").replace('"', '\\"') + '"'
