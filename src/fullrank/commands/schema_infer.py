"""`fullrank schema infer FILE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from fullrank.commands.arguments import OptionalPath, call
from fullrank.data.infer import infer_schema
from fullrank.data.infer_sample import SAMPLE_ROWS


def main(args: Sequence[str], prog: str) -> int:
    return call(schema_infer, args, prog)


def schema_infer(file: tyro.conf.Positional[Path], out: OptionalPath = None, rows: int = SAMPLE_ROWS) -> None:
    """Guess a first schema from a log, with a reason for every guess, and print it as TOML.

    Args:
        file: the log: .parquet, .csv or .tsv (also .gz).
        out: where to write the TOML, instead of printing it; an existing file is not overwritten.
        rows: how many rows to read from the beginning.
    """
    if out is not None and out.exists():
        raise FileExistsError(f"{out} is there already, and may hold your edits: give another name, or remove it.")
    guess = infer_schema(file, rows)
    for missing in guess.missing:
        print(f"note: {missing}", file=sys.stderr)
    if out is None:
        print(guess.toml(), end="")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(guess.toml(), encoding="utf-8")
    print(
        f"Wrote {out}. Read its reasons, correct what is wrong, then: fullrank prepare {file} --schema {out} --out DIR"
    )
