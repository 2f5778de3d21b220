"""Lists that a log writes as texts: JSON arrays (`["a","b"]`, `[1, 2]`, also with Python's quotes), or values with `|`
between them."""

# pyarrow.compute makes its functions when it is imported; a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from fullrank.data.normalise_cells import Cells

SEPARATOR = "|"
EXPECTED = "a list: a JSON array of texts or of numbers"


def are_json(texts: pa.Array) -> bool:
    """Whether every text that is there is written like a JSON array."""
    present = texts.drop_null()
    return len(present) > 0 and pc.all(pc.match_substring_regex(present, r"^\s*\[[\s\S]*\]\s*$")).as_py()


def lists_of_texts(cells: Cells) -> pa.Array:
    """The lists that the texts of a column spell; null and the empty text are missing.

    All are JSON arrays, or else all are values with `|` between them. A column whose texts hold commas or semicolons
    and no `|` at all is probably separated by those: it stays as it is, for the error of whoever wanted lists.
    """
    array = cells.array
    blank = pc.equal(pc.utf8_trim_whitespace(array), "")
    texts = pc.if_else(blank, pa.scalar(None, array.type), array)
    if are_json(texts):
        return parsed(cells, texts)
    if texts.null_count < len(texts) and not pc.any(pc.match_substring(texts, SEPARATOR)).as_py():
        other = pc.any(pc.match_substring_regex(texts, "[,;]")).as_py()
        return array if other else pc.split_pattern(texts, SEPARATOR)
    return pc.split_pattern(texts, SEPARATOR)


def parsed(cells: Cells, texts: pa.Array) -> pa.Array:
    """JSON arrays of texts (read as texts, whatever they spell) or of numbers."""
    import pyarrow.json as pa_json

    has_double = pc.any(pc.match_substring(texts, '"')).as_py()
    quoted = has_double or pc.any(pc.match_substring(texts, "'")).as_py()
    read = texts if has_double or not quoted else pc.replace_substring(texts, "'", '"')
    read = pc.replace_substring_regex(pc.fill_null(read, "null"), r"[\r\n]", " ")
    before, after, nothing = (pa.scalar(text, pa.large_string()) for text in ('{"v":', "}\n", ""))
    lines = pc.binary_join_element_wise(before, read.cast(pa.large_string()), after, nothing)
    data = pa.py_buffer("".join(lines.to_pylist()).encode())
    schema = pa.schema([("v", pa.list_(pa.string()))]) if quoted else None
    options = pa_json.ReadOptions(use_threads=False, block_size=max(1, data.size))
    try:
        table = pa_json.read_json(
            pa.BufferReader(data), read_options=options, parse_options=pa_json.ParseOptions(explicit_schema=schema)
        )
    except pa.ArrowInvalid:
        raise cells.error(_first_bad(read), EXPECTED) from None
    return table.column("v").combine_chunks()


def _first_bad(texts: pa.Array) -> int:
    """The first text that is no array of one kind of value. Only errors come this way."""
    kinds: set[type] = set()
    for place, text in enumerate(texts.to_pylist()):
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            return place
        found = {type(value) for value in values or [] if value is not None}
        found = {float if kind is int else kind for kind in found}
        if len(kinds | found) > 1 or not found <= {str, float}:
            return place
        kinds |= found
    return 0
