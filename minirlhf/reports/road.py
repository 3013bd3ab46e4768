"""The road as a picture: text → tokenizer → GPT → SFT → reward model → PPO, drawn as SVG by hand.

Lying for a wide page, standing for a phone. Each stop has a small drawing, its name, one line that says what
happens there, and the figures of this run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

INK, QUIET, EDGE = "#1b1f24", "#4b5563", "#9aa1ac"
BLUE, ORANGE, GREY, GREEN = "#2563a8", "#c2570c", "#c8cdd4", "#4d7c0f"
FONT = "system-ui, 'Segoe UI', Roboto, Arial, sans-serif"
WIDTH, HEIGHT, GAP = 190, 232, 26  # of one stop, and the room for the arrow between two


@dataclass(frozen=True)
class Stop:
    """One stop of the road. drawing is a name of DRAWINGS; figures are short lines of plain text."""

    drawing: str
    name: str
    says: str
    figures: Sequence[str]


def road(stops: Sequence[Stop], standing: bool = False) -> str:
    """The stops in order with arrows between them, from left to right or from top to bottom."""
    width, height = (360, 136) if standing else (WIDTH, HEIGHT)
    parts, ends = [], []
    for number, stop in enumerate(stops):
        x, y = (0, number * (height + GAP)) if standing else (number * (width + GAP), 0)
        parts.append(_stop(stop, x + 1, y + 1, width, height, standing))
        ends.append((x, y))
    for x, y in ends[:-1]:
        if standing:
            parts.append(_arrow(x + width / 2, y + height + 5, x + width / 2, y + height + GAP - 3))
        else:
            parts.append(_arrow(x + width + 5, height / 2, x + width + GAP - 3, height / 2))
    full_width = width + 2 if standing else len(stops) * (width + GAP) - GAP + 2
    full_height = len(stops) * (height + GAP) - GAP + 2 if standing else height + 2
    label = "The road: " + ", ".join(stop.name for stop in stops)
    head = (
        f'<svg viewBox="0 0 {full_width} {full_height}" role="img" aria-label="{escape(label)}" font-family="{FONT}">'
    )
    return head + "".join(parts) + "</svg>"


def _stop(stop: Stop, x: float, y: float, width: float, height: float, standing: bool) -> str:
    box = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="8"'
    frame = f'<rect {box} fill="#fff" stroke="{EDGE}" stroke-width="1.5"/>'
    if standing:
        picture = f'<g transform="translate({x + 14} {y + 28}) scale(.9)">{DRAWINGS[stop.drawing]}</g>'
        text_x, text_y, anchor = x + 122, y + 30, "start"
    else:
        picture = f'<g transform="translate({x + width / 2 - 50} {y + 16})">{DRAWINGS[stop.drawing]}</g>'
        text_x, text_y, anchor = x + width / 2, y + 122, "middle"
    lines = [
        _text(text_x, text_y, stop.name, 20, INK, "700", anchor),
        _text(text_x, text_y + 22, stop.says, 13.5, QUIET, "400", anchor),
    ]
    for row, figure in enumerate(stop.figures):
        lines.append(_text(text_x, text_y + (46 if standing else 52) + row * 22, figure, 15.5, INK, "500", anchor))
    return frame + picture + "".join(lines)


def _text(x: float, y: float, text: str, size: float, colour: str, weight: str, anchor: str) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    down = to_y > y
    wings = f"{to_x - 7},{to_y - 8} {to_x + 7},{to_y - 8}" if down else f"{to_x - 8},{to_y - 7} {to_x - 8},{to_y + 7}"
    stop_x, stop_y = (to_x, to_y - 7) if down else (to_x - 7, to_y)
    line = f'<line x1="{x}" y1="{y}" x2="{stop_x}" y2="{stop_y}" stroke="{INK}" stroke-width="2.5"/>'
    return line + f'<polygon points="{to_x},{to_y} {wings}" fill="{INK}"/>'


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{colour}"/>'


def _bubble(x: float, y: float, colour: str) -> str:
    return (
        f'<path d="M{x} {y + 6}q0-6 6-6h56q6 0 6 6v26q0 6-6 6h-40l-12 11v-11h-4q-6 0-6-6z" fill="none" '
        f'stroke="{colour}" stroke-width="3" stroke-linejoin="round"/>'
    )


# Each drawing fills a field of 100 x 80.
DRAWINGS = {
    "text": "".join(_bar(8, 10 + 15 * i, w, 6, GREY if i else INK) for i, w in enumerate((84, 70, 80, 58, 34))),
    "tokens": "".join(
        _bar(x, y, w, 15, colour)
        for x, y, w, colour in (
            (8, 10, 34, BLUE), (45, 10, 16, ORANGE), (64, 10, 28, GREEN), (8, 32, 18, GREEN), (29, 32, 42, GREY),
            (74, 32, 18, BLUE), (8, 54, 26, ORANGE), (37, 54, 30, BLUE), (70, 54, 14, GREEN),
        )
    ),
    "layers": "".join(_bar(18, 6 + 18 * i, 64, 13, BLUE if i % 2 else "#7ea6d3") for i in range(4)),
    "answer": _bubble(16, 12, BLUE) + _bar(28, 24, 44, 5, GREY) + _bar(28, 36, 30, 5, GREY),
    "scales": (
        f'<path d="M50 8v56M32 66h36M18 22l64-8" stroke="{INK}" stroke-width="3" fill="none" stroke-linecap="round"/>'
        + _bar(4, 28, 30, 17, ORANGE) + _bar(66, 20, 30, 17, GREY)
        + '<path d="M11 37l5 5 10-10" stroke="#fff" stroke-width="3" fill="none"/>'
    ),
    "loop": (
        f'<path d="M20 52a32 27 0 1 1 12 13" stroke="{ORANGE}" stroke-width="5" fill="none" stroke-linecap="round"/>'
        f'<polygon points="24,68 41,57 41,75" fill="{ORANGE}"/>'
        + _bar(38, 46, 8, 10, GREY) + _bar(50, 36, 8, 20, BLUE) + _bar(62, 24, 8, 32, ORANGE)
    ),
}  # fmt: skip
