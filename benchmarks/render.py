"""Make docs/results.md of benchmarks/results/*.json. A test re-renders it and fails where the page says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results

Every number here was printed by the command above its table and is stored in `benchmarks/results/`. Repeat one with
`python benchmarks/record.py LABEL --threshold … -- COMMAND`; `python benchmarks/render.py` makes this page.
"""


def rendered(folder: Path = ROOT / "benchmarks" / "results") -> str:
    """The page, as it should be."""
    parts = [HEAD]
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        on = stored["environment"]
        machine = f"{on['cpu']}, {on['threads']} threads, Python {on['python']}, torch {on['torch']}"
        parts += [
            f"## {stored['label']}",
            f"`{stored['command']}`",
            f"Threshold: {stored['threshold']}. Exit code {stored['exit_code']}, n = {len(stored['runs'])}, "
            f"{stored['date']}, commit {stored['commit']}; {machine}.",
            _table([run for run in stored["runs"] if run.get("day", "mean") == "mean"]),
        ]
        if any(run.get("day", "mean") != "mean" for run in stored["runs"]):
            parts.append("Lines of single days are in the stored file.")
    return "\n\n".join(parts).rstrip() + "\n"


def _table(runs: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run))
    lines = [names, ["---"] * len(names), *([_cell(run.get(name)) for name in names] for run in runs)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
