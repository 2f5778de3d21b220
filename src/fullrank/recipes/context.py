"""What a person tells about a request, `column=value`, as columns of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from fullrank.data.ask import columns_asked
from fullrank.data.columns import DataError
from fullrank.schema import Schema, did_you_mean


def context_columns(
    schema: Schema, of_log: Schema, context: Mapping[str, str | Sequence[str]], n: int
) -> dict[str, pa.Array]:
    """The columns named by `context`, each with its value in all of `n` records.

    Args:
        schema: the asking schema: its columns (but the user's) can be told.
        of_log: the whole schema, so that an error can say why a column can't.
        context: texts; a list is its values, or one text with `|` between them.
    """
    kinds = columns_asked(schema)
    kinds.pop(schema.roles.user, None)
    columns = {}
    for name, value in context.items():
        if name not in kinds:
            raise DataError(_refusal(name, list(kinds), of_log))
        if kinds[name] == "list":
            values = value.split("|") if isinstance(value, str) else list(value)
            columns[name] = pa.array([values] * n, pa.list_(pa.string()))
        elif isinstance(value, str):
            columns[name] = pa.array([value] * n)
        else:
            raise DataError(f"Expected one value for column {name!r}, got {list(value)}.")
    return columns


def parse_context(pairs: Sequence[str]) -> dict[str, str]:
    """`column=value` words as a mapping."""
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise DataError(f"Expected --context COLUMN=VALUE, got {pair!r}.")
        if name in found:
            raise DataError(f"Expected column {name!r} once in --context, got it twice.")
        found[name] = value
    return found


def _refusal(name: str, known: list[str], of_log: Schema) -> str:
    if any(feature.column == name and feature.of == "item" for feature in of_log.features):
        return f"Column {name!r} describes the item: it comes from the catalogue, not from the context."
    if name and name == of_log.roles.user:
        return f"Column {name!r} is the user's: name the user instead (--user)."
    near = did_you_mean(name, known)
    return f"Expected a column that a request can be told, one of {known}, got {name!r}.{near}"
