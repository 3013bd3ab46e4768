"""The book: every cell runs, every listing, link, command and name is there, and nothing is pasted.

Running a chapter takes its time, so a chapter that passed is not run again until it, the library, the shipped data or
what the chapters import has changed; --rerun-chapters runs them all. The cache is pytest's, in .pytest_cache. The
models that several chapters share are kept too, in build/village: chapters/village.py.
"""

import ast
import hashlib
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest

from chapters.extensions.notebooks import on_its_own
from minirlhf.reports.glossary import GLOSSARY
from tests.helpers.documents import (
    commands,
    commands_understood,
    known_flags,
    links,
    make_targets,
    named_flags,
    prose,
    spans,
)
from tests.helpers.run_chapter import cells

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "chapters"
CHAPTERS = sorted(path.name for path in BOOK.glob("[0-9][0-9]_*.md"))
CHINESE = sorted(path.relative_to(BOOK).as_posix() for path in BOOK.glob("zh/[0-9][0-9]_*.md"))
EDITIONS = [*CHAPTERS, *CHINESE]
PAGES = ["index.md", *EDITIONS]
LIMIT = 300  # seconds for a chapter on a busy machine, its models still to be trained; most take less than 40
PASTED = 4  # so many lines in a row from the library are a paste; a call may look like one of its own by chance
DIRECTIVE = re.compile(r"^```\{literalinclude\} (\S+)\n((?::[^\n]*\n)*)```\n+([^\n]*)", re.MULTILINE)
OUTSIDE = ("torch", "numpy", "matplotlib", "hypothesis")


def text_of(page: str) -> str:
    return (BOOK / page).read_text(encoding="utf-8")


def folder_of(page: str) -> Path:
    """Where a page's links begin."""
    return (BOOK / page).parent


def headings(text: str) -> list[tuple[int, str]]:
    """(depth, title) of every heading outside fences and header."""
    body = re.sub(r"\A---\n.*?^---\n", "", prose(text), flags=re.MULTILINE | re.DOTALL)
    return [(len(marks), title.strip()) for marks, title in re.findall(r"^(#+) (.+)$", body, re.MULTILINE)]


def test_there_is_a_book():
    assert "03_attention.md" in CHAPTERS


# -- every cell runs ------------------------------------------------------------------------------------------------


def state(chapter: str) -> str:
    """A name for everything a chapter's outcome can depend on."""
    digest = hashlib.sha256(f"{platform.python_version()} {[version(name) for name in OUTSIDE]}".encode())
    used = [
        BOOK / chapter,
        *BOOK.glob("*.py"),
        ROOT / "data" / "SHA256SUMS",
        Path(__file__).parent / "helpers" / "run_chapter.py",
    ]
    for path in [*used, *sorted((ROOT / "minirlhf").rglob("*.py"))]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run(chapter: Path, scratch: Path, village: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The chapter in a process of its own, whose temporary files and caches lie in scratch.

    The models that chapters share are taken from the folder `village` and put there; from the usual one without it.
    """
    environment = os.environ | {
        "TMPDIR": str(scratch),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT),
    }
    if village is not None:
        environment["MINIRLHF_VILLAGE"] = str(village)
    command = [sys.executable, "-m", "tests.helpers.run_chapter", str(chapter)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=LIMIT
    )


def files_of_the_book() -> set[Path]:
    return {path for path in BOOK.rglob("*") if not {"__pycache__", ".hypothesis"} & {*path.parts}}


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_cell_runs(chapter, tmp_path, tmp_path_factory, pytestconfig, record_property):
    cache, rerun = getattr(pytestconfig, "cache", None), pytestconfig.getoption("--rerun-chapters")
    key, now = f"minirlhf/{Path(chapter).stem}", state(chapter)
    if cache and not rerun and cache.get(key, None) == now:
        return
    before, started = files_of_the_book(), time.monotonic()
    outcome = run(BOOK / chapter, tmp_path, tmp_path_factory.getbasetemp() / "village" if rerun else None)
    record_property("seconds", time.monotonic() - started)
    assert outcome.returncode == 0, f"{chapter}:\n{outcome.stdout[-2000:]}\n{outcome.stderr[-4000:]}"
    assert files_of_the_book() <= before, "a chapter writes into temporary folders only"
    if cache:
        cache.set(key, now)


def test_a_wrong_claim_is_found_at_its_line(tmp_path):
    chapter = tmp_path / "99_wrong.md"
    good = "```{code-cell} python\n:tags: [hide-input]\n\nx = 1\n```\n"
    chapter.write_text(f"# 99. Wrong\n\n{good}\n```{{code-cell}} python\nassert x == 2\n```\n", encoding="utf-8")
    outcome = run(chapter, tmp_path)
    assert outcome.returncode == 1
    assert f'File "{chapter}", line 10' in outcome.stderr
    assert "assert x == 2" in outcome.stderr


def test_a_cell_may_not_use_the_network(tmp_path):
    chapter = tmp_path / "99_network.md"
    call = "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9/')"
    chapter.write_text(f"```{{code-cell}} python\n{call}\n```\n", encoding="utf-8")
    outcome = run(chapter, tmp_path)
    assert outcome.returncode == 1
    assert "must run without a network" in outcome.stderr


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_cells_are_plain_python_and_claims_are_asserted(chapter):
    found = cells(text_of(chapter))
    nodes = [node for cell in found for node in ast.walk(ast.parse(cell.source, chapter))]
    assert sum(isinstance(node, ast.Assert) for node in nodes) >= 5
    fences = re.findall(r"^```\{code-cell\}", text_of(chapter), re.MULTILINE)
    assert len(found) == len(fences), "a cell's fence is not closed"


# -- listings -------------------------------------------------------------------------------------------------------


def defined(path: Path) -> set[str]:
    """The functions, classes and methods of a module, as :pyobject: names them."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("chapter", EDITIONS)
def test_listings_are_included_from_the_source_and_linked(chapter):
    text = text_of(chapter)
    directives = DIRECTIVE.findall(text)
    assert len(directives) == text.count("{literalinclude}") > 0
    for target, options, following in directives:
        path = folder_of(chapter) / target
        assert path.is_file(), f"{chapter} includes {target}, which is not there"
        for name in re.findall(r"^:pyobject: (\S+)$", options, re.MULTILINE):
            assert name in defined(path), f"{chapter}: {target} has no {name}"
        assert f"]({target})" in following, f"{chapter}: a link to {target} must follow its listing, for forge readers"


@pytest.mark.parametrize("chapter", EDITIONS)
def test_a_notebook_shows_its_listings_and_its_links_lead_back(chapter, tmp_path):
    text = on_its_own(text_of(chapter), tmp_path, folder_of(chapter))
    assert "{literalinclude}" not in text
    for target, options, _ in DIRECTIVE.findall(text_of(chapter)):
        for name in re.findall(r"^:pyobject: (\S+)$", options, re.MULTILINE):
            assert re.search(rf"^ *(?:def|class) {name.rpartition('.')[2]}\b", text, re.MULTILINE), (target, name)
    for target in links(re.sub(r"`[^`\n]*`", "", prose(text))):
        path = target.partition("#")[0]
        if path and not target.startswith("https:") and not path.endswith(".ipynb"):
            assert (tmp_path / path).is_file(), target


def significant(source: str) -> list[str]:
    """The lines of a source that say something: without indentation, blank lines, imports and lone brackets."""
    lines = (line.strip() for line in source.splitlines())
    return [line for line in lines if re.search(r"\w", line) and not line.startswith(("import ", "from ", "#"))]


def windows(source: str) -> set[tuple[str, ...]]:
    lines = significant(source)
    return {tuple(lines[i : i + PASTED]) for i in range(len(lines) - PASTED + 1)}


@pytest.fixture(scope="module")
def library_windows() -> set[tuple[str, ...]]:
    return set().union(*(windows(path.read_text(encoding="utf-8")) for path in (ROOT / "minirlhf").rglob("*.py")))


@pytest.mark.parametrize("chapter", EDITIONS)
def test_nothing_is_pasted_from_the_library(chapter, library_windows):
    fenced = re.findall(r"^```(?:python|\{code-cell\})[^\n]*\n(.*?)^```", text_of(chapter), re.MULTILINE | re.DOTALL)
    for source in fenced:
        pasted = windows(source) & library_windows
        assert not pasted, f"{chapter}: include these lines from the library, do not paste them: {sorted(pasted)[0]}"


def test_a_paste_would_be_noticed(library_windows):
    source = (ROOT / "minirlhf/reference/softmax.py").read_text(encoding="utf-8")
    body = source[source.index("def softmax(") :]
    assert windows("x = 1\n" + body.replace("    ", "\t")) & library_windows
    assert not windows("z = 1\ny = 2\nlargest = 3\nq = 4") & library_windows


# -- what is named is there -----------------------------------------------------------------------------------------


def anchor(title: str) -> str:
    """The address of a heading on its page, as MyST and the forges make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    found = links(re.sub(r"`[^`\n]*`", "", prose(text_of(page))))
    for target in found:
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        name, _, place = target.partition("#")
        path = folder_of(page) / name if name else BOOK / page
        assert path.is_file(), f"{page} links to {target}, which is not there"
        if place:
            assert place in [anchor(title) for _, title in headings(path.read_text(encoding="utf-8"))], target


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page, monkeypatch):
    commands_understood(text_of(page), monkeypatch)
    for words in commands(text_of(page)):
        if words[0] == "make":
            assert words[1:] and set(words[1:]) <= set(make_targets(ROOT)), words


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_is_a_flag(page, capsys):
    named = named_flags(text_of(page))
    if named:
        assert named <= known_flags(ROOT, capsys) | {"--rerun-chapters"}, named


@pytest.fixture(scope="module")
def names_of_the_library() -> set[str]:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "minirlhf").rglob("*.py")]
    return set(GLOSSARY) | set().union(*(re.findall(r"\w+", source) for source in sources))


@pytest.mark.parametrize("page", PAGES)
def test_every_name_in_the_prose_is_a_name(page, names_of_the_library):
    """`snake_case` between backticks is a metric, a name of the library, or one that a cell of the chapter uses."""
    used = {word for cell in cells(text_of(page)) for word in re.findall(r"\w+", cell.source)}
    named = {span for span in spans(prose(text_of(page))) if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", span)}
    assert named <= used | names_of_the_library, named - used - names_of_the_library


# -- the order of the book ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", EDITIONS)
def test_a_chapter_has_one_title_with_its_number_and_the_header_of_a_notebook(chapter):
    text = text_of(chapter)
    assert re.match(r"---\njupytext:\n.*?format_name: myst\n.*?kernelspec:\n.*?name: python3\n---\n", text, re.DOTALL)
    titles = [title for depth, title in headings(text) if depth == 1]
    assert len(titles) == 1, titles
    number = int(Path(chapter).name[:2])
    assert titles[0].startswith(f"{number}. "), f"{titles[0]!r} should begin with {number}."
    depths = [depth for depth, _ in headings(text)]
    assert all(below <= above + 1 for above, below in pairwise(depths)), "a heading is skipped"


def test_numbers_are_in_order_and_the_front_page_lists_what_there_is():
    numbers = [int(name[:2]) for name in CHAPTERS]
    assert numbers == sorted(set(numbers))
    listed = [target for target in links(text_of("index.md")) if target in CHAPTERS]
    assert listed == CHAPTERS, "the table of chapters/index.md must link to every chapter once, in order"
    titles = [headings(text_of(chapter))[0][1] for chapter in CHAPTERS]
    for chapter, title in zip(CHAPTERS, titles, strict=True):
        number, _, name = title.partition(". ")
        assert f"| {number} | [{name}]({chapter}) |" in text_of("index.md"), title


# -- the Chinese edition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHINESE)
def test_the_chinese_edition_has_the_same_cells_and_listings(chapter):
    """So its cells need not run again: the code is the same. Comments and descriptions of pictures are translated."""
    original = Path(chapter).name
    assert original in CHAPTERS, f"{chapter} has no original"
    ours, theirs = cells(text_of(chapter)), cells(text_of(original))
    for number, (our, their) in enumerate(zip(ours, theirs, strict=False), start=1):
        same = ast.dump(ast.parse(our.source)) == ast.dump(ast.parse(their.source))
        assert same, f"{chapter}:{our.line}: cell {number} is not that of {original}:{their.line}"
    assert len(ours) == len(theirs), f"{chapter} has {len(ours)} cells, {original} has {len(theirs)}"
    listings = [(target.removeprefix("../"), options) for target, options, _ in DIRECTIVE.findall(text_of(chapter))]
    assert listings == [(target, options) for target, options, _ in DIRECTIVE.findall(text_of(original))]


@pytest.mark.parametrize("chapter", CHINESE)
def test_the_chinese_edition_is_written_in_chinese_and_follows_its_original(chapter):
    text, original = text_of(chapter), text_of(Path(chapter).name)
    plain = re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)", "", prose(text))
    assert len(re.findall(r"[\u4e00-\u9fff]", plain)) > 0.1 * len(prose(original))
    assert not re.findall(r"[\u4e00-\u9fff] ?[,;:?!](?!\w)", plain), "Chinese sentences have Chinese punctuation"
    assert [depth for depth, _ in headings(text)] == [depth for depth, _ in headings(original)]
    pictures = [re.findall(r"^    alt: .*$", each, re.MULTILINE) for each in (text, original)]
    assert len(pictures[0]) == len(pictures[1])
    assert all(re.search(r"[\u4e00-\u9fff]", alt) for alt in pictures[0]), "the pictures' descriptions too"


def test_the_front_page_and_the_site_list_the_chinese_edition():
    assert [target for target in links(text_of("index.md")) if target in CHINESE] == CHINESE
    for chapter in CHINESE:
        number, _, name = headings(text_of(chapter))[0][1].partition(". ")
        assert f"| {number} | [{name}]({chapter}) |" in text_of("index.md"), name
    contents = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    globs = re.findall(r'glob: "(.+)"', contents)
    found = [path.relative_to(BOOK).as_posix() for glob in globs for path in sorted(BOOK.glob(f"{glob}.md"))]
    assert found == EDITIONS
