"""What a batch has to hold, worked out from the definitions by loops over plain records: no array, no file, no code of
the data room but the codes of keys.

Only for the schema of `test_batch_oracle.py`: columns are known by name here, options are read from the schema.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, floor, log10, nan
from statistics import fmean, pstdev
from typing import Any

from fullrank.data.keys import code_of_key
from fullrank.data.splits import ByTime, GivenFiles, PerUserOrder, Split
from fullrank.schema import EventFeature, EventOutcome, History, Schema, Task

Record = dict[str, Any]
SECOND = 1_000_000
SPACES = {  # key space -> the columns of a row that hold its keys
    **{"user": ["u"], "item": ["i", "recent_i"], "hour": ["hour"]},
    **{"brand": ["brand", "shelf"], "tag": ["tags"], "mark": ["mark"]},
}


def code(key: Any) -> int:
    return 0 if key is None else code_of_key(key)


@dataclass
class Ids:
    """The ids of one key space after some days. `since[code]`: the day that gave the key its id."""

    unknown_rows: int
    min_count: int
    own: dict[int, int] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)

    def extend(self, codes: list[int], day: int) -> None:
        met = Counter(one for one in codes if one)
        self.counts.update(met)
        new = [one for one in met if one not in self.own and self.counts[one] >= self.min_count]
        for one in sorted(new, key=lambda one: (-self.counts[one], one)):
            self.own[one] = 2 + self.unknown_rows + len(self.own)
            self.since[one] = day

    def id(self, key: Any, day: int) -> int:
        """The id that a record of that day was given."""
        one = code(key)
        if one == 0:
            return 1
        if self.since.get(one, day + 1) <= day:
            return self.own[one]
        return 2 + one % self.unknown_rows


@dataclass
class Day:
    """One partition: rows as logged, the split each file was given, and events of the file history."""

    rows: list[Record]
    events: list[Record]
    given: list[str]


class Oracle:
    """Some days of a log, prepared one after the other: the first with `split`, the others all train."""

    def __init__(self, schema: Schema, days: list[Day], split: Split, as_of: int | None) -> None:
        self.schema, self.days = schema, days
        for day, part in enumerate(days):
            self._requests(part.rows, day)
        self.splits = [_splits(part, split if day == 0 else None) for day, part in enumerate(days)]
        self.ids = {}
        for space in SPACES:
            declared = schema.key_space(space)
            self.ids[space] = Ids(declared.unknown_rows, declared.min_count)
        for day in range(len(days)):
            self._fit(day)
        logged, training = schema.history("logged"), self._training(0)
        events = [row for row in training if not logged.where or row[logged.where] == 1]
        self.scales = {"num": _moments(row["num"] for row in training), "dwell": _moments(e["dwell"] for e in events)}
        self.as_of = as_of if as_of is not None else self._known_by()

    # requests, splits, ids

    def _requests(self, rows: list[Record], day: int) -> None:
        """Rows of one user and request key are a request; its time is the least of theirs."""
        groups: dict[Any, list[Record]] = {}
        for number, row in enumerate(rows):
            row["row"], row["day"] = number, day
            groups.setdefault((row["u"], number if row["r"] is None else ("r", row["r"])), []).append(row)
        for group in groups.values():
            for row in group:
                row["first"], row["now"] = group[0]["row"], min(one["t"] for one in group)

    def _training(self, day: int) -> list[Record]:
        return [r for r, split in zip(self.days[day].rows, self.splits[day], strict=True) if split == "train"]

    def _fit(self, day: int) -> None:
        rows = self._training(day)
        for space, columns in SPACES.items():
            keys: list[Any] = []
            for row in rows:
                for column in columns:
                    keys += row[column] if isinstance(row[column], list) else [row[column]]
            if rows and space in ("item", "mark"):
                last, lag = max(row["now"] for row in rows), self.schema.history("filed").lag
                past = [event for event in self.days[day].events if event["t"] + lag < last]
                keys += [event["i" if space == "item" else "mark"] for event in past]
            self.ids[space].extend([code(key) for key in keys], day)

    def _known_by(self) -> int:
        """The latest row, or label that is dated later; a date at the very end of its window says no more than none."""
        rows = [row for day in self.days for row in day.rows]
        window = next(task.window for task in self.schema.tasks if task.name == "buy")
        dated = [max(r["t"], r["buy_t"]) for r in rows if r["buy"] == 1 and r["buy_t"] not in (None, r["t"] + window)]
        return max([row["t"] for row in rows] + dated) * SECOND

    # rows

    def rows(self, day: int, split: str) -> list[Record]:
        """What each row of a split reads, in prepared order."""
        own = [r for r, s in zip(self.days[day].rows, self.splits[day], strict=True) if s == split]
        return [self._row(row) for row in sorted(own, key=lambda row: (row["first"], row["row"]))]

    def _row(self, row: Record) -> Record:
        day = row["day"]
        tags = [(tag, w) for tag, w in zip(row["tags"], row["tag_w"], strict=True) if tag is not None]
        return {
            "user": self.ids["user"].id(row["u"], day),
            "hour": self.ids["hour"].id(row["hour"], day),
            "num": self._scaled("num", row["num"]),
            "item": self.ids["item"].id(row["i"], day),
            "brand": self.ids["brand"].id(row["brand"], day),
            "shelf": self.ids["brand"].id(row["shelf"], day),
            "tags": [(self.ids["tag"].id(tag, day), float(weight)) for tag, weight in tags],
            "time": row["now"] * SECOND,
            "weight": float(row["weight"]),
            "labels": {task.name: self._label(row, task) for task in self.schema.tasks},
            "histories": {h.name: [self._event(row, h, e) for e in self._past(row, h)] for h in self.schema.histories},
        }

    def _scaled(self, name: str, number: float | None) -> float:
        mean, sd = self.scales[name]
        return nan if number is None else (number - mean) / sd

    def _label(self, row: Record, task: Task) -> tuple[float, bool]:
        value, date, closes = row[task.column], row.get(task.label_time), row["t"] + task.window
        if value is None:
            return 0.0, False
        known_at = closes
        if value and not task.label_time:
            known_at = row["t"]
        elif value and date is not None:
            known_at = max(date, row["t"])
        known = max(known_at, closes) * SECOND <= self.as_of
        return (float(value), True) if known else (0.0, False)

    # histories

    def _past(self, row: Record, history: History) -> list[Record]:
        """The events that this row's request sees, oldest first."""
        events: list[tuple[Any, Record]] = []
        if history.layout == "inline":
            pairs = list(zip(row["recent_i"], row["recent_t"], strict=True))
            pairs = pairs[::-1] if history.order == "newest_first" else pairs
            for place, (item, time) in enumerate(pairs):
                events.append(((time + history.lag, place), {"i": item, "when": time}))
        elif row["u"] is not None:
            for number, part in enumerate(self.days[: row["day"] + 1]):
                for place, event in enumerate(part.events if history.source == "file" else part.rows):
                    if event["u"] is None or code(event["u"]) != code(row["u"]):
                        continue
                    when = event[history.time or "t"]
                    available = when + history.lag
                    if history.source == "log":
                        if history.where and event[history.where] != 1:
                            continue
                        available = max(available, event["now"])
                    events.append(((available, when, number, place), {**event, "when": when}))
        past = [(order, event) for order, event in events if order[0] < row["now"]]
        return [event for _, event in sorted(past, key=lambda pair: pair[0])][-history.max_length :]

    def _event(self, row: Record, history: History, event: Record) -> Record:
        day = row["day"]  # events of earlier days are carried over in the ids of the row's day
        read: Record = {
            "item": self.ids["item"].id(event["i"], day),
            "age": log10(1.0 + row["now"] - event["when"]),
            **{f.name: self._feature(f, event, day) for f in history.features},
            **{outcome.name: self._outcome(row, event, outcome) for outcome in history.outcomes},
        }
        first = self._first_seen(event["i"], day)
        seen = first if first is not None and first["t"] < row["now"] else None
        version = max(seen["day"], self.ids["item"].since[code(event["i"])]) if seen else 0
        read["item.brand"] = self.ids["brand"].id(seen["brand"], version) if seen else 1
        read["item.tags"] = (
            [self.ids["tag"].id(tag, version) for tag in seen["tags"] if tag is not None] if seen else []
        )
        if history.source == "log" and history.layout == "by_user":
            read["item.shelf"] = self.ids["brand"].id(event["shelf"], day)  # as it was at the event's time
        else:
            read["item.shelf"] = self.ids["brand"].id(seen["shelf"], version) if seen else 1
        return read

    def _feature(self, feature: EventFeature, event: Record, day: int) -> float:
        if feature.kind == "numeric":
            return self._scaled(feature.name, event[feature.name])
        return self.ids[feature.key_space].id(event[feature.column], day)

    def _outcome(self, row: Record, event: Record, outcome: EventOutcome) -> float:
        value, date = event["buy"], event["buy_t"]
        if value is None:
            return nan
        known_at = event["when"] + outcome.window
        if value and date is not None:
            known_at = max(date, event["when"])
        return float(value) if known_at + outcome.lag < row["now"] else nan

    def _first_seen(self, item: Any, day: int) -> Record | None:
        """The row whose attributes an event reads: the item's first, of the first day that has any; none if the item
        had no id of its own on the reading day."""
        if code(item) == 0 or self.ids["item"].since.get(code(item), day + 1) > day:
            return None
        rows = [row for part in self.days for row in part.rows if code(row["i"]) == code(item)]
        return min(rows, key=lambda row: (row["day"], row["t"], row["row"]), default=None)


def _moments(numbers: Iterable[float | None]) -> tuple[float, float]:
    there = [number for number in numbers if number is not None]
    return (fmean(there), pstdev(there) or 1.0) if there else (0.0, 1.0)


def _splits(part: Day, split: Split | None) -> list[str]:
    rows, n = part.rows, len(part.rows)
    decided = ["train"] * n
    if isinstance(split, ByTime) and isinstance(split.valid, float) and isinstance(split.test, float):
        times = sorted(row["now"] for row in rows)
        test, valid = (ceil(n * (1 - share) - 1e-6) for share in (split.test, split.valid + split.test))
        for i, row in enumerate(rows):
            later_than = [name for name, rank in (("valid", valid), ("test", test)) if row["now"] > times[rank - 1]]
            decided[i] = later_than[-1] if later_than else "train"
    elif isinstance(split, PerUserOrder):
        for user in {row["u"] for row in rows} - {None}:
            mine = sorted((r for r in rows if r["u"] == user), key=lambda r: (r["now"], r["first"], r["row"]))
            tests, valids = (floor(len(mine) * share + 1e-9) for share in (split.test, split.valid))
            for left, row in enumerate(reversed(mine)):
                decided[row["row"]] = "test" if left < tests else "valid" if left < tests + valids else "train"
    elif isinstance(split, GivenFiles):
        decided = list(part.given)
    return [decided[row["first"]] for row in rows]
