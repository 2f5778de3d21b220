"""A simulated ad log of any size whose truth is known: for tests, benchmarks, and where nothing real can be had.

Users come (more every day), a policy with known propensities or an auction fills the slots of a page, users click and
some of them convert, late. What makes them click is planted, effect by effect, in known strengths (`Effects`). The
columns `p_click`, `p_conversion` (and `p_look`, the chance that the slot was looked at) hold the true probabilities; no
feature of the schema reads them. Numbers from this log say that code works. They say nothing about the world.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from math import gcd

import numpy as np
import pyarrow as pa

from fullrank.data.simulate_config import DAY, PAST, Auction, Effects, SimulatorConfig
from fullrank.data.simulate_draws import bits
from fullrank.data.simulate_effects import ad_vectors
from fullrank.data.simulate_memory import Living, Memory, Nothing, Recorded
from fullrank.data.simulate_rows import START, RowMaker, Rows
from fullrank.data.simulate_schema import simulator_schema
from fullrank.data.simulate_world import DEVICES, INTERESTS, SEGMENTS
from fullrank.data.source import CHUNK_ROWS, LogChunk, LogSource, fingerprint_of

__all__ = ["DAY", "START", "Auction", "Effects", "LateLabels", "SimulatedLog", "SimulatorConfig", "simulator_schema"]

_VERSION = b"simulated ad log 2"  # changes whenever the same config gives other rows
_KEPT_DAYS = 3


class SimulatedLog:
    """The log of all days, or of one (`day`); what a chunk holds is a function of the config and its number alone.

    The log of all days holds every conversion with its time, also those to come after the last day: mask them by
    `as_of`. A day's log is what was written when the day ended: later conversions are 0 in it, and `late_labels`.

    Where rows owe something to rows before them (`SimulatorConfig.remembers`), reading a day first goes through the
    days before it, unless this log or one of its days has just done so: the state at the beginning of the last
    few days is kept. Not for shuffled logs beyond memory: what the past of every row did is then kept, 12 bytes a row.
    """

    def __init__(self, config: SimulatorConfig, day: int | None = None) -> None:
        if day is not None and not 0 <= day < config.days:
            raise ValueError(f"Expected a day in 0 … {config.days - 1}, got {day}.")
        self.config = config
        self.name = "simulated" if day is None else f"simulated, day {day}"
        self.schema = simulator_schema(config)
        self.events: Mapping[str, LogSource] = {}
        self._day = day
        self._maker = RowMaker(config)
        self._mornings: dict[int, Living] = {}

    def day(self, day: int) -> SimulatedLog:
        """The log that was written at the end of one day (0 is the first)."""
        log = SimulatedLog(self.config, day)
        log._maker, log._mornings = self._maker, self._mornings
        return log

    def late_labels(self, day: int) -> LateLabels:
        """The conversions of rows of `day` that were known only after its end."""
        return LateLabels(self.day(day))

    def chunks(self) -> Iterator[LogChunk]:
        first_row = 0
        for rows in self.rows():
            yield LogChunk(self._records(rows), self.name, first_row)
            first_row += len(rows.slot)

    def contributions(self, task: str) -> Iterator[dict[str, np.ndarray]]:
        """What each planted effect adds to the logit of `click` or `conversion` at strength 1, chunk by chunk as
        `chunks` gives them: effects of strength 0 are left out, and `position`, which is not on the logit, too."""
        if task not in ("click", "conversion"):
            raise ValueError(f"Expected task 'click' or 'conversion', got {task!r}.")
        static = self._maker.click if task == "click" else self._maker.conversion
        for rows in self.rows():
            past = {name: getattr(rows.past, name) for name in PAST if getattr(static.strengths, name)}
            yield static.contributions(rows.pairs) | past

    def fingerprint(self) -> str:
        return fingerprint_of([_VERSION, repr(sorted(asdict(self.config).items())).encode(), repr(self._day).encode()])

    def end_of(self, day: int) -> int:
        """The moment a day ends, in seconds since 1970."""
        return START + (day + 1) * DAY

    def rows(self) -> Iterator[Rows]:
        """The rows of every chunk with all that is true of them."""
        if not self.config.remembers():
            memory: Memory = Nothing(self.config)
        elif self.config.sorted_by_time:
            yield from self._lived()
            return
        else:
            memory = self._recorded()
        for request in self._requests():
            yield self._maker.rows(request, memory)

    def _days(self) -> range:
        return range(self.config.days) if self._day is None else range(self._day, self._day + 1)

    def _requests(self) -> Iterator[np.ndarray]:
        days = self._days()
        first = int(self._maker.bounds[days.start])
        count = int(self._maker.bounds[days.stop]) - first
        each = max(1, CHUNK_ROWS // self.config.slots)
        stride = round(count * 0.618) | 1  # a step that shares no factor with count visits every request once
        while gcd(stride, count) > 1:
            stride += 2
        for start in range(0, count, each):
            place = np.arange(start, min(start + each, count))
            yield first + (place if self.config.sorted_by_time else place * stride % count)

    # ---- logs with a memory

    def _lived(self) -> Iterator[Rows]:
        """The rows in the order of time, a day's chunks at a time."""
        days = self._days()
        memory = self._morning(days.start)
        for day in days:
            yield from self._through(day, memory)
            self._keep(day + 1, memory)

    def _through(self, day: int, memory: Living) -> Iterator[Rows]:
        """One day; where budgets are settled, so often."""
        each = max(1, CHUNK_ROWS // self.config.slots)
        if self.config.auction.budget:
            each = min(each, self.config.auction.settle_requests)
        end = int(self._maker.bounds[day + 1])
        for start in range(int(self._maker.bounds[day]), end, each):
            yield self._maker.rows(np.arange(start, min(start + each, end)), memory)

    def _morning(self, day: int) -> Living:
        """The state before the first request of a day, by living through the days before it."""
        known = [begun for begun in self._mornings if begun <= day]
        memory = self._mornings[max(known)].copy() if known else Living(self.config, self._maker.all_users)
        for before in range(max(known, default=0), day):
            for _ in self._through(before, memory):
                pass
            self._keep(before + 1, memory)
        return memory

    def _keep(self, day: int, memory: Living) -> None:
        self._mornings[day] = memory.copy()
        while len(self._mornings) > _KEPT_DAYS:
            del self._mornings[min(self._mornings)]

    def _recorded(self) -> Recorded:
        """What the past did to every row of the period, for reading it in any order."""
        days, config = self._days(), self.config
        first, end = (int(self._maker.bounds[day]) * config.slots for day in (days.start, days.stop))
        recorded, memory = Recorded(first, end - first), self._morning(days.start)
        for day in days:
            for rows in self._through(day, memory):
                recorded.add(rows.request, rows.out, rows.request * config.slots + rows.slot, rows.past)
            self._keep(day + 1, memory)
        return recorded

    def _records(self, rows: Rows) -> pa.RecordBatch:
        config, users, ads, pairs = self.config, rows.users, rows.ads, rows.pairs
        converted = rows.conversion
        if self._day is not None:
            converted = converted & (rows.conversion_time < self.end_of(self._day))
        counted = np.arange(INTERESTS) < users.interests[:, None]
        offsets = pa.array(np.concatenate([[0], users.interests.cumsum()]).astype(np.int32))
        categories = self._texts["category"].take(pa.array(users.interest_nI[counted]))
        columns = {
            "request": rows.request,
            "impression": rows.request * config.slots + rows.slot,
            "time": rows.time,
            "user": bits(config.seed, "user key", users.index).view(np.int64),
            "segment": self._texts["segment"].take(pa.array(users.segment)),
            "age": pa.array(users.age, mask=~users.knows_age),
            "interests": pa.ListArray.from_arrays(offsets, categories),
            "interest_weights": pa.ListArray.from_arrays(offsets, pa.array(users.weight_nI[counted], pa.float32())),
            "hour": pairs.hour.astype(np.int8),
            "device": self._texts["device"].take(pa.array(pairs.device)),
            "ad": self._texts["ad"].take(pa.array(ads.index)),
            "campaign": ads.campaign,
            "advertiser": ads.campaign // 5,
            "category": self._texts["category"].take(pa.array(ads.category)),
            "format": ads.format.astype(np.int8),
            "price": pa.array(ads.price, from_pandas=True),
            "match": pa.array(pairs.match, from_pandas=True),
            "position": rows.slot.astype(np.int16),
            "propensity": rows.shown.propensity,
            "explored": rows.shown.explored.astype(np.int8),
            "bid": ads.bid,
            "click": rows.click.astype(np.int8),
            "conversion": converted.astype(np.int8),
            "conversion_time": pa.array(rows.conversion_time, mask=~converted),
            "p_look": rows.p_look,
            "p_click": rows.p_click,
            "p_conversion": rows.p_conversion,
        }
        if config.scenarios > 1:
            columns["scenario"] = self._texts["scenario"].take(pa.array(pairs.scenario))
        if config.vector_dim:
            columns["vector"] = pa.FixedSizeListArray.from_arrays(
                pa.array(self._vectors[ads.index].ravel()), config.vector_dim
            )
        if config.auction.bidders:
            columns["paid"] = rows.shown.paid
        return pa.RecordBatch.from_pydict({name: pa.array(column) for name, column in columns.items()})

    @cached_property
    def _texts(self) -> dict[str, pa.Array]:
        config = self.config
        counts = {"segment": SEGMENTS, "device": DEVICES, "category": config.categories}
        counts |= {"scenario": config.scenarios, "ad": self._maker.all_ads}
        return {name: pa.array([f"{name}-{number:04d}" for number in range(count)]) for name, count in counts.items()}

    @cached_property
    def _vectors(self) -> np.ndarray:
        return ad_vectors(self.config, np.arange(self._maker.all_ads))


class LateLabels:
    """Conversions that came after their day's log was written: columns `impression`, `task`, `label`, `time`."""

    def __init__(self, log: SimulatedLog) -> None:
        assert log._day is not None
        self.name = f"late labels of {log.name}"
        self.schema = log.schema
        self.events: Mapping[str, LogSource] = {}
        self._log = log
        self._end = log.end_of(log._day)

    def chunks(self) -> Iterator[LogChunk]:
        first_row = 0
        for rows in self._log.rows():
            late = np.flatnonzero(rows.conversion & (rows.conversion_time >= self._end))
            columns = {
                "impression": pa.array((rows.request * self._log.config.slots + rows.slot)[late]),
                "task": pa.array(["conversion"] * len(late), pa.string()),
                "label": pa.array(np.ones(len(late), dtype=np.int8)),
                "time": pa.array(rows.conversion_time[late]),
            }
            yield LogChunk(pa.RecordBatch.from_pydict(columns), self.name, first_row)
            first_row += len(late)

    def fingerprint(self) -> str:
        return fingerprint_of([b"late labels", self._log.fingerprint().encode()])
