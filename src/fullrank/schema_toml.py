"""A schema as TOML, for people to read and edit: `from_toml(to_toml(schema)) == schema`, exactly.

The layout follows the dataclasses: `name`, `time_unit`, `[roles]`, and one `[[feature]]`, `[[history]]` (with
`[[history.feature]]` and `[[history.outcome]]`), `[[task]]`, `[[key_space]]` and `[[time_column]]` for each member.
Whatever has its default is not written. The reader is as strict as the dataclasses: an unknown key, a wrong type or a
missing key is an error that says where it is and which key may have been meant.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fullrank.schema import Schema, SchemaError, did_you_mean

# A tuple of members is an array of tables, and each table is one member: `[[feature]]`, not `[[features]]`.
SINGULAR = {
    "features": "feature",
    "histories": "history",
    "outcomes": "outcome",
    "tasks": "task",
    "key_spaces": "key_space",
    "time_columns": "time_column",
}
_KINDS = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    float: "a number",
    list: "an array",
    dict: "a table",
}


def to_toml(schema: Schema, comments: Mapping[str, str] | None = None) -> str:
    """The schema as TOML text: the same text for the same schema, on every machine.

    `comments` are written as `#` lines above what they speak of: `"time_unit"` and `"roles.user"` (a key),
    `"feature.genres"` (a table), `"history.clicks.where"` (a key of a table). `""` comes first of all and `"end"` last.
    A comment that speaks of nothing that is written is an error.
    """
    left = dict(comments or {})
    lines = _comment(left, "")
    if lines:
        lines.append("")
    lines += _keys(schema, "", left)
    lines += _tables(schema, "", "", left)
    if "end" in left:
        lines += ["", *_comment(left, "end")]
    if left:
        raise SchemaError(f"Expected every comment to speak of a key or table that is written, got {sorted(left)}.")
    return "\n".join(lines).lstrip("\n") + "\n"


def _comment(left: dict[str, str], path: str) -> list[str]:
    text = left.pop(path, "")
    # A comment may quote what a log holds, and TOML allows no control characters in comments.
    return ["# " + "".join(_printable(character) for character in line) if line else "#" for line in text.splitlines()]


def _keys(part: Any, path: str, left: dict[str, str]) -> list[str]:
    """`key = value` for every plain field of `part` that has not got its default."""
    lines = []
    for f in fields(part):
        value = getattr(part, f.name)
        if f.name in SINGULAR or is_dataclass(value) or _is_default(part, f, value):
            continue
        lines += [*_comment(left, f"{path}{f.name}"), f"{f.name} = {_value(value)}"]
    return lines


def _tables(part: Any, header: str, path: str, left: dict[str, str]) -> list[str]:
    """The tables below `part`. `header` is their name in brackets so far, `path` that of their comments."""
    lines = []
    for f in fields(part):
        value = getattr(part, f.name)
        if is_dataclass(value):
            keys = _keys(value, f"{path}{f.name}.", left)
            if keys:
                lines += ["", *_comment(left, f"{path}{f.name}"), f"[{header}{f.name}]", *keys]
        elif f.name in SINGULAR:
            singular = SINGULAR[f.name]
            for member in value:
                member_path = f"{path}{singular}.{member.name}"
                lines += ["", *_comment(left, member_path), f"[[{header}{singular}]]"]
                lines += _keys(member, f"{member_path}.", left)
                lines += _tables(member, f"{header}{singular}.", f"{member_path}.", left)
    return lines


def _is_default(part: Any, f: Field[Any], value: Any) -> bool:
    if f.default is MISSING:
        return False
    # An empty `column` or `key_space` means the member's own name, which the dataclass has filled in.
    return value == f.default or (f.name in ("column", "key_space") and f.default == "" and value == part.name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(_escaped(character) for character in value) + '"'
    return "[" + ", ".join(_value(item) for item in value) + "]"


def _escaped(character: str) -> str:
    return "\\" + character if character in '"\\' else _printable(character)


def _printable(character: str) -> str:
    return f"\\u{ord(character):04x}" if character < " " or character == "\x7f" else character


def from_toml(text: str, source: str = "schema.toml") -> Schema:
    """The schema that TOML text describes. `source` is what errors call the text: usually its path.

    Raises `SchemaError` naming source, table and key, what came, and the nearest match.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"{source} is not TOML: {error}") from None
    return _read(Schema, table, source, "")


@cache
def _fields(kind: type) -> dict[str, tuple[Field[Any], Any]]:
    """Key in TOML -> (field, type)."""
    hints = get_type_hints(kind)
    return {SINGULAR.get(f.name, f.name): (f, hints[f.name]) for f in fields(kind)}


def _read(kind: Any, table: dict[str, Any], source: str, header: str, where: str = "") -> Any:
    """The dataclass `kind` from a table. `header` is the table's name without brackets, `where` how errors show it."""
    place = f"{source}, {where}" if where else source
    known = _fields(kind)
    values = {}
    for key, value in table.items():
        if key not in known:
            hint = did_you_mean(key, list(known))
            raise SchemaError(f"{place}: unknown key {key!r}.{hint} The keys here are {', '.join(known)}.")
        f, hint = known[key]
        name = f"{header}.{key}" if header else key
        values[f.name] = _convert(value, hint, source, place, name, key)
    for key, (f, _) in known.items():
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise SchemaError(f"{place}: expected the key {key!r}, got only {', '.join(table) or 'an empty table'}.")
    try:
        return kind(**values)
    except SchemaError as error:
        raise SchemaError(f"{place}: {error}") from None


def _convert(value: Any, hint: Any, source: str, place: str, name: str, key: str) -> Any:
    """`value` as the type `hint`, or an error. `name` is the key with its tables, `place` where it stands."""
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise SchemaError(f"{place}: expected the table [{name}], got {_shown(value)} for {key!r}.")
        return _read(hint, value, source, name, f"[{name}]")
    if get_origin(hint) is tuple:
        member = get_args(hint)[0]
        if not is_dataclass(member):
            if not isinstance(value, list):
                raise SchemaError(f"{place}: expected an array of strings for {key!r}, got {_shown(value)}.")
            return tuple(_convert(item, member, source, place, name, key) for item in value)
        if isinstance(value, dict):
            raise SchemaError(f"{place}: expected [[{name}]], got [{name}]: each {key} is a table in double brackets.")
        if not isinstance(value, list):
            raise SchemaError(f"{place}: expected tables [[{name}]], got {_shown(value)} for {key!r}.")
        return tuple(_member(member, item, source, place, name, n) for n, item in enumerate(value, start=1))
    expected = str if get_origin(hint) is Literal else hint
    if type(value) is not expected:
        raise SchemaError(f"{place}: expected {_KINDS[expected]} for {key!r}, got {_shown(value)}.")
    return value


def _member(kind: Any, value: Any, source: str, place: str, name: str, number: int) -> Any:
    if not isinstance(value, dict):
        raise SchemaError(f"{place}: expected tables [[{name}]], got {_shown(value)} in {name!r}.")
    called = f" {value['name']!r}" if isinstance(value.get("name"), str) else ""
    return _read(kind, value, source, name, f"[[{name}]] number {number}{called}")


def _shown(value: Any) -> str:
    kind = _KINDS.get(type(value), "a date or time")
    return kind if isinstance(value, dict | list) else f"{kind}: {value!r}"
