"""The pages of docs/ are run: each ```python block and each `$ fullrank …` line of a ```console block, in their order.

A page is one story in one empty folder. What a block prints is not compared (numbers differ between machines), but it
must end well. A block behind the comment `<!-- not run: REASON -->` is left out.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from fullrank.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"(?P<skip><!-- not run: [^>]+ -->\n)?```(?P<kind>python|console)\n(?P<code>.*?)```", re.DOTALL)
PAGES = sorted(page for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text(encoding="utf-8")))


def commands(console: str) -> list[list[str]]:
    """The command lines of a console block, as words; a backslash continues a line."""
    lines = console.replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$"), comments=True) for line in lines if line.startswith("$")]


def test_command_lines_are_found() -> None:
    text = "$ fullrank train x \\\n    --data 'a b'   # words\nsome output\n$ fullrank doctor\n"
    assert commands(text) == [["fullrank", "train", "x", "--data", "a b"], ["fullrank", "doctor"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, object] = {"__name__": "__main__"}
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["skip"]:
            continue
        line = text[: block.start("code")].count("\n") + 1
        where = f"{page.relative_to(DOCS)}:{line}"
        if block["kind"] == "python":
            exec(compile("\n" * (line - 1) + block["code"], where, "exec"), names)
            continue
        found = commands(block["code"])
        assert found, f"{where}: expected a command behind a `$`"
        for words in found:
            assert words[0] == "fullrank", f"{where}: only fullrank's own commands run here, got {words[0]!r}"
            assert main(words[1:]) == 0, f"{where}: {' '.join(words)}"
