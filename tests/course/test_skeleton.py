"""What is cut out of the library: everything of the answer, and nothing else."""

import ast
import io
import tokenize

import pytest

from minirlhf.course.assignment import TWIST, assignment_names, load_assignment, module_source
from minirlhf.course.handout import handout
from minirlhf.course.kit import draw_twist, skeleton_of
from minirlhf.course.skeleton import cut, functions_of, statements
from minirlhf.errors import UserError

SOURCE = '''import torch


def double(
    x: float,  # [B]
) -> float:
    """Twice x."""
    # how
    y = x + x  # sum

    return y


class Scale:
    factor = 2

    @staticmethod
    def by(x: float) -> float:
        # no docstring
        return x * 2


def after(x):  # stays
    return x
'''
BLANKED = '''import torch


def double(
    x: float,  # [B]
) -> float:
    """Twice x."""
    raise NotImplementedError("Exercise 1: double")


class Scale:
    factor = 2

    @staticmethod
    def by(x: float) -> float:
        raise NotImplementedError("Exercise \\"2\\"")


def after(x):  # stays
    return x
'''
BLANKS = {"double": "Exercise 1: double", "Scale.by": 'Exercise "2"'}


def test_bodies_go_and_everything_else_stays():
    assert cut(SOURCE, BLANKS) == BLANKED
    assert cut(BLANKED, BLANKS) == BLANKED


def test_windows_line_ends_stay():
    assert cut(SOURCE.replace("\n", "\r\n"), BLANKS) == BLANKED.replace("\n", "\r\n")


@pytest.mark.parametrize("name", ["dooble", "Scale", "Scale.to", "factor"])
def test_a_blank_that_names_nothing_is_an_error_that_says_so(name):
    with pytest.raises(UserError, match=f"the blank {name} names nothing") as caught:
        cut(SOURCE, {name: "Exercise 1"})
    assert "double, Scale.by, after" in str(caught.value)


def test_a_body_on_the_line_of_its_def_is_refused():
    with pytest.raises(UserError, match="stands on the line of its def"):
        cut("def f(x): return x\n", {"f": "Exercise 1"})


@pytest.mark.parametrize("name", assignment_names())
def test_the_students_files_hold_no_line_of_the_solution(name):
    """By syntax tree: no statement of a blanked body. By tokens: no line of one, in any file handed out."""
    assignment = load_assignment(name)
    twist = draw_twist(b"", "somebody", assignment)
    given = "\n".join(text for text in handout(assignment, "somebody", b"").values())
    token_lines = {tuple(line) for line in lines_of_tokens(given)}
    for module in assignment.modules:
        skeleton = skeleton_of(assignment, module, twist)
        assert cut(skeleton, assignment.blanks(module)) == skeleton
        left = {ast.dump(node) for node in ast.walk(ast.parse(skeleton)) if isinstance(node, ast.stmt)}
        blanks = {each.name: each for each in assignment.exercises if each.module == module}
        for blank in blanks:
            (only,) = statements(functions_of(ast.parse(skeleton))[blank])
            assert ast.unparse(only) == f"raise NotImplementedError({blanks[blank].message!r})"
        if module == TWIST:
            continue
        source = module_source(module)
        for blank in blanks:
            for statement in statements(functions_of(ast.parse(source))[blank]):
                for node in ast.walk(statement):
                    if isinstance(node, ast.stmt) and not at_the_door(node):
                        assert ast.dump(node) not in left, ast.unparse(node)
                if at_the_door(statement):
                    continue
                for line in lines_of_tokens(ast.get_source_segment(source, statement)):
                    assert tuple(line) not in token_lines, line


def at_the_door(node):
    """A call of a check of arguments, which other functions make as well and which is no part of an answer."""
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and ast.unparse(call.func).lstrip("_").startswith("check")


def lines_of_tokens(text):
    """The tokens of each line that has more than two; a line Python cannot read is split at spaces."""
    for line in text.splitlines():
        try:
            read = [token.string for token in tokenize.generate_tokens(io.StringIO(line.strip()).readline)]
            tokens = [token for token in read if token.strip() and not token.startswith("#")]
        except (tokenize.TokenError, SyntaxError):
            tokens = line.split()
        if len(tokens) > 2:
            yield tokens


@pytest.mark.parametrize("name", assignment_names())
def test_the_files_around_the_answer_compile_and_name_their_exercise(name):
    assignment = load_assignment(name)
    for module in assignment.modules:
        text = skeleton_of(assignment, module, draw_twist(b"", "somebody", assignment))
        compile(text, module, "exec")
        assert all(message in text for message in assignment.blanks(module).values())
