"""A Sphinx extension that keeps the book off the network, and its cells as fresh as the library they show.

Mathematics is set by MathJax, whose one file that brings its own glyphs is copied from the package
`django-static-mathjax` into the site. The results of cells are kept in a cache of their own for each state of the
library, so that a changed line of minirlhf runs the chapters again. Thebe, which would run cells on somebody's server,
is left out. Whatever a page would still fetch from another host is a warning, and the build takes warnings as errors.
"""

import hashlib
import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent.parent
CLICKED = re.compile(r"<a\b[^>]*>|<meta\b[^>]*>")  # a link that a reader clicks on may lead anywhere
ADDRESS = re.compile(r"""["'(]((?:https?:)?//[\w.-]+\.\w+/[^"')]*)""")
ELSEWHERE = re.compile(r"\[([^\]]+)\]\((\.\.[^)#\s]*\.md)(?:#[^)\s]*)?\)")  # a link to Markdown in another folder
MATHJAX = "mathjax/static/mathjax/es5/tex-svg.js"
logger = logging.getLogger(__name__)


def state_of_the_library() -> str:
    """A name for what the cells can depend on: the package, the shipped data and what the cells import."""
    digest = hashlib.sha256((ROOT / "data" / "SHA256SUMS").read_bytes())
    for path in sorted((ROOT / "minirlhf").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    for path in sorted((ROOT / "chapters").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_for_this_library(app: Sphinx, config: Any) -> None:
    config.nb_execution_cache_path = str(Path(app.outdir).parent / "cells" / state_of_the_library())


def link_to_pages_only(app: Sphinx, name: str, source: list[str]) -> None:
    """A Markdown file outside the book has no page in the site, so that a link to it stays there as its text alone."""
    book = Path(app.srcdir).resolve()

    def kept(match: re.Match[str]) -> str:
        target = (book / name).parent / match[2]
        return match[0] if target.resolve().is_relative_to(book) else match[1]

    source[0] = ELSEWHERE.sub(kept, source[0])


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    package = importlib.util.find_spec("mathjax")
    if package is None or package.origin is None:
        logger.warning("MathJax is missing: pip install '.[book]'")
        return
    target = Path(app.outdir) / "_static" / app.config.mathjax_path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(package.origin).parent.parent / MATHJAX, target)


def leave_thebe_out(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if "thebe" not in f"{script}{vars(script)}".lower()]


def look_for_other_hosts(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    for page in sorted(path for pattern in ("*.html", "zh/*.html") for path in Path(app.outdir).glob(pattern)):
        for address in ADDRESS.findall(CLICKED.sub("", page.read_text(encoding="utf-8"))):
            logger.warning(f"{page.name} would fetch {address}: the book must work without a network")


def setup(app: Sphinx) -> dict[str, Any]:
    # The cells of zh/ run in their own folder, and import what lies beside the chapters.
    paths = [str(ROOT / "chapters"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    app.connect("config-inited", cache_for_this_library)
    app.connect("source-read", link_to_pages_only)
    app.connect("html-page-context", leave_thebe_out, priority=900)  # after Thebe has put itself in
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", look_for_other_hosts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
