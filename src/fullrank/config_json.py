"""Frozen dataclasses to JSON and back, strictly: what is read is what was written, or an error says where it is not.

The types of the fields decide, and nothing is guessed: dataclasses (as objects), tuples (as lists), dicts with string
keys, `Literal`, int, float, bool, str, None, and unions of those. Where a union holds more than one dataclass, the
object carries the class's qualified name under "type"; what is declared `Any` is JSON already and passed on. An unknown
key is an error that names the nearest field; a missing one takes the field's default, so an older file can be read by a
newer release that added a field. Floats keep every bit (shortest exact decimal); nan and infinity are refused, as JSON
has neither.

Not for tensors or arrays: those go to safetensors or Arrow.
"""

from __future__ import annotations

import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fullrank.schema import did_you_mean

Config = TypeVar("Config")
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}


class ConfigError(ValueError):
    """A stored configuration is not one of the class it is read as. The message names the place and the value."""


def dumps(config: Any) -> str:
    """A dataclass as indented JSON text; `loads(type(config), dumps(config)) == config`."""
    return json.dumps(encode(config), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(cls: type[Config], text: str, where: str = "") -> Config:
    """The dataclass `cls` from JSON text; `where` (a file name) stands in front of an error's place."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"Expected {where or cls.__name__} to be JSON: {error}.") from error
    return decode(cls, value, where)


def encode(config: Any) -> Any:
    """A dataclass as dicts, lists and scalars, checked against the declared types on the way."""
    return _encode(type(config), config, type(config).__name__)


def decode(cls: type[Config], value: Any, where: str = "") -> Config:
    """The dataclass `cls` from the dicts, lists and scalars of `encode`."""
    return _decode(cls, value, where or cls.__name__)


def _encode(kind: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        arm = next((arm for arm in args if _holds(arm, value)), None)
        if arm is None:
            raise _wrong(where, kind, value)
        if not is_dataclass(value):
            return _encode(arm, value, where)
        several = sum(is_dataclass(arm) for arm in args) > 1
        tag = {"type": type(value).__qualname__} if several else {}
        return tag | _encode(arm, value, where)
    if not _holds(kind, value):
        raise _wrong(where, kind, value)
    if is_dataclass(value):
        hints = get_type_hints(kind)
        return {f.name: _encode(hints[f.name], getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    if origin is tuple:
        arms = _members(args, value, where)
        return [_encode(arm, item, f"{where}[{i}]") for i, (arm, item) in enumerate(zip(arms, value, strict=True))]
    if origin is dict:
        return {key: _encode(args[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    if kind is float:
        if not math.isfinite(value):
            raise ConfigError(f"Expected {where} to be a finite number, got {value}.")
        return float(value)
    return value


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(kind, value, where)
    if is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, kind, value)
        arms = _members(args, value, where)
        return tuple(_decode(arm, item, f"{where}[{i}]") for i, (arm, item) in enumerate(zip(arms, value, strict=True)))
    if not _holds(kind, value):
        raise _wrong(where, kind, value)
    if origin is dict:
        return {key: _decode(args[1], item, f"{where}[{key!r}]") for key, item in value.items()}
    return float(value) if kind is float else value


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, kind, value)
    names = [f.name for f in fields(kind) if f.init]
    for key in value:
        if key not in names:
            raise ConfigError(f"{where} has no {key!r}; it has {names}.{did_you_mean(key, names)}")
    for f in fields(kind):
        if f.init and f.name not in value and f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"Expected {where} to have {f.name!r}, got only {list(value)}.")
    hints = get_type_hints(kind)
    return kind(**{key: _decode(hints[key], item, f"{where}.{key}") for key, item in value.items()})


def _decode_union(kind: Any, value: Any, where: str) -> Any:
    classes = {arm.__qualname__: arm for arm in get_args(kind) if is_dataclass(arm) and isinstance(arm, type)}
    if not isinstance(value, dict) or not classes:
        arms = [arm for arm in get_args(kind) if _holds(arm, tuple(value) if isinstance(value, list) else value)]
        if not arms:
            raise _wrong(where, kind, value)
        return _decode(arms[0], value, where)
    if len(classes) == 1:
        return _decode(next(iter(classes.values())), value, where)
    tag = value.get("type")
    if tag not in classes:
        near = did_you_mean(str(tag), list(classes))
        raise ConfigError(f"Expected {where} to have a 'type' of {list(classes)}, got {tag!r}.{near}")
    return _decode_dataclass(classes[tag], {key: item for key, item in value.items() if key != "type"}, where)


def _holds(kind: Any, value: Any) -> bool:
    """Whether a value is of the kind, not looking into members."""
    origin = get_origin(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_holds(arm, value) for arm in get_args(kind))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if origin is None and not isinstance(kind, type):
        raise TypeError(f"A stored configuration cannot have a field of type {kind}.")
    return type(value) is kind if is_dataclass(kind) else isinstance(value, origin or kind)


def _members(args: tuple[Any, ...], value: Any, where: str) -> list[Any]:
    """The type of each member of a tuple `tuple[X, ...]` or `tuple[X, Y]`."""
    if len(args) == 2 and args[1] is Ellipsis:
        return [args[0]] * len(value)
    if len(args) != len(value):
        raise ConfigError(f"Expected {where} to have {len(args)} members, got {len(value)}: {value!r}.")
    return list(args)


def _wrong(where: str, kind: Any, value: Any) -> ConfigError:
    near = ""
    if get_origin(kind) is Literal:
        choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
        near = did_you_mean(value, choices) if isinstance(value, str) else ""
    return ConfigError(f"Expected {where} to be {_described(kind)}, got {value!r}.{near}")


def _described(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    if origin in (Union, types.UnionType):
        return " or ".join(_described(arm) for arm in get_args(kind))
    if origin in (tuple, dict):
        return "a list" if origin is tuple else "an object"
    return _NAMES.get(kind) or f"an object ({kind.__name__})"
