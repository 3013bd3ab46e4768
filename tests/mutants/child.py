"""What a forked child does: run pytest on one copy of the checkout and write down which tests turned red."""

import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

NO_PROOF = (ImportError, SyntaxError, NameError)  # the mutant does not run at all, so nobody looked at what it does


def run_pytest(tree: Path, files: Sequence[str], green: Mapping[str, float] | None) -> NoReturn:
    """Run these test files (below tree); the report goes beside the tree.

    green: test -> seconds. If given, only these tests are run, the quickest first, up to the first that is red.
    Ends the process: 0 whatever the tests say, 1 if this very function fails.
    """
    status = 1
    try:
        os.setsid()  # so that the whole family can be ended together
        report = tree.parent / f"{tree.name}.json"
        report.unlink(missing_ok=True)
        (tree.parent / f"{tree.name}.begun").unlink(missing_ok=True)
        log = os.open(tree.parent / f"{tree.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(tree)
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "minirlhf")]:
            del sys.modules[name]
        here = {str(Path(__file__).resolve().parents[2]), ""}
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in here)]
        # An installed minirlhf would bring its plugin, which the copy need not have; its conftest asks for its own.
        os.environ |= {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(tree),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(tree.parent / "hypothesis"),
        }
        importlib.invalidate_caches()

        import pytest

        watcher = Watcher(tree, green)
        options = ["-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "--continue-on-collection-errors"]
        places = [f"--rootdir={tree}", f"--config-file={tree / 'pyproject.toml'}"]
        scratch = f"--basetemp={tree.parent / (tree.name + '.temp')}"
        pytest.main([*options, *places, scratch, *files], plugins=[watcher])
        content = {name: getattr(watcher, name) for name in ("red", "green", "broken", "trouble")}
        report.write_text(json.dumps(content), encoding="utf-8")
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Watcher:
    """A pytest plugin that notes which tests are red, and how long the green ones take."""

    def __init__(self, tree: Path, wanted: Mapping[str, float] | None):
        self.tree, self.wanted = tree, wanted
        self.red: dict[str, str] = {}
        self.green: dict[str, float] = {}
        self.broken: list[str] = []
        self.trouble = ""
        self.errors: dict[str, type[BaseException]] = {}

    def pytest_sessionstart(self, session):
        from hypothesis import Phase, settings

        self.session = session
        quick = {"phases": (Phase.explicit, Phase.generate), "report_multiple_bugs": False}
        settings.register_profile("mutants", settings(), **quick)
        settings.load_profile("mutants")

    def pytest_collectreport(self, report):
        if report.failed:
            self.broken.append(f"{report.nodeid} could not be collected")

    def pytest_collection_modifyitems(self, items):
        if self.wanted is not None:
            items[:] = [item for item in items if item.nodeid in self.wanted]
            items.sort(key=lambda item: self.wanted[item.nodeid])

    def pytest_runtest_logstart(self, nodeid):
        (self.tree.parent / f"{self.tree.name}.begun").write_text(nodeid, encoding="utf-8")

    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is not None:
            self.errors[item.nodeid] = call.excinfo.type

    def pytest_runtest_logreport(self, report):
        if not report.failed:
            if report.nodeid not in self.red:
                self.green[report.nodeid] = self.green.get(report.nodeid, 0.0) + report.duration
            return
        error = self.errors.get(report.nodeid, AssertionError)
        if issubclass(error, NO_PROOF):
            self.trouble = f"{error.__name__} in {report.nodeid}"
            self.green.pop(report.nodeid, None)
            return
        self.red[report.nodeid] = error.__name__
        self.green.pop(report.nodeid, None)
        if self.wanted is not None:
            self.session.shouldstop = "caught"

    def pytest_sessionfinish(self, session):
        package = sys.modules.get("minirlhf")
        if package is not None and not str(package.__file__).startswith(str(self.tree)):
            self.trouble = f"the tests ran {package.__file__}, not the copy"
            self.red.clear()
