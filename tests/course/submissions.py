"""Submissions to grade: the solution, the skeleton, and solutions with something changed."""

from collections.abc import Mapping
from pathlib import Path

from minirlhf.course.assignment import TWIST, file_name, load_assignment, module_source
from minirlhf.course.grading import skeleton_of
from minirlhf.course.twists import Twist

A03 = load_assignment("a03")
SECRET = b"a secret of more than sixteen bytes"


def twisted(twist: Twist) -> str:
    """A solution of twist.py, written from its text and in torch: shares nothing with the NumPy formula."""
    lines = ["match = per_group(q * q.shape[-1] ** -0.5, k.mT)"]
    if twist.cap is not None:
        lines.append(f"match = {twist.cap!r} * torch.tanh(match / {twist.cap!r})")
    if twist.slope is not None:
        lines += [
            "tokens, seen = match.shape[-2:]",
            "steps = torch.arange(seen - tokens, seen)[:, None] - torch.arange(seen)",
            f"price = {twist.slope!r} * 2.0 ** -torch.arange(q.shape[1], dtype=q.dtype)",
            "match = match - price[:, None, None] * steps.abs()",
        ]
    lines.append("match = torch.where(visible, match, -torch.inf)")
    if twist.sink is None:
        lines.append("weights = match.softmax(-1)")
    else:
        lines += [
            f"place = torch.full_like(match[..., :1], {twist.sink!r})",
            "weights = torch.cat((match, place), -1).softmax(-1)[..., :-1]",
        ]
    lines.append("return per_group(torch.where(visible, weights, 0.0), v)")
    head, _, _ = skeleton_of(A03, TWIST, twist).rpartition("    raise")
    return head + "".join(f"    {line}\n" for line in lines)


def solution(twist: Twist) -> dict[str, str]:
    """file name -> text of what gets every point."""
    library = {file_name(module): module_source(module) for module in A03.modules if module != TWIST}
    return library | {"twist.py": twisted(twist)}


def skeleton(twist: Twist) -> dict[str, str]:
    return {file_name(module): skeleton_of(A03, module, twist) for module in A03.modules}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
