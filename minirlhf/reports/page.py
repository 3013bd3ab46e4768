"""The shell of a report: one HTML file that loads nothing, and the small pieces it is put together from."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Literal

from minirlhf.evaluation.findings import Finding
from minirlhf.reports.glossary import rows_for

# No script, no request: whatever a model wrote into its answer, the browser shows it and does nothing else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1b1f24; font: 18px/1.55 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 2.1em; line-height: 1.15; margin: .2em 0 .4em; }
h2 { font-size: 1.45em; margin: 2em 0 .5em; padding-top: .5em; border-top: 2px solid #e3e6ea; }
h3 { font-size: 1.1em; margin: 1.4em 0 .4em; }
p { max-width: 46em; margin: .5em 0; }
.lead { font-size: 1.15em; max-width: 58em; }
.quiet { color: #4b5563; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 370px), 1fr)); gap: 20px 24px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 20px 32px; }
figure { margin: 0; min-width: 0; display: flex; flex-direction: column; justify-content: space-between; }
figcaption { font-weight: 600; margin-bottom: 4px; }
figcaption .quiet { font-weight: 400; font-size: .85em; line-height: 1.4; display: block; }
.tall-only { display: none; }
.box { overflow-x: auto; border: 1px solid #d5d9df; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 9px 12px; border-bottom: 1px solid #e3e6ea; }
tr:last-child td { border-bottom: 0; }
th { background: #f3f5f7; font-weight: 600; }
.answers { min-width: 940px; table-layout: fixed; }
.answers th:first-child { width: 20%; }
.samples { min-width: 520px; } .samples td:first-child { width: 4.5em; }
.numbers { min-width: 760px; }
.glossary { min-width: 820px; }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; }
.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.worth { display: inline-block; border-radius: 4px; padding: 0 .45em; margin-bottom: 4px; font-weight: 600;
  font-variant-numeric: tabular-nums; background: #eef0f3; }
.worth.good { background: #dcf0dc; } .worth.bad { background: #fbe0d8; }
.finding { border-left: 6px solid #9aa1ac; padding: 4px 16px; margin: 14px 0; }
.finding.critical { border-color: #b3261e; } .finding.warning { border-color: #c2570c; }
.finding p { margin: .15em 0; }
.fine { border-left: 6px solid #4d7c0f; padding: 4px 16px; }
summary { cursor: pointer; margin: 14px 0 8px; font-weight: 600; }
.key-numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 22px 0; }
.key-numbers div { background: #f3f5f7; border-radius: 6px; padding: 12px 16px; font-size: .9em; line-height: 1.35; }
.key-numbers b { display: block; font-size: 1.75em; line-height: 1.2; }
@media (max-width: 700px) {
  body { font-size: 17px; } main { padding: 16px 14px 48px; } h1 { font-size: 1.65em; }
  .wide-only { display: none; } .tall-only { display: block; }
  .key-numbers { grid-template-columns: 1fr 1fr; gap: 10px; } .key-numbers b { font-size: 1.45em; }
  .key-numbers div:last-child:nth-child(odd) { grid-column: span 2; }
  .answers, .glossary { min-width: 0; } .answers thead, .glossary thead { display: none; }
  .answers tr, .glossary tr { display: block; padding: 8px 0; border-bottom: 1px solid #d5d9df; }
  .answers td, .glossary td { display: block; border: 0; padding: 4px 12px; }
  .answers td:not(:first-child)::before, .glossary td:not(:first-child)::before {
    content: attr(data-column); display: block; color: #4b5563; font-size: .85em; }
}
@media print { h2 { break-after: avoid; } figure, tr, .finding { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document. title is plain text, body is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table in a box that scrolls sideways by itself. Cells are HTML, the head is plain text.

    On a phone "answers" and "glossary" become cards, a row each, and every cell says which column it is from.
    """
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    starts = [f'<td data-column="{escape(cell, quote=True)}">' for cell in head]
    lines = ("".join(f"{start}{cell}</td>" for start, cell in zip(starts, row, strict=True)) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    whole = f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="box" tabindex="0"><table class="{kind}">{whole}</table></div>'


def panel(caption: str, svg: str, note: str = "") -> str:
    """A figure with its caption (plain text) above it and a quiet line of explanation."""
    quiet = f'<span class="quiet">{escape(note)}</span>' if note else ""
    return f"<figure><figcaption>{escape(caption)}{quiet}</figcaption>{svg}</figure>"


def panels(figures: Iterable[str], kind: Literal["panels", "pair"] = "panels") -> str:
    """Figures side by side, as many as fit, or large ones in pairs."""
    return f'<div class="{kind}">\n' + "\n".join(figures) + "\n</div>"


def folded(summary: str, inside: str) -> str:
    """A part the reader opens by a click."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}\n</details>"


def answer(text: str) -> str:
    """What a model wrote, as text and nothing else."""
    return f'<div class="answer">{escape(text)}</div>' if text.strip() else '<div class="quiet">(nothing)</div>'


def findings_section(findings: Sequence[Finding]) -> str:
    """What diagnose found, or that it found nothing."""
    if not findings:
        return '<p class="fine">The diagnosis found nothing wrong with these curves.</p>'
    return "\n".join(
        f'<div class="finding {finding.severity}"><p><b>{escape(finding.what)}</b> ({finding.severity})</p>'
        f"<p>Seen in: {escape(finding.evidence)}</p><p>Likely cause: {escape(finding.likely_cause)}</p>"
        f"<p>What to do: {escape(finding.what_to_do)}</p></div>"
        for finding in findings
    )


def glossary_section(keys: Iterable[str]) -> str:
    """The glossary's rows of the keys that were shown."""
    rows = [
        (f"<code>{escape(key)}</code>", escape(row.meaning), escape(row.healthy), escape(row.what_to_do))
        for key, row in rows_for(keys).items()
    ]
    return table(("name", "what it is", "healthy", "what to do when it is not"), rows, "glossary")


def definition_list(pairs: Mapping[str, str]) -> str:
    """Name and value, one row each; both plain text."""
    rows = [(escape(name), f"<code>{escape(value)}</code>") for name, value in pairs.items()]
    return table(("setting", "value"), rows)
