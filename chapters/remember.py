"""Long experiments are run once: their numbers are kept beside the village's models.

    from remember import remembered

    rows = remembered(practise, 1, 500)  # practise(1, 500), or what it returned the last time

The name of what is kept follows from the function's source, its arguments, and all that the models follow from. So the
function should take what it depends on as arguments, and return what JSON can hold. MINIRLHF_VILLAGE names another
folder; an empty one runs everything again.
"""

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from village import state

import minirlhf


def remembered(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), as JSON gives it back: lists instead of tuples and arrays."""
    described = f"{state()} {inspect.getsource(function)} {arguments!r}"
    name = f"{function.__name__}-{hashlib.sha256(described.encode()).hexdigest()[:16]}.json"
    usual = Path(minirlhf.__file__).parent.parent / "build" / "village"
    folder = Path(os.environ.get("MINIRLHF_VILLAGE", usual))
    if not (folder / name).exists():
        text = json.dumps(function(*arguments))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, folder / name)
    return json.loads((folder / name).read_text(encoding="utf-8"))
