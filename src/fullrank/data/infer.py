"""A first schema, guessed from the first rows of a log, with a reason for every guess.

Names say most (`infer_names.py`), and values have to agree with them: a user column has keys, a propensity lies in
(0, 1], a label is 0 or 1. Whose a feature is follows from the sample alone where it can: what has one value for every
item describes the item (`infer_features.py`). A guess is a guess: the text is for a person to read and edit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fullrank.data import infer_histories, infer_tasks
from fullrank.data.infer_features import Kind, kind_of, one_value_per_key, owner_of, weights_for, why_useless
from fullrank.data.infer_names import is_action_name, is_label_name, is_prediction_name, is_time_name, role_rank
from fullrank.data.infer_sample import SAMPLE_ROWS, Column, Sample, read_sample
from fullrank.schema import Feature, History, Roles, Schema, Task, TimeColumn, TimeUnit
from fullrank.schema_toml import to_toml

_UNITS: tuple[tuple[float, TimeUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))  # below this: that unit
_FIRST_DATE = 1e8  # seconds: March 1973
_DAYS_OF_A_YEAR = 366


@dataclass(frozen=True)
class Guess:
    """`comments` are those of `to_toml`; `missing` says what a person has to add before training makes sense."""

    schema: Schema
    comments: dict[str, str]
    missing: tuple[str, ...]

    def toml(self) -> str:
        return to_toml(self.schema, self.comments)


def infer_schema(path: Path, rows: int = SAMPLE_ROWS) -> Guess:
    """Guess the schema of a Parquet, CSV or TSV log (plain or gzipped) from its first `rows` rows.

    Not for a file whose first rows are unlike the rest (sorted by label, one user's rows only): give it a shuffled
    part. Raises `DataError` where the file can't be read as a table with names.
    """
    sample = read_sample(path, rows)
    return _Guesser(sample, path).guess()


@dataclass
class _Guesser:
    sample: Sample
    path: Path
    roles: dict[str, Column] = field(default_factory=dict)
    unit: TimeUnit = "s"
    comments: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    units: dict[str, TimeUnit] = field(default_factory=dict)

    def guess(self) -> Guess:
        self._key_roles()
        self._time()
        self._number_roles()
        tasks = self._tasks()
        histories = self._histories(tasks)
        features = self._features()
        columns = {role: column.name for role, column in self.roles.items()}
        schema = Schema(
            name=_name_of(self.path.name.split(".")[0]),
            roles=Roles(**columns),
            time_unit=self.unit,
            features=tuple(features),
            histories=tuple(histories),
            tasks=tuple(tasks),
            time_columns=tuple(TimeColumn(name=name, unit=unit) for name, unit in self.units.items()),  # pyright: ignore[reportArgumentType]  # not 'position'
        )
        self._frame()
        return Guess(schema, self.comments, tuple(self.missing))

    def _role(self, role: str, column: Column, reason: str) -> None:
        self.roles[role] = column
        self.used.add(column.name)
        self.comments[f"roles.{role}"] = reason

    def _candidates(self, role: str) -> list[Column]:
        """The columns named for the role, best name first."""
        ranked = [(role_rank(role, column), column) for column in self.sample.columns if column.name not in self.used]
        return [
            column for rank, column in sorted(((r, c) for r, c in ranked if r is not None), key=lambda pair: pair[0])
        ]

    def _key_roles(self) -> None:
        for role in ("user", "item", "request", "impression", "scenario", "campaign", "advertiser"):
            for column in self._candidates(role):
                if column.type not in ("integer", "text"):
                    continue
                unique = column.distinct == column.rows
                if role == "impression" and not unique:
                    continue
                if role in ("user", "item") and unique and column.rows > 20:
                    continue  # a key that never comes again is no user and no item
                count = f"{column.distinct:,} distinct values in {column.rows:,} rows"
                what = "integers" if column.type == "integer" else "texts"
                self._role(role, column, f"{count}, {what} in a column named like {_article(role)} {role}")
                break
        if "user" not in self.roles:
            self.missing.append(
                "No column looks like a user: set `user` in [roles] if there is one (histories need it)."
            )
        if "item" not in self.roles:
            self.missing.append("No column looks like an item or ad: set `item` in [roles] if there is one.")

    def _time(self) -> None:
        # A time that a row may lack belongs to something else (a conversion); one named early is the row's own.
        named = self._candidates("time")
        named += [c for c in self.sample.columns if c not in named and c.name not in self.used and is_time_name(c)]
        for column in named:
            if column.array.null_count or column.type not in ("integer", "number", "time"):
                continue
            if column.type == "time":
                self._role("time", column, "dates or timestamps, taken as they are (without a zone: UTC)")
                return
            unit, reason = _unit_of(column)
            if unit is None:
                if reason:
                    self.left_out[column.name] = reason
                continue
            if unit == "position":
                self._role("order", column, reason)
            else:
                self._role("time", column, "a number in every row, in a column named like a time")
            self.unit = unit
            if unit != "s":
                self.comments["time_unit"] = reason
            else:
                self.comments[f"roles.{'order' if unit == 'position' else 'time'}"] += f": {reason}"
            return
        for column in self._candidates("order"):
            if column.type == "integer" and not column.array.null_count:
                self._role(
                    "order", column, "whole numbers in a column named like an order; no column looks like a time"
                )
                self.unit = "position"
                self.comments["time_unit"] = "an order and no clock"
                return
        self.missing.append("No column looks like a time or an order: set `time` in [roles] if there is one.")

    def _number_roles(self) -> None:
        item = self.roles.get("item")
        for role, wanted, holds in _NUMBER_ROLES:
            for column in self._candidates(role):
                if column.type not in ("integer", "number", "bool") or column.array.null_count:
                    continue
                if not holds(column.numbers):
                    continue
                if role == "price" and item and one_value_per_key(column, item):
                    continue  # what the item costs, not what was paid for showing it
                self._role(role, column, f"{wanted} in every row, in a column named like {_article(role)} {role}")
                if role == "position":
                    self.comments["roles.position"] += "; not an input: where an ad stood is not known before"
                break

    def _tasks(self) -> list[Task]:
        time = self.roles.get("time")
        found = infer_tasks.find(self.sample, self.used, self.roles.get("item"), time, self.unit)
        self.tasks = found.tasks
        self.used |= {column.name for column in found.columns}
        self.comments |= found.comments
        self.left_out |= found.left_out
        self._units(found.units)
        if not found.tasks:
            near = [c.name for c in self.sample.columns if c.is_binary and c.distinct == 2 and c.name not in self.used]
            hint = f" Columns of 0 and 1 here: {', '.join(near)}." if near else ""
            self.missing.append(
                "No column looks like a label (click, conversion, label, rating, …), so there is nothing to train on. "
                f'Add one: [[task]], name = "click", column = "THE COLUMN", with 0, 1 or nothing in every row.{hint}'
            )
        return [task for task, _ in found.tasks.values()]

    def _units(self, found: dict[str, TimeUnit]) -> None:
        """Columns of times that are not in the log's own unit."""
        own = "has dates" if (time := self.roles.get("time")) and time.type == "time" else f"is in {self.unit!r}"
        for name, unit in found.items():
            self.units[name] = unit
            self.comments[f"time_column.{name}"] = f"in {unit!r}, while the row's time {own}: only so they fit together"

    def _histories(self, tasks: list[Task]) -> list[History]:
        roles = Roles(**{role: column.name for role, column in self.roles.items()})
        inline = infer_histories.inline(self.sample, self.roles.get("item"), self.roles.get("time"), self.unit)
        histories = []
        for found in (*inline, infer_histories.from_log(self.sample, roles, self.tasks)):
            self.left_out |= found.left_out
            self.used |= {column.name for column in found.columns}
            self._units(found.units)
            if found.history is not None:
                name = _unique(_name_of(found.history.name), {history.name for history in histories})
                old = f"history.{found.history.name}"
                self.comments |= {path.replace(old, f"history.{name}", 1): why for path, why in found.comments.items()}
                space = found.history.key_space
                histories.append(replace(found.history, name=name, key_space=_name_of(space)))
        return histories

    def _features(self) -> list[Feature]:
        user, item, request = (self.roles.get(role) for role in ("user", "item", "request"))
        lists = [column for column in self.sample.columns if column.is_list and column.name not in self.used]
        weights = {id(c): found for c in lists if c.type != "numbers" and (found := weights_for(c, lists))}
        self.used |= {column.name for column in weights.values()}
        also = {self.roles[role].name for role in ("scenario", "campaign", "advertiser") if role in self.roles}
        features: list[Feature] = []
        for column in self.sample.columns:
            if column.name in self.left_out or (column.name in self.used and column.name not in also):
                continue
            if is_action_name(column) or is_label_name(column):
                self.left_out[column.name] = "named like what came of the row, which is not known before"
                continue
            if is_prediction_name(column):
                self.left_out[column.name] = "named like a probability of a label: add it if it is known beforehand"
                continue
            if useless := why_useless(column):
                self.left_out[column.name] = useless
                continue
            owned = owner_of(column, user, item, request)
            kind = kind_of(column, owned)
            if kind.kind is None:
                self.left_out.setdefault(column.name, kind.reason)
                continue
            names = {feature.name for feature in features} | {role for role in ("user", "item") if role in self.roles}
            features.append(self._feature(column, owned.of, kind, _unique(_name_of(column.name), names)))
            beside = weights.get(id(column))
            if beside:
                features[-1] = replace(features[-1], weights=beside.name)
            reason = f"{kind.reason}. {owned.reason[0].upper()}{owned.reason[1:]}"
            self.comments[f"feature.{features[-1].name}"] = reason + (f". Weights: {beside.name}" if beside else "")
        return features

    def _feature(self, column: Column, of: str, kind: Kind, name: str) -> Feature:
        assert kind.kind is not None
        return Feature(name=name, kind=kind.kind, of=of, column=column.name, scale=kind.scale, dim=kind.dim)  # pyright: ignore[reportArgumentType]  # an Owner

    def _frame(self) -> None:
        """What stands first and last in the file."""
        seen, total = self.sample.rows, self.sample.total_rows
        rows = f"all {seen:,} rows" if total == seen else f"the first {seen:,} rows"
        rows += f" of {total:,}" if total is not None and total > seen else ""
        name = self.path.name
        head = [
            f"A first schema for {name}, guessed from {rows}. Read the reasons, correct what is wrong, then:",
            f"fullrank prepare {name} --schema schema.toml --out data/{_name_of(name.split('.')[0])}",
        ]
        self.comments[""] = "\n".join([*head, *([""] if self.missing else []), *self.missing])
        if self.left_out:
            order = {column.name: n for n, column in enumerate(self.sample.columns)}
            lines = [f"  {name}: {self.left_out[name]}" for name in sorted(self.left_out, key=lambda name: order[name])]
            self.comments["end"] = "\n".join(["Left out:", *lines])


def _unit_of(column: Column) -> tuple[TimeUnit | None, str]:
    """The unit of times that are numbers, from their size. No unit and no reason: no time, but maybe an input."""
    values = column.numbers
    middle, shown = float(np.median(values)), f"{int(values[0])}"
    if values.min() < 0 or middle >= 1e17:
        return None, f"named like a time, but {shown} is no time in s, ms or us since 1970: convert it"
    if _is_written_date(column.numbers):
        return "position", f"numbers like {shown} are written dates: they give an order, but no seconds between rows"
    if column.distinct <= _DAYS_OF_A_YEAR and middle < _FIRST_DATE:
        return None, ""  # an hour of the day, a day of the week
    if middle < _FIRST_DATE:
        return "s", f"too small for a date: taken as seconds from a beginning of their own ({shown} in the first row)"
    unit: TimeUnit = next(unit for bound, unit in _UNITS if middle < bound)
    year = np.datetime64(int(middle / {"s": 1, "ms": 1e3, "us": 1e6}[unit]), "s").astype("datetime64[Y]")
    return unit, f"{unit} since 1970: {shown} in the first row, the middle row is of {year}"


def _is_written_date(values: np.ndarray) -> bool:
    """Numbers that spell [YY]YYMMDD or [YY]YYMMDDHH."""
    if np.any(values != np.floor(values)) or not 1e5 <= values.min() <= values.max() < 2.2e9:
        return False
    for hours in (1, 100):
        days = values // hours
        hour = values % hours
        month, day, year = days // 100 % 100, days % 100, days // 10_000
        whole_year = (year >= 1970) & (year < 2100) | (year >= 5) & (year < 50)
        if np.all((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (hour < 24) & whole_year):
            return True
    return False


def _name_of(column: str) -> str:
    return re.sub(r"[^\w-]+", "_", column).strip("-_")[:70] or "column"


def _unique(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    return next(other for n in range(2, 10_000) if (other := f"{name}_{n}") not in taken)


def _article(word: str) -> str:
    return "an" if word[0] in "aeio" else "a"


_NUMBER_ROLES: tuple[tuple[str, str, Callable[[np.ndarray], bool]], ...] = (
    ("position", "a small number", lambda v: bool(v.min() >= 0 and v.max() <= 10_000)),
    ("propensity", "a number in (0, 1]", lambda v: bool(v.min() > 0 and v.max() <= 1)),
    ("exploration", "0 or 1", lambda v: bool(np.isin(v, (0, 1)).all())),
    ("sample_rate", "a number in (0, 1]", lambda v: bool(v.min() > 0 and v.max() <= 1)),
    ("weight", "a number >= 0", lambda v: bool(v.min() >= 0)),
    ("bid", "a number >= 0", lambda v: bool(v.min() >= 0)),
    ("price", "a number >= 0", lambda v: bool(v.min() >= 0)),
)
