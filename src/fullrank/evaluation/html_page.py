"""One self-contained HTML page: headings, sentences, tables and figures, nothing loaded from anywhere."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th.word, td.word { text-align: left; }
td small { opacity: .7; }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg { width: 100%; min-width: 34rem; height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .9rem; opacity: .8; }
summary { cursor: pointer; padding: .3rem 0; }
pre { background: var(--faint); padding: .7rem; overflow-x: auto; border-radius: 4px; }
"""


class HtmlPage:
    """Collects parts in reading order; `write` puts them into one file. Every text is escaped."""

    def __init__(self, title: str):
        self.title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        self._parts.append(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> None:
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def table(self, header: list[str], rows: list[list[str]], *, words: int = 1, folded: str = "") -> None:
        """A table whose first `words` columns are words; what follows a line's end in a cell is small, below it. With
        `folded`, behind these words, to be opened by who wants it."""

        def line(cells: list[str], tag: str) -> str:
            kinds = [' class="word"' if place < words else "" for place in range(len(cells))]
            return "".join(f"<{tag}{kind}>{_cell(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
        table = f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"
        table = f'<div class="wide">{table}</div>'
        self._parts.append(f"<details><summary>{escape(folded)}</summary>{table}</details>" if folded else table)

    def figure(self, figure: Figure, caption: str) -> None:
        """A matplotlib figure as inline SVG, with the sentence that says how to read it; closes the figure."""
        import matplotlib.pyplot as plt

        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
        svg = buffer.getvalue()
        svg = svg[svg.index("<svg") :]
        label = escape(caption, quote=True)
        self._parts.append(
            f'<figure role="img" aria-label="{label}">{svg}<figcaption>{escape(caption)}</figcaption></figure>'
        )

    def write(self, path: Path) -> Path:
        title = escape(self.title)
        page = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
        return path


def _cell(text: str) -> str:
    above, end, below = text.partition("\n")
    return escape(above) + (f"<br><small>{escape(below)}</small>" if end else "")
