"""The plan of the house, enforced: who may import whom, how long a file may be, and what nobody may call."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minirlhf"
MAX_LINES = 260

FLOORS = {
    "minirlhf": 0, "errors": 0, "records": 0, "seeding": 0, "device": 0,
    "reference": 1, "tokenizers": 1, "testing": 1, "parallel": 1, "tabular": 1,
    "nn": 2, "objectives": 2,
    "models": 3, "data": 3,
    "generation": 4, "rollout": 4,
    "trainers": 5,
    "evaluation": 6,
    "reports": 7, "runs": 7,
    "stages": 8,
    "course": 9,
    "cli": 10, "__main__": 10,
}  # fmt: skip
"""Name below minirlhf -> floor."""


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
WHOLE_TREE = sorted(
    path for folder in ("minirlhf", "tests", "chapters", "benchmarks", "data") for path in (ROOT / folder).rglob("*.py")
)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room(module):
    """The package folder, or the module, that stands directly below minirlhf."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def floor(module):
    return FLOORS[room(module)]


def imports_of(tree, module, is_package):
    """Every minirlhf module a tree imports, wherever it stands; `from package import module` names the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "minirlhf")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            if base.split(".")[0] == "minirlhf":
                for alias in node.names:
                    longer = f"{base}.{alias.name}"
                    yield longer if longer in MODULES else base


GRAPH = {
    name: set(imports_of(parse(path), name, path.name == "__init__.py")) - {name} for name, path in MODULES.items()
}


def find_cycle(graph):
    """A list of names that leads back to its first, or None. Depth-first with the three colours."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for following in sorted(graph.get(name, ())):
            if cycle := visit(following):
                return cycle
        path.pop()
        done.add(name)
        return None

    for name in sorted(graph):
        if cycle := visit(name):
            return cycle
    return None


def test_every_module_has_a_floor():
    strangers = sorted(name for name in MODULES if room(name) not in FLOORS)
    assert not strangers, f"no floor known for {strangers}: add them to FLOORS"


def test_the_root_of_the_package_holds_only_leaves_and_the_door():
    """Everything else has a room."""
    in_the_root = {path.stem for path in PACKAGE.glob("*.py")}
    assert in_the_root == {"__init__", "errors", "records", "seeding", "device", "cli", "__main__"}


def test_imports_go_down_or_stay_on_the_floor():
    upward = [
        f"{name} (floor {floor(name)}) imports {imported} (floor {floor(imported)})"
        for name, imports in GRAPH.items()
        for imported in sorted(imports)
        if floor(imported) > floor(name)
    ]
    assert not upward, "\n".join(upward)


def test_no_cycle_between_modules_nor_between_rooms():
    assert find_cycle(GRAPH) is None
    rooms = {}
    for name, imports in GRAPH.items():
        rooms.setdefault(room(name), set()).update(
            room(imported) for imported in imports if room(imported) != room(name)
        )
    assert find_cycle({name: imports - {"minirlhf"} for name, imports in rooms.items()}) is None


def test_reference_is_an_authority_of_its_own():
    """Only tests, testing, chapters and the grader import it; it imports nothing of ours but itself, and no torch."""
    guests = [name for name, imports in GRAPH.items() if any(room(imported) == "reference" for imported in imports)]
    assert all(room(name) in ("reference", "testing", "course") for name in guests), guests
    for name in (name for name in MODULES if room(name) == "reference"):
        assert all(room(imported) == "reference" for imported in GRAPH[name]), name
        for node in ast.walk(parse(MODULES[name])):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(module.split(".")[0] in ("torch", "einops") for module in modules), name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_are_short(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def forbidden_calls(tree):
    """(line, what) of every text file opened without an encoding and of every call that runs or unpickles data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            for name in names:
                if name.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"):
                    yield node.lineno, f"import of {name}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "torch.load", "torch.save", "numpy.load", "np.load"):
            yield node.lineno, f"{called}()"
        if reads_or_writes_text(node, called) and not any(keyword.arg == "encoding" for keyword in node.keywords):
            yield node.lineno, f"{called}() without encoding="


def reads_or_writes_text(call, called):
    """Is this call open(...), gzip.open(...), path.open(...), path.read_text(...) or a wrapper, in text mode?"""
    method = isinstance(call.func, ast.Attribute)
    name = called.split(".")[-1]
    if name == "TextIOWrapper":
        return len(call.args) < 2  # the encoding may stand second
    if method and name == "read_text":
        return not call.args
    if method and name == "write_text":
        return len(call.args) < 2
    if name != "open" or called in ("os.open", "webbrowser.open"):
        return False
    mode_place = 0 if method and called not in ("gzip.open", "io.open", "lzma.open", "bz2.open") else 1
    modes = [k.value for k in call.keywords if k.arg == "mode"] + call.args[mode_place : mode_place + 1]
    if not modes:
        return called not in ("gzip.open", "lzma.open", "bz2.open")  # these read bytes unless told otherwise
    mode = modes[0]
    if not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)):
        return not method  # archive.open(member) gives bytes; a computed mode should name the encoding
    if called in ("gzip.open", "lzma.open", "bz2.open"):
        return "t" in mode.value
    return "b" not in mode.value and set(mode.value) <= set("rwxat+")


@pytest.mark.parametrize("path", WHOLE_TREE, ids=lambda path: str(path.relative_to(ROOT)))
def test_encodings_are_named_and_nothing_is_unpickled_or_executed(path):
    allowed = (
        {"exec()"} if path == ROOT / "tests" / "helpers" / "run_chapter.py" else set()
    )  # running cells is what it is for
    assert not [found for found in forbidden_calls(parse(path)) if found[1] not in allowed]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("open('a')", "open() without encoding="),
        ("open('a', 'w')", "open() without encoding="),
        ("path.read_text()", "path.read_text() without encoding="),
        ("Path('a').open('r')", "Path('a').open() without encoding="),
        ("gzip.open('a', 'rt')", "gzip.open() without encoding="),
        ("path.open()", "path.open() without encoding="),
        ("open('a', mode='a')", "open() without encoding="),
        ("io.TextIOWrapper(raw)", "io.TextIOWrapper() without encoding="),
        ("path.write_text('a')", "path.write_text() without encoding="),
        ("from pickle import loads", "import of pickle"),
        ("exec('1')", "exec()"),
        ("import pickle", "import of pickle"),
        ("torch.load('a')", "torch.load()"),
        ("eval('1')", "eval()"),
    ],
)
def test_the_watchman_is_awake(source, found):
    assert [what for _, what in forbidden_calls(ast.parse(source))] == [found]


def test_the_watchman_does_not_bark_at_friends():
    good = """
open('a', 'rb'); open('a', encoding='utf-8'); path.open('wb'); path.write_text('', encoding='utf-8'); read_text(path)
model.eval(); f(eval=1); archive.open(member); gzip.open('a'); gzip.open('a', 'rb'); io.TextIOWrapper(raw, encoding)
"""
    assert not list(forbidden_calls(ast.parse(good)))
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
    relative = ast.parse("from . import ppo\nfrom .. import errors\nfrom .masked import masked_mean")
    assert list(imports_of(relative, "minirlhf.objectives.kl", is_package=False)) == [
        "minirlhf.objectives.ppo",
        "minirlhf.errors",
        "minirlhf.objectives.masked",
    ]
