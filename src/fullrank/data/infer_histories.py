"""Histories that a log offers: lists that its rows carry, and its own rows as events of their user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fullrank.data.infer_features import share_known
from fullrank.data.infer_names import HISTORY_WORDS, ITEM_WORDS, is_action_name, is_time_name
from fullrank.data.infer_sample import Column, Sample
from fullrank.data.infer_tasks import UNITS
from fullrank.schema import EventFeature, EventOutcome, History, Roles, Task, TimeUnit

_NEWEST = 100
_SHARED = 0.5  # of a list's distinct values are items of the log: then they are items (our choice)
_TEN_YEARS = 3_652 * 86_400


@dataclass
class Found:
    """A history, why each part of it was guessed (by the path of a TOML comment), and the columns it uses."""

    history: History | None
    comments: dict[str, str] = field(default_factory=dict)
    columns: list[Column] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    units: dict[str, TimeUnit] = field(default_factory=dict)


def from_log(sample: Sample, roles: Roles, tasks: Mapping[str, tuple[Task, Column]]) -> Found:
    """The newest events of the user from the log's own rows: the clicked ones if clicks are few, else all with what
    came of them. Needs a user, an item, and a time or an order."""
    if not (roles.user and roles.item and (roles.time or roles.order)):
        return Found(None)
    features = [
        EventFeature(name=_event_name(task.name), kind="numeric", column=task.column)
        for task, _ in tasks.values()
        if task.kind == "regression"
    ]
    actions = [column for column in sample.columns if is_action_name(column) and column.type in ("text", "integer")]
    features += [EventFeature(name=_event_name("_".join(c.words)), column=c.name) for c in actions]
    base = f"a user's newest {_NEWEST} events before the request, from the log's own rows"
    at_once = [
        (task, column)
        for task, column in tasks.values()
        if task.kind == "binary" and not task.label_time and not task.window and not task.parent
    ]
    comments = {}
    if at_once:
        task, column = at_once[0]
        share = float(column.positive().mean())
        if 0 < share < 0.5:
            history = History(name="past", where=task.column, max_length=_NEWEST, features=tuple(features))
            comments["history.past"] = base
            comments["history.past.where"] = (
                f"only rows with {task.column} = 1 ({share:.1%} of the sample): what was merely shown would crowd them "
                "out. Take this line away to keep every row."
            )
            return Found(history, comments, actions)
        outcome = EventOutcome(name=_event_name(task.name), column=task.column)
        history = History(name="past", max_length=_NEWEST, features=tuple(features), outcomes=(outcome,))
        comments["history.past"] = f"{base}, all of them: {task.column} = 1 in {share:.1%}"
        return Found(history, comments, actions)
    comments["history.past"] = f"{base}, all of them: no 0/1 label that is known at once says which count"
    return Found(History(name="past", max_length=_NEWEST, features=tuple(features)), comments, actions)


def _event_name(name: str) -> str:
    return f"event_{name}" if name in ("item", "time", "available", "age") else name


def inline(sample: Sample, item: Column | None, time: Column | None, unit: TimeUnit) -> list[Found]:
    """Groups of list columns that are one list per row: named like a history, the same lengths in every row."""
    groups: dict[tuple[bytes, str], list[Column]] = {}
    for column in sample.columns:
        word = next((word for word in column.words if word in HISTORY_WORDS), None)
        if column.is_list and word:
            at = column.words.index(word)
            prefix = "_".join(column.words[: at + 1]) if at else word
            groups.setdefault((column.lengths.tobytes(), prefix), []).append(column)
    return [_one_inline(prefix, columns, item, time, unit) for (_, prefix), columns in groups.items()]


def _one_inline(
    name: str, columns: list[Column], item: Column | None, row_time: Column | None, unit: TimeUnit
) -> Found:
    integers = [c for c in columns if c.type == "integers"]
    times = [c for c in integers if is_time_name(c)]
    times = times or [c for c in integers if row_time and any(_just_before(c, row_time, unit, u) for u in UNITS)]
    keys = [c for c in columns if c.type in ("integers", "texts") and c not in times]
    if not keys:
        return Found(None, left_out={c.name: "a list of a history that has no item column" for c in columns})
    # A handful of codes is always found among many items: only what has many values can be the items themselves.
    shares = {c.name: share_known(c.flat, item.array) if item and c.distinct >= 20 else 0.0 for c in keys}
    events = max(keys, key=lambda c: (shares[c.name] >= _SHARED, bool(ITEM_WORDS & set(c.words)), c.distinct))
    shared = shares[events.name] >= _SHARED
    order, problem = "oldest_first", ""
    time = times[0] if times else None
    own: TimeUnit = unit
    if time is not None:
        order, problem = _order_of(time, row_time, unit, own)
        for other in UNITS if problem and row_time else ():
            if other != unit and _just_before(time, row_time, unit, other):  # pyright: ignore[reportArgumentType]  # row_time is there
                own = other
                order, problem = _order_of(time, row_time, unit, own)
    if problem:
        return Found(None, left_out={c.name: f"a list of history {name!r}, whose times {problem}" for c in columns})
    rest = [c for c in columns if c is not events and c is not time]
    features = tuple(
        EventFeature(
            name=_event_name("_".join(c.words)),
            kind="numeric" if c.type == "numbers" else "categorical",
            column=c.name,
        )
        for c in rest
    )
    history = History(
        name=name,
        layout="inline",
        item=events.name,
        key_space="item" if shared else f"{name}_item",
        time=time.name if time else "",
        max_length=max(1, min(500, int(max(events.lengths)))),
        order="newest_first" if order == "newest_first" else "oldest_first",
        features=features,
    )
    why = f"list columns of equal lengths, {np.mean(events.lengths):.1f} events a row; {events.name} has the most items"
    if shared:
        why += f", and shares ids with the role item ({shares[events.name]:.0%} of its values are items of the log)"
    if time is None:
        why += ". No list of times: taken as oldest first, check it"
    units: dict[str, TimeUnit] = {time.name: own} if time is not None and own != unit else {}
    return Found(history, {f"history.{name}": why}, columns, units=units)


def _order_of(time: Column, row_time: Column | None, unit: TimeUnit, own: TimeUnit) -> tuple[str, str]:
    """How the events of a row are ordered, their times being in `own`, and what is wrong with these (an empty string
    if nothing is)."""
    if time.flat.null_count:
        return "", "are missing in places"
    values, lengths = time.numbers, time.lengths
    step = np.diff(values)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    step = step[owner[1:] == owner[:-1]]
    if row_time is not None:
        rows = row_time.seconds(unit)[owner]
        later = float((values / _per_second(own) > rows).mean()) if len(values) else 0.0
        if later:
            return "", f"are later than the row's own in {later:.1%} of the events (or in another unit)"
    if not (step < 0).any():
        return "oldest_first", ""
    return ("newest_first", "") if not (step > 0).any() else ("", "are not in order within a row")


def _just_before(column: Column, row_time: Column, unit: TimeUnit, own: TimeUnit) -> bool:
    """Whether every value, as a time in `own`, lies within the ten years before its row: no id does so by chance."""
    rows = row_time.seconds(unit)[np.repeat(np.arange(len(column.lengths)), column.lengths)]
    age = rows - column.numbers / _per_second(own) if not column.flat.null_count else np.array([-1.0])
    return len(age) > 0 and float(rows.min()) > _TEN_YEARS and age.min() >= 0 and age.max() < _TEN_YEARS


def _per_second(unit: TimeUnit) -> int:
    return {"s": 1, "ms": 1_000, "us": 1_000_000, "position": 1}[unit]
