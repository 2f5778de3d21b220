"""A simulated ad log of any size whose truth is known: for tests, benchmarks, and where nothing real can be had.

Users come (more every day), a policy with known propensities fills the slots of a page, users click (less in lower
slots) and some of them convert, late. The columns `p_click` and `p_conversion` hold the true probabilities; no feature
of the schema reads them. Numbers from this log say that code works. They say nothing about the world.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import gcd

import numpy as np
import pyarrow as pa

from fullrank.data.simulate_world import DEVICES, INTERESTS, SEGMENTS, Ads, Users, World, below, bits, uniform
from fullrank.data.source import CHUNK_ROWS, LogChunk, LogSource, fingerprint_of
from fullrank.schema import EventFeature, EventOutcome, Feature, History, Roles, Schema, Task

DAY = 86_400
START = 1_735_689_600  # 2025-01-01, UTC
_VERSION = b"simulated ad log 1"  # changes whenever the same config gives other rows


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """How large and how restless the world is.

    `users` and `ads` are there on day 0; `new_keys_per_day` of each (a share of day 0's) join every day after.
    `drift`: radians a day by which taste turns. `explore`: the share of slots that the policy fills uniformly.
    Conversions come `mean_delay` s after their click on average, exponentially, and never after
    `attribution_window` s. `sorted_by_time = False` shuffles the rows' requests (within a day for `day(k)`).
    """

    rows: int = 1_000_000
    users: int = 50_000
    ads: int = 5_000
    campaigns: int = 500
    categories: int = 20
    days: int = 10
    slots: int = 4
    seed: int = 0
    new_keys_per_day: float = 0.03
    drift: float = 0.1
    explore: float = 0.1
    mean_delay: int = 12 * 3600
    attribution_window: int = 3 * DAY
    sorted_by_time: bool = True

    def __post_init__(self) -> None:
        for name in ("rows", "users", "campaigns", "categories", "days", "slots", "mean_delay", "attribution_window"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} >= 1, got {getattr(self, name)}.")
        if self.campaigns % self.categories:
            raise ValueError(
                f"Expected campaigns to be a multiple of categories ({self.categories}), got {self.campaigns}."
            )
        if self.ads < self.slots * self.categories:
            least = self.slots * self.categories
            raise ValueError(f"Expected ads >= slots x categories = {least}, got {self.ads}.")
        if not 0.0 <= self.explore <= 1.0 or self.new_keys_per_day < 0.0:
            raise ValueError(
                f"Expected explore in [0, 1] and new_keys_per_day >= 0, got {self.explore}, {self.new_keys_per_day}."
            )


def simulator_schema(config: SimulatorConfig) -> Schema:
    """Two tasks in a funnel, of which the second is late; histories of what was clicked and of what was shown."""
    window = config.attribution_window
    slot = EventFeature(name="slot", column="position")
    conversion = EventOutcome(name="conversion", time="conversion_time", window=window)
    return Schema(
        name="simulated",
        roles=Roles(
            user="user",
            item="ad",
            request="request",
            impression="impression",
            time="time",
            position="position",
            campaign="campaign",
            advertiser="advertiser",
            propensity="propensity",
            exploration="explored",
            bid="bid",
        ),
        time_unit="s",
        time_sorted=config.sorted_by_time,
        features=(
            Feature(name="segment", kind="categorical", of="user"),
            Feature(name="age", kind="numeric", of="user"),
            Feature(name="interests", kind="multi", of="user", key_space="category", weights="interest_weights"),
            Feature(name="hour", kind="categorical", of="context"),
            Feature(name="device", kind="categorical", of="context"),
            Feature(name="campaign", kind="categorical", of="item"),
            Feature(name="advertiser", kind="categorical", of="item"),
            Feature(name="category", kind="categorical", of="item"),
            Feature(name="format", kind="categorical", of="item"),
            Feature(name="price", kind="numeric", of="item", scale="log"),
            Feature(name="match", kind="numeric", of="pair"),
            Feature(name="slot", kind="categorical", of="pair", column="position"),
        ),
        histories=(
            History(name="clicked", where="click", max_length=50, features=(slot,)),
            History(name="shown", max_length=100, features=(slot,), outcomes=(conversion,)),
        ),
        tasks=(
            Task(name="click"),
            Task(name="conversion", parent="click", label_time="conversion_time", window=window),
        ),
    )


class SimulatedLog:
    """The log of all days, or of one (`day`); a chunk is a function of the config and its number alone.

    The log of all days holds every conversion with its time, also those to come after the last day: mask them by
    `as_of`. A day's log is what was written when the day ended: later conversions are 0 in it, and `late_labels`.
    """

    def __init__(self, config: SimulatorConfig, day: int | None = None) -> None:
        if day is not None and not 0 <= day < config.days:
            raise ValueError(f"Expected a day in 0 … {config.days - 1}, got {day}.")
        self.config = config
        self.name = "simulated" if day is None else f"simulated, day {day}"
        self.schema = simulator_schema(config)
        self.events: Mapping[str, LogSource] = {}
        self._day = day
        requests = -(-config.rows // config.slots)
        self._bounds = np.arange(config.days + 1) * requests // config.days  # the first request of each day
        self._world = World(
            seed=config.seed,
            slots=config.slots,
            campaigns=config.campaigns,
            categories=config.categories,
            drift=config.drift,
            explore=config.explore,
        )

    def day(self, day: int) -> SimulatedLog:
        """The log that was written at the end of one day (0 is the first)."""
        return SimulatedLog(self.config, day)

    def late_labels(self, day: int) -> LateLabels:
        """The conversions of rows of `day` that were known only after its end."""
        return LateLabels(SimulatedLog(self.config, day))

    def chunks(self) -> Iterator[LogChunk]:
        first_row = 0
        for requests in self._requests():
            rows = self._rows(requests)
            yield LogChunk(self._records(rows), self.name, first_row)
            first_row += len(rows.slot)

    def fingerprint(self) -> str:
        return fingerprint_of([_VERSION, repr(sorted(asdict(self.config).items())).encode(), repr(self._day).encode()])

    def end_of(self, day: int) -> int:
        """The moment a day ends, in seconds since 1970."""
        return START + (day + 1) * DAY

    def _requests(self) -> Iterator[np.ndarray]:
        first = int(self._bounds[self._day or 0])
        count = int(self._bounds[-1 if self._day is None else self._day + 1]) - first
        each = max(1, CHUNK_ROWS // self.config.slots)
        stride = round(count * 0.618) | 1  # a step that shares no factor with count visits every request once
        while gcd(stride, count) > 1:
            stride += 2
        for start in range(0, count, each):
            place = np.arange(start, min(start + each, count))
            yield first + (place if self.config.sorted_by_time else place * stride % count)

    def _rows(self, request: np.ndarray) -> Rows:
        config, world, seed = self.config, self._world, self.config.seed
        day = np.searchsorted(self._bounds, request, side="right") - 1
        part = (request - self._bounds[day] + uniform(seed, "time", request)) / np.diff(self._bounds)[day]
        time = START + DAY * day + (DAY * (part - 0.6 * np.sin(2.0 * np.pi * part) / (2.0 * np.pi))).astype(np.int64)
        device = below(seed, "device", request, DEVICES)
        user = world.visitor(request, _active(config.users, config.new_keys_per_day, day))

        of = np.repeat(np.arange(len(request)), config.slots)
        slot = np.tile(np.arange(config.slots), len(request))
        within_log = request[of] * config.slots + slot < config.rows  # the last request may be short
        of, slot = of[within_log], slot[within_log]
        users = world.users(user)
        users = Users(**{name: getattr(users, name)[of] for name in Users.__dataclass_fields__})
        request, day, time, device = request[of], day[of], time[of], device[of]
        active = _active(config.ads, config.new_keys_per_day, day)
        ad, explored, propensity = world.shown(request, slot, users.segment, active)
        ads = world.ads(ad)
        hour = time // 3600 % 24
        p_click = world.click_probability(users, ads, slot, day, hour, device)
        p_conversion = p_click * world.conversion_probability(users, ads, day)
        row = request * config.slots + slot
        draw = uniform(seed, "click", row)  # below p_conversion: clicked and converts; below p_click: clicked
        within = 1.0 - np.exp(-config.attribution_window / config.mean_delay)
        delay = -config.mean_delay * np.log1p(-within * uniform(seed, "delay", row))
        return Rows(
            request=request,
            slot=slot,
            day=day,
            time=time,
            hour=hour,
            device=device,
            users=users,
            ads=ads,
            explored=explored,
            propensity=propensity,
            match=world.match(users, ads),
            p_click=p_click,
            p_conversion=p_conversion,
            click=draw < p_click,
            conversion=draw < p_conversion,
            conversion_time=time + 1 + delay.astype(np.int64),
        )

    def _records(self, rows: Rows) -> pa.RecordBatch:
        config, users, ads = self.config, rows.users, rows.ads
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
            "hour": rows.hour.astype(np.int8),
            "device": self._texts["device"].take(pa.array(rows.device)),
            "ad": self._texts["ad"].take(pa.array(ads.index)),
            "campaign": ads.campaign,
            "advertiser": ads.campaign // 5,
            "category": self._texts["category"].take(pa.array(ads.category)),
            "format": ads.format.astype(np.int8),
            "price": pa.array(ads.price, from_pandas=True),
            "match": pa.array(rows.match, from_pandas=True),
            "position": rows.slot.astype(np.int16),
            "propensity": rows.propensity,
            "explored": rows.explored.astype(np.int8),
            "bid": ads.bid,
            "click": rows.click.astype(np.int8),
            "conversion": converted.astype(np.int8),
            "conversion_time": pa.array(rows.conversion_time, mask=~converted),
            "p_click": rows.p_click,
            "p_conversion": rows.p_conversion,
        }
        return pa.RecordBatch.from_pydict({name: pa.array(column) for name, column in columns.items()})

    @cached_property
    def _texts(self) -> dict[str, pa.Array]:
        config = self.config
        ads = int(_active(config.ads, config.new_keys_per_day, np.array(config.days - 1)))
        counts = {"segment": SEGMENTS, "device": DEVICES, "category": config.categories, "ad": ads}
        return {name: pa.array([f"{name}-{number:04d}" for number in range(count)]) for name, count in counts.items()}


@dataclass(frozen=True)
class Rows:
    """Rows of some requests with all that is true of them, the log's knowledge or not."""

    request: np.ndarray
    slot: np.ndarray
    day: np.ndarray
    time: np.ndarray
    hour: np.ndarray
    device: np.ndarray
    users: Users
    ads: Ads
    explored: np.ndarray
    propensity: np.ndarray
    match: np.ndarray
    p_click: np.ndarray
    p_conversion: np.ndarray
    click: np.ndarray
    conversion: np.ndarray
    conversion_time: np.ndarray


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
        for requests in self._log._requests():
            rows = self._log._rows(requests)
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


def _active(first: int, new_per_day: float, day: np.ndarray) -> np.ndarray:
    return first + np.round(first * new_per_day).astype(np.int64) * day
