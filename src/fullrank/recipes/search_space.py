"""What a search may change: a dotted path into frozen configs, and the values it may take."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from fullrank.schema import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number in [low, high], drawn uniformly; with `log`, its logarithm is."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            positive = " above 0" if self.log else ""
            raise ValueError(f"Expected a range low..high{positive} with low < high, got {self.low}..{self.high}.")


Dimension = Choice | Range


def parse_dimension(text: str) -> tuple[str, Dimension]:
    """`PATH=a,b,c` (a choice) or `PATH=low..high` (a range; `:log` behind it, of the logarithm)."""
    path, equals, values = text.partition("=")
    if not (path and equals and values):
        raise ValueError(f"Expected PATH=a,b,c or PATH=low..high[:log], got {text!r}.")
    low, dots, high = values.partition("..")
    if not dots:
        return path, Choice(values=tuple(_value(value) for value in values.split(",")))
    high, log = high.removesuffix(":log"), high.endswith(":log")
    try:
        return path, Range(low=float(low), high=float(high), log=log)
    except ValueError as error:
        raise ValueError(f"Expected {path}=low..high[:log] with two numbers, got {text!r} ({error}).") from error


def _value(text: str) -> Any:
    """A number, true, false or none where it is one, else the text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def value_at(config: Any, path: str) -> Any:
    """The value at `path` (`embedding.width`); an unknown step is an error that names the nearest."""
    for step in path.split("."):
        names = [f.name for f in fields(config)] if is_dataclass(config) else []
        if step not in names:
            near = did_you_mean(step, names)
            raise ValueError(f"No setting {path!r}: expected one of {names} at {step!r}.{near}")
        config = getattr(config, step)
    return config


def replaced(config: Any, path: str, value: Any) -> Any:
    """A copy of the nested config with the value at `path` changed; its classes check it."""
    value_at(config, path)
    step, _, rest = path.partition(".")
    return replace(config, **{step: replaced(getattr(config, step), rest, value) if rest else value})
