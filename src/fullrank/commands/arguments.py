"""A verb's arguments from the signature and docstring of its function, and what several verbs do alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from fullrank.schema import Schema, SchemaError, did_you_mean
from fullrank.schema_toml import from_toml

SHOWN = ("rows", "positives", "auc", "user_auc", "log_loss", "pcoc")  # of a task's metrics, in tables
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT")]


def call(function: Callable[..., None], args: Sequence[str], prog: str) -> int:
    """Call `function` with what the command line says; a wrong one ends the process with code 2 and an explanation."""
    tyro.cli(function, prog=prog, args=list(args), config=(tyro.conf.FlagCreatePairsOff,))
    return 0


def read_schema(path: Path) -> Schema:
    """The schema in a TOML file."""
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, beside) or " `fullrank schema infer LOG --out schema.toml` writes a first one."
        raise SchemaError(f"{path}: expected a schema, found no such file.{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path}: expected UTF-8 text, got other bytes ({error.reason}).") from None
    return from_toml(text, str(path))


def write_json(path: Path | None, value: Mapping[str, Any]) -> None:
    """`--json PATH`: the result for programs; NaN becomes null."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def write_text(folder: Path | None, name: str, text: str) -> None:
    """`--out DIR`: what was printed, as a file of that folder."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], words: int = 1) -> str:
    """Columns of text: the first `words` to the left, the others to the right; numbers with fractions have four digits,
    and what is not defined (None, nan) is a dash."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < words else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return str(value) if isinstance(value, Path) else value
