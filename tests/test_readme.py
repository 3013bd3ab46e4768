"""The two READMEs: every command parses, every path is there, every name means something, and both say the same."""

import ast
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.quickstart import BARS
from minirlhf import cli
from minirlhf.data.shapes import recognise
from minirlhf.reports.glossary import GLOSSARY
from minirlhf.rollout.scoring import checked_scores, load_reward_function
from tests.helpers.documents import (
    blocks,
    commands,
    commands_understood,
    known_flags,
    links,
    make_targets,
    minirlhf_commands,
    named_flags,
    prose,
    spans,
)

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")
THE_READERS = ("mine/", "runs/", "dist/", "my_reward", "checkpoint/")  # what a reader brings, or what a run makes
MADE_BY_A_RUN = ("config.json", "metrics.jsonl", "samples.jsonl", "report.html")
SUFFIXES = (".py", ".md", ".svg", ".txt", ".json", ".jsonl", ".html")


def text_of(readme: str) -> str:
    return (ROOT / readme).read_text(encoding="utf-8")


def tables(readme: str) -> list[list[list[str]]]:
    """Every table as rows of cells, without its header."""
    found: list[list[list[str]]] = [[]]
    for line in text_of(readme).splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table[2:] for table in found if table]


# -- what is said is there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readme", READMES)
def test_every_command_line_parses(readme, monkeypatch):
    understood = commands_understood(text_of(readme), monkeypatch)
    assert {*understood, "tokenizer"} == set(cli.COMMANDS), "a command is missing from the README"
    assert len(understood) == len(minirlhf_commands(text_of(readme)))


@pytest.mark.parametrize("readme", READMES)
def test_other_command_lines_name_what_exists(readme):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for words in commands(text_of(readme)):
        tool = Path(words[0]).name
        if tool == "make":
            assert words[1:] and set(words[1:]) <= set(make_targets(ROOT)), words
        elif tool == "pip":
            extras = re.findall(r"\[(.*)\]", words[-1])
            assert {name for group in extras for name in group.split(",")} <= set(project["optional-dependencies"])
        elif tool == "python":
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            for flag in words:
                assert not flag.startswith("--") or f'"{flag}"' in script, words
        else:
            assert tool in ("minirlhf", "source"), words


@pytest.mark.parametrize("readme", READMES)
def test_every_path_is_there(readme):
    named = [word for words in commands(text_of(readme)) for word in words if not word.startswith(".venv/")]
    named += [span for span in spans(prose(text_of(readme))) if " " not in span]
    found = []
    for path in named:
        looks_like_one = "/" in path or (path.endswith(SUFFIXES) and path not in SUFFIXES)
        made_later = path.startswith((*THE_READERS, ".venv", "--")) or path in MADE_BY_A_RUN
        if looks_like_one and not made_later:
            found.append(path)
            assert (ROOT / path).exists() or (ROOT / "minirlhf" / path).exists(), path
    assert found
    for target in links(text_of(readme)):
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("readme", READMES)
def test_every_metric_is_in_the_glossary(readme):
    named = [span for span in spans(prose(text_of(readme))) if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", span)]
    assert len(named) >= 5
    assert set(named) <= set(GLOSSARY), set(named) - set(GLOSSARY)


@pytest.mark.parametrize("readme", READMES)
def test_every_flag_in_the_prose_is_a_flag(readme, capsys):
    known, named = known_flags(ROOT, capsys), named_flags(text_of(readme))
    assert {"--resume", "--data", "--field"} <= named <= known, named - known


@pytest.mark.parametrize("readme", READMES)
def test_every_record_is_recognised(readme):
    records = [span for span in spans(prose(text_of(readme))) if span.startswith("{")]
    assert len(records) >= 10
    for record in records:
        fields = re.findall(r'"([a-z_0-9]+)"', record)
        assert recognise(dict.fromkeys(fields, "")) is not None, record


@pytest.mark.parametrize("readme", READMES)
def test_python_blocks_are_python_and_the_reward_function_runs(readme, tmp_path, monkeypatch):
    sources = blocks(text_of(readme), "python")
    for source in sources:
        ast.parse(source, readme)
    module = f"my_reward_{READMES.index(readme)}"  # a name of its own: modules stay imported
    (tmp_path / f"{module}.py").write_text(sources[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    score = load_reward_function(f"{module}:score")
    responses = ["One two three four five six seven eight nine ten eleven twelve.", "Twelve", ""]
    scores = checked_scores(score(["?"] * 3, responses), responses, "score")
    assert scores[0] == 1.0
    assert scores[0] > scores[1] > scores[2]
    assert any("my_reward:score" in words for words in minirlhf_commands(text_of(readme)))


@pytest.mark.parametrize("readme", READMES)
def test_the_bars_are_those_the_benchmark_holds(readme):
    bars = {name: target for name, _, _, target in BARS}
    text = prose(text_of(readme))
    for name, form in (
        ("total seconds", "{:g} s"),
        ("peak memory, MiB", "{:g} MiB"),
        ("held-out prompts", " {:g} "),
        ("distinct-2 of PPO over that of SFT", "{:g} "),
    ):
        assert form.format(bars[name]) in text, name
    for name in ("win rate against SFT", "EOS rate of PPO", "EOS rate of SFT"):
        assert re.search(rf"{100 * bars[name]:g} ?%", text), name
    points = 100 * bars["reward model: best possible accuracy minus its accuracy"]
    assert re.search(rf"\b{points:g} (points|个百分点)", text)


@pytest.mark.parametrize("readme", READMES)
def test_short_enough_to_be_read(readme):
    assert len(text_of(readme).splitlines()) <= 310


@pytest.mark.parametrize("readme", READMES)
def test_the_wrong_loss_is_told_where_in_the_words_that_are_printed(readme, pytester):
    _, example, wrong_loss = blocks(text_of(readme), "python")
    pytester.makepyfile(wrong_loss + "\n\n" + example)
    outcome = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    outcome.assert_outcomes(failed=1)
    (said,) = (block for block in blocks(text_of(readme), "text") if block.startswith("AssertionError"))
    printed = [line.removeprefix("E ").strip() for line in outcome.outlines]
    start = printed.index(said.splitlines()[0])
    assert printed[start : start + len(said.splitlines())] == [line.strip() for line in said.splitlines()]


# -- both say the same ----------------------------------------------------------------------------------------------


def test_the_same_commands_in_the_same_order():
    assert commands(text_of(READMES[0])) == commands(text_of(READMES[1]))


@pytest.mark.parametrize("language", ["text", "python"])
def test_the_same_code_and_the_same_output(language):
    assert blocks(text_of(READMES[0]), language) == blocks(text_of(READMES[1]), language) != []


def test_the_same_rows_in_every_table():
    """Links and names are compared; the words around them are in another language."""

    def row(cells: list[str]) -> list[list[str]]:
        return [re.findall(r"\]\(([^)]+)\)|`([^`]+)`", cell) for cell in cells]

    english, chinese = (tables(readme) for readme in READMES)
    assert len(english) == 3
    assert [[row(cells) for cells in table] for table in english] == [
        [row(cells) for cells in table] for table in chinese
    ]


def test_the_map_leads_from_formula_to_test():
    """Each row ends in tests that import what the row names: the torch module and, where there is one, the formula."""
    for readme in READMES:
        rows = tables(readme)[2]
        assert len(rows) >= 12
        for _, formulas, modules, _, tests in rows:
            sources = [(ROOT / path).read_text(encoding="utf-8") for path in re.findall(r"\((.*?\.py)\)", tests)]
            assert sources, tests
            for path in re.findall(r"\((.*?\.py)\)", formulas + modules):
                module = path.removesuffix(".py").replace("/", ".")
                package, _, name = module.rpartition(".")
                imported = rf"{re.escape(module)}\b|from {re.escape(package)} import .*\b{name}\b"
                assert any(re.search(imported, source) for source in sources), f"{path} is not tested by {tests}"


def test_the_same_sections_and_links():
    def headings(readme: str) -> list[int]:
        return [
            len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text_of(readme), flags=re.S), re.M)
        ]

    assert headings(READMES[0]) == headings(READMES[1])
    own = [
        [link for link in links(text_of(readme)) if not link.startswith("README") and not link.endswith(".svg")]
        for readme in READMES
    ]
    assert own[0] == own[1]


def test_the_same_picture_in_two_languages():
    """Everything but the words is equal, and no line of text runs over its neighbour or the edge."""
    pictures = []
    for name in ("road.svg", "road.zh-CN.svg"):
        root = ElementTree.parse(ROOT / "chapters" / "pictures" / name).getroot()
        pictures.append([(node.tag, {**node.attrib, "aria-label": ""}) for node in root.iter()])
        for node in root.iter("{http://www.w3.org/2000/svg}text"):
            wide = sum(1.0 if ord(letter) > 0x2E80 else 0.6 for letter in node.text or "") * float(
                node.attrib["font-size"]
            )
            assert wide <= 290, node.text
    assert pictures[0] == pictures[1]
    assert "chapters/pictures/road.svg" in links(text_of(READMES[0]))
    assert "chapters/pictures/road.zh-CN.svg" in links(text_of(READMES[1]))
