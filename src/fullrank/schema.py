"""What a log row means: roles, features, histories, tasks and key spaces, as frozen dataclasses.

A schema is data, not code: it is written to and read from TOML (`schema_toml.py`) and is stored inside every
prepared data set and every run. Nothing in it depends on a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from fullrank.schema_checks import (
    EVENT_COLUMNS,
    SchemaError,
    at_least,
    check_features,
    check_funnel,
    check_time_columns,
    checked_name,
    did_you_mean,
    once,
    one_of,
)

__all__ = [  # with what every user of a schema needs beside it
    "EventFeature",
    "EventOutcome",
    "Feature",
    "History",
    "KeySpace",
    "Roles",
    "Schema",
    "SchemaError",
    "Task",
    "TimeColumn",
    "did_you_mean",
]

FeatureKind = Literal["categorical", "multi", "numeric", "vector", "text"]
Owner = Literal["user", "context", "item", "pair"]
Scale = Literal["none", "standard", "log", "quantile"]
Layout = Literal["by_user", "inline"]
EventSource = Literal["log", "file"]
TaskKind = Literal["binary", "regression", "multiclass"]
TimeUnit = Literal["s", "ms", "us", "position"]
Policy = Literal["frozen", "growing", "hashed"]

@dataclass(frozen=True, kw_only=True)
class Roles:
    """Column names of the parts every system needs; an empty string means the log has no such column.

    `weight` (how much a row counts in training), `sample_rate` (the share of such rows that was kept: metrics and
    calibration undo it) and `propensity` (the logging policy's probability of showing it) are three columns with
    three meanings. `order` takes the place of `time` in a log that has an order and no clock.
    """

    user: str = ""
    item: str = ""
    request: str = ""
    impression: str = ""
    time: str = ""
    order: str = ""
    position: str = ""
    scenario: str = ""
    campaign: str = ""
    advertiser: str = ""
    propensity: str = ""
    exploration: str = ""
    sample_rate: str = ""
    weight: str = ""
    bid: str = ""
    price: str = ""

    def columns(self) -> dict[str, str]:
        """The roles that are present: role name -> column name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}


@dataclass(frozen=True, kw_only=True)
class KeySpace:
    """What an id means. Every feature, history and role that names the same space shares its ids (and its tables).

    Local ids: 0 padding · 1 missing · `unknown_rows` rows that keys without an id of their own share by hash · then
    the keys. A `hashed` space has no keys: its rows after 1 are `buckets`, and each key takes `hashes` of them.
    `growing` admits a key once the training rows held it `min_count` times (counted over all appends) and evicts it
    after `ttl` seconds without being seen (0: never); an evicted key is unknown again, its row is never reused.
    """

    name: str
    policy: Policy = "growing"
    min_count: int = 1
    ttl: int = 0
    unknown_rows: int = 1
    buckets: int = 0
    hashes: int = 1

    def __post_init__(self) -> None:
        checked_name("key space", self.name)
        one_of(f"key space {self.name!r} policy", self.policy, Policy)
        if self.policy == "hashed" and self.buckets < 1:
            raise SchemaError(f"Expected key space {self.name!r} (hashed) to have buckets >= 1, got {self.buckets}.")
        if self.policy != "hashed" and (self.buckets or self.hashes != 1):
            raise SchemaError(f"Key space {self.name!r} is {self.policy}: buckets and hashes belong to 'hashed'.")
        if self.policy != "growing" and self.ttl:
            raise SchemaError(f"Key space {self.name!r} is {self.policy}: ttl belongs to 'growing'.")
        for name, least in (("min_count", 1), ("ttl", 0), ("unknown_rows", 1), ("hashes", 1)):
            at_least(f"key space {self.name!r} {name}", getattr(self, name), least)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input column.

    `of`: whose it is. `user` and `context` features are read once per request; `item` features describe the candidate
    and can also be reached from history events by item id; `pair` features belong to one row (a match count, a slot).
    `key_space` (categorical, multi) defaults to the feature's own name, `column` too. `weights` names the column of
    per-value weights of a `multi` feature. `mutable` item attributes are kept with every history event as they were
    at its time; the others are looked up by item id. `text` is stored with the item and passed through; nothing
    encodes it yet. `dim` is the width of a `vector`.
    """

    name: str
    kind: FeatureKind
    of: Owner = "context"
    column: str = ""
    key_space: str = ""
    weights: str = ""
    scale: Scale = "standard"
    mutable: bool = False
    dim: int = 0

    def __post_init__(self) -> None:
        checked_name("feature", self.name)
        one_of(f"feature {self.name!r} kind", self.kind, FeatureKind)
        one_of(f"feature {self.name!r} of", self.of, Owner)
        one_of(f"feature {self.name!r} scale", self.scale, Scale)
        object.__setattr__(self, "column", self.column or self.name)
        if self.kind in ("categorical", "multi"):
            object.__setattr__(self, "key_space", self.key_space or self.name)
            checked_name("key space", self.key_space)
        elif self.key_space:
            raise SchemaError(f"Feature {self.name!r} is {self.kind}: only categorical and multi have a key_space.")
        if self.weights and self.kind != "multi":
            raise SchemaError(f"Feature {self.name!r} is {self.kind}: only multi features have weights.")
        if (self.kind == "vector") != (self.dim > 0):
            got = f"Feature {self.name!r} is {self.kind} with dim {self.dim}"
            raise SchemaError(f"{got}: vectors, and only they, have dim > 0.")
        if self.kind != "numeric" and self.scale not in ("none", "standard"):
            raise SchemaError(f"Feature {self.name!r} is {self.kind}: only numeric features have a scale.")
        if self.kind == "text" and self.of != "item":
            raise SchemaError(f"Feature {self.name!r} is text of {self.of}: text is kept with the item (of = 'item').")
        if self.mutable and (self.of, self.kind) != ("item", "categorical"):
            got = f"Feature {self.name!r} is {self.kind} of {self.of}"
            raise SchemaError(f"{got}: only categorical features of the item can be mutable.")


@dataclass(frozen=True, kw_only=True)
class EventFeature:
    """A column of a history event that is known as soon as the event is (a rating, an action, a dwell time)."""

    name: str
    kind: Literal["categorical", "numeric"] = "categorical"
    column: str = ""
    key_space: str = ""
    scale: Scale = "standard"

    def __post_init__(self) -> None:
        checked_name("event feature", self.name)
        one_of(f"event feature {self.name!r} kind", self.kind, Literal["categorical", "numeric"])
        one_of(f"event feature {self.name!r} scale", self.scale, Scale)
        object.__setattr__(self, "column", self.column or self.name)
        if self.kind == "categorical":
            object.__setattr__(self, "key_space", self.key_space or self.name)
            checked_name("key space", self.key_space)
        elif self.key_space:
            raise SchemaError(f"Event feature {self.name!r} is numeric: only categorical ones have a key_space.")
        if self.kind == "categorical" and self.scale not in ("none", "standard"):
            raise SchemaError(f"Event feature {self.name!r} is categorical: only numeric ones have a scale.")


@dataclass(frozen=True, kw_only=True)
class EventOutcome:
    """What came of a history event, with an availability of its own.

    A positive outcome is known at its `time` (+ `lag` s), any other at event time + `window` s (+ `lag`). A request
    sees it from strictly later on; until then the outcome is *not yet known* (NaN in a batch), never 0.
    """

    name: str
    column: str = ""
    time: str = ""
    window: int = 0
    lag: int = 0

    def __post_init__(self) -> None:
        checked_name("outcome", self.name)
        at_least(f"outcome {self.name!r} window", self.window, 0)
        at_least(f"outcome {self.name!r} lag", self.lag, 0)
        object.__setattr__(self, "column", self.column or self.name)


@dataclass(frozen=True, kw_only=True)
class History:
    """The past events of a user in one domain.

    `by_user`: events come from the log's own rows (`source = "log"`, those where column `where` equals 1 if given) or
    from a file of events (`source = "file"`), and are grouped by user. `inline`: each row carries its lists, as the
    server logged them. `item` and `time` are columns of the event source (list columns for `inline`); for
    `source = "log"` they default to the roles. Past means: available (event time + `lag` s) strictly before the
    request. A batch shows the newest `max_length` of them, oldest first.
    """

    name: str
    layout: Layout = "by_user"
    source: EventSource = "log"
    user: str = ""
    item: str = ""
    key_space: str = "item"
    time: str = ""
    lag: int = 0
    max_length: int = 100
    order: Literal["oldest_first", "newest_first"] = "oldest_first"
    where: str = ""
    features: tuple[EventFeature, ...] = ()
    outcomes: tuple[EventOutcome, ...] = ()

    def __post_init__(self) -> None:
        checked_name("history", self.name)
        checked_name("key space", self.key_space)
        one_of(f"history {self.name!r} layout", self.layout, Layout)
        one_of(f"history {self.name!r} source", self.source, EventSource)
        one_of(f"history {self.name!r} order", self.order, Literal["oldest_first", "newest_first"])
        at_least(f"history {self.name!r} max_length", self.max_length, 1)
        at_least(f"history {self.name!r} lag", self.lag, 0)
        if self.layout == "inline" and (not self.item or self.source == "file" or self.user):
            raise SchemaError(
                f"History {self.name!r} is inline, lists in the log's own rows: it needs `item` (a list column), "
                "and has neither source 'file' nor `user`."
            )
        if self.where and (self.layout, self.source) != ("by_user", "log"):
            raise SchemaError(f"History {self.name!r} has `where`: it picks the log's rows for a by_user history.")
        names = [f.name for f in self.features] + [o.name for o in self.outcomes]
        once(f"history {self.name!r} feature and outcome", names)
        for name in names:
            if name in EVENT_COLUMNS:
                own = ", ".join(EVENT_COLUMNS)
                raise SchemaError(f"History {self.name!r} has a feature {name!r}: every event has {own} already.")

    def time_is_known(self, schema: Schema) -> bool:
        """Whether events of this history have a clock time (so that their age before a request is a number)."""
        return bool(schema.roles.time) and (self.layout == "by_user" or bool(self.time))


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to predict. A label is positive, negative or *not yet known*.

    A positive label is known at `label_time` (a column; the row's time if empty); any other at row time + `window`
    seconds. Until the data's `as_of` has passed both, the label is masked, never a silent 0; that holds for an early
    positive too, since its negative neighbours are not known yet. `parent` is the funnel's step before
    (a conversion's click); `scenarios` restricts a task to rows of those scenarios; `classes` is for `multiclass`.
    """

    name: str
    kind: TaskKind = "binary"
    column: str = ""
    label_time: str = ""
    window: int = 0
    parent: str = ""
    scenarios: tuple[str, ...] = ()
    classes: int = 0

    def __post_init__(self) -> None:
        checked_name("task", self.name)
        one_of(f"task {self.name!r} kind", self.kind, TaskKind)
        at_least(f"task {self.name!r} window", self.window, 0)
        object.__setattr__(self, "column", self.column or self.name)
        if (self.kind == "multiclass") != (self.classes > 1):
            got = f"Task {self.name!r} is {self.kind} with {self.classes} classes"
            raise SchemaError(f"{got}: multiclass tasks, and only they, have classes > 1.")


@dataclass(frozen=True, kw_only=True)
class TimeColumn:
    """A column of times (`name`) whose numbers are in a unit of its own: logs are joined from systems that count in
    seconds and others that count in milliseconds."""

    name: str
    unit: Literal["s", "ms", "us"]

    def __post_init__(self) -> None:
        one_of(f"unit of time column {self.name!r}", self.unit, Literal["s", "ms", "us"])


@dataclass(frozen=True, kw_only=True)
class Schema:
    """All of it. `time_unit` is the unit of every time column (dates and timestamps are taken as they are) but those
    in `time_columns`, which have their own; `position` says that the log has an order and no clock. `time_sorted`
    promises rows in time order: a row that breaks the promise is an error. Key spaces not listed get the defaults of
    `KeySpace`."""

    name: str = "log"
    roles: Roles = field(default_factory=Roles)
    time_unit: TimeUnit = "s"
    time_sorted: bool = False
    features: tuple[Feature, ...] = ()
    histories: tuple[History, ...] = ()
    tasks: tuple[Task, ...] = ()
    key_spaces: tuple[KeySpace, ...] = ()
    time_columns: tuple[TimeColumn, ...] = ()

    def __post_init__(self) -> None:
        one_of("time_unit", self.time_unit, TimeUnit)
        once("feature", [f.name for f in self.all_features()])
        once("history", [h.name for h in self.histories])
        once("task", [t.name for t in self.tasks])
        once("key space", [k.name for k in self.key_spaces])
        if self.roles.time and self.roles.order:
            raise SchemaError("Expected a time or an order, got both: drop `order` where the log has a clock.")
        if self.roles.order and self.time_unit != "position":
            raise SchemaError(f"Expected time_unit 'position' with role order, got {self.time_unit!r}.")
        if self.roles.time and self.time_unit == "position":
            raise SchemaError("Expected time_unit 's', 'ms' or 'us' with role time, got 'position' (for role `order`).")
        for history in self.histories:
            if not self.roles.user and history.layout == "by_user":
                raise SchemaError(f"History {history.name!r} is by_user: it needs the role `user`.")
            if not (self.roles.time or self.roles.order) and history.layout == "by_user":
                raise SchemaError(f"History {history.name!r} is by_user: it needs the role `time` or `order`.")
        check_time_columns(self)
        check_features(self)
        check_funnel(self)
        used = self.used_key_spaces()
        for space in self.key_spaces:
            if space.name not in used:
                near = did_you_mean(space.name, used)
                raise SchemaError(f"No feature or history uses key space {space.name!r}, only {list(used)}.{near}")

    def unit_of(self, column: str) -> TimeUnit:
        """The unit of the numbers in a column of times."""
        for own in self.time_columns:
            if own.name == column:
                return own.unit
        return self.time_unit

    def key_space(self, name: str) -> KeySpace:
        """The declared key space of that name, or one with the defaults."""
        return next((space for space in self.key_spaces if space.name == name), KeySpace(name=name))

    def all_features(self) -> tuple[Feature, ...]:
        """The features, after the two that the roles `user` and `item` imply."""
        user = Feature(name="user", kind="categorical", of="user", column=self.roles.user)
        item = Feature(name="item", kind="categorical", of="item", column=self.roles.item)
        implied = (user,) * bool(self.roles.user) + (item,) * bool(self.roles.item)
        return implied + self.features

    def feature(self, name: str) -> Feature:
        """The feature of that name; an error names the nearest one."""
        named = {feature.name: feature for feature in self.all_features()}
        if name not in named:
            raise SchemaError(f"No feature {name!r}; the features are {list(named)}.{did_you_mean(name, list(named))}")
        return named[name]

    def history(self, name: str) -> History:
        """The history of that name; an error names the nearest one."""
        named = {history.name: history for history in self.histories}
        if name not in named:
            raise SchemaError(f"No history {name!r}; the histories are {list(named)}.{did_you_mean(name, list(named))}")
        return named[name]

    def used_key_spaces(self) -> tuple[str, ...]:
        """Every key space that some column writes ids of, in schema order."""
        names = [f.key_space for f in self.all_features() if f.key_space]
        for history in self.histories:
            names += [history.key_space, *(f.key_space for f in history.features if f.key_space)]
        return tuple(dict.fromkeys(names))
