"""What the tests of the READMEs and of the chapters read out of Markdown: fenced blocks, spans, links, commands."""

import re
import shlex
from pathlib import Path

import pytest

from minirlhf import cli

FENCED = re.compile(r"^(`{3,})[^\n]*\n.*?^\1[ ]*$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Everything outside fenced blocks."""
    return FENCED.sub("", text)


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def links(text: str) -> list[str]:
    """The targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", text)


def commands(text: str) -> list[list[str]]:
    """The words of every command line: those of the shell blocks, then those named in the prose."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    starts = ("minirlhf ", "make ", "source ")
    lines += [span for span in spans(prose(text)) if span.startswith(starts) and "COMMAND" not in span]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def minirlhf_commands(text: str) -> list[list[str]]:
    """What follows `minirlhf` in every command line that calls it."""
    return [words[1:] for words in commands(text) if Path(words[0]).name == "minirlhf"]


def commands_understood(text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the minirlhf commands of a text, each of whose lines the command line must parse."""
    understood: list[str] = []
    monkeypatch.setattr(cli, "run_settings", lambda function, settings, name, words: understood.append(name) or 0)
    for words in minirlhf_commands(text):
        try:
            assert cli.main(words) == 0, words
        except SystemExit:
            pytest.fail(f"minirlhf does not understand: {shlex.join(words)}")
    return understood


def known_flags(root: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Every flag of every command, and those minirlhf adds to pytest."""
    helps = ""
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        helps += capsys.readouterr().out
    known = set(re.findall(r"--[a-z][a-z-]+", helps))
    return known | set(
        re.findall(r"--gradcheck-[a-z]+", (root / "minirlhf/testing/plugin.py").read_text(encoding="utf-8"))
    )


def named_flags(text: str) -> set[str]:
    """The flags that stand between backticks in the prose."""
    return {flag for span in spans(prose(text)) for flag in re.findall(r"--[a-z][a-z-]+", span)}


def make_targets(root: Path) -> list[str]:
    return re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
