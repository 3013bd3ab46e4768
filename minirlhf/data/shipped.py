"""Where the shipped data lies: `data/` in a checkout, inside the package when installed from a wheel."""

from pathlib import Path

from minirlhf.errors import UserError


def shipped_path(name: str) -> Path:
    """The path of a shipped file, e.g. "stories.txt". Raises UserError if it is not there."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "shipped_data", package.parent / "data"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"the shipped file {name} is missing",
        where=str(package.parent / "data" / name),
        fix="in a checkout, run `python data/make_data.py`; otherwise install minirlhf again",
    )
