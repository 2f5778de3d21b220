"""Who belongs together: requests, users' pasts and per-user order, worked out outside of memory.

Rows arrive in any order. Their keys (user, request, time; 8 bytes each) are scattered, in a file, into buckets of
users by the leading bits of the user's code, about `BUCKET_ROWS` rows each. One bucket at a time is then sorted in
memory, and what comes of it is scattered back to the places of the rows, again in files. Codes are hashes, so buckets
are even and their order is the order of codes: events come out sorted by user over all buckets. Memory is that of one
bucket, however long the log; the price is one user's (or one request's) rows at a time, so a single user with a
hundred million rows would need memory for them.

A request is one (user, request key): rows of equal request key under two users are two requests (our choice). A row
without a request key is a request of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fullrank.data import flat, splits
from fullrank.data.columns import NEVER, span_positions
from fullrank.data.history import HistorySource
from fullrank.data.keys import splitmix64
from fullrank.data.stages import Done

BUCKET_ROWS = 1 << 16
CARRIED = np.dtype([("dest", "<i8"), ("partition", "<i8"), ("place", "<i8")])


@dataclass(frozen=True)
class EventKeys:
    """What orders the events of one by_user history: `available` is NEVER where there is no event. `user` is None for
    events of the log, whose users are the rows'."""

    available: np.ndarray
    time: np.ndarray
    user: np.ndarray | None = None


@dataclass(frozen=True)
class RowKeys:
    """Columns of all rows, in files: user and request codes (0: missing), time, and the events of each history."""

    user: np.ndarray
    request: np.ndarray
    time: np.ndarray
    events: Mapping[str, EventKeys]


@dataclass(frozen=True)
class Wanted:
    """A by_user history, and where its index (`user.npy`, `start.npy`) is to be written. `prior`: its stores in
    earlier partitions, by partition number, oldest first."""

    name: str
    max_length: int
    folder: Path
    prior: Sequence[tuple[int, HistorySource]] = ()


@dataclass(frozen=True)
class HistoryPlaces:
    """`end` and `length` of the past of every request, at its first row. `dest`: the place of every row (or event of
    the file) in the store, -1 for none. `carried`: events of earlier partitions and where they go."""

    end: np.ndarray
    length: np.ndarray
    dest: np.ndarray
    carried: np.ndarray
    num_events: int


@dataclass(frozen=True)
class Grouped:
    """`first`: the first row of each row's request. `request_time`: the least time of its rows. `split`: only where
    it is decided by the order of a user's rows."""

    first: np.ndarray
    request_time: np.ndarray
    split: np.ndarray | None
    histories: dict[str, HistoryPlaces] = field(default_factory=dict)


class _Bucketed:
    """Records in a file, those of bucket b at `[offsets[b], offsets[b + 1])`, in the order they came."""

    def __init__(
        self,
        path: Path,
        bits: int,
        columns: list[tuple[str, np.ndarray]],
        user: np.ndarray,
        request: np.ndarray,
    ):
        dtype = np.dtype([(name, array.dtype.str) for name, array in columns] + [("row", "<i8")])
        sizes = np.zeros((1 << bits) + 1, dtype=np.int64)
        for piece in flat.pieces(len(user)):
            sizes[1:] += np.bincount(_bucket(user, request, piece, bits), minlength=1 << bits)
        self.offsets = np.cumsum(sizes)
        self._records = flat.create(path, dtype, len(user))
        cursor = self.offsets[:-1].copy()
        for piece in flat.pieces(len(user)):
            bucket = _bucket(user, request, piece, bits)
            order = np.argsort(bucket, kind="stable")
            records = np.empty(len(bucket), dtype=dtype)
            for name, array in columns:
                records[name] = array[piece]
            records["row"] = np.arange(piece.start, piece.stop)
            counts = np.bincount(bucket, minlength=1 << bits)
            place, _ = span_positions(cursor, cursor + counts)
            self._records[place] = records[order]
            cursor += counts

    def read(self, bucket: int) -> np.ndarray:
        return np.array(self._records[self.offsets[bucket] : self.offsets[bucket + 1]])


def _bucket(user: np.ndarray, request: np.ndarray, piece: slice, bits: int) -> np.ndarray:
    """Bucket of each row: by user, else by request, else by row number, so that missing keys do not pile up."""
    key = np.array(user[piece])
    if bits == 0:
        return np.zeros(len(key), dtype=np.int64)
    for missing_too in (
        np.asarray(request[piece]),
        splitmix64(np.arange(piece.start, piece.stop, dtype=np.uint64)),
    ):
        key = np.where(key == 0, missing_too, key)
    return (key >> np.uint64(64 - bits)).astype(np.int64)


def group(
    work: Path,
    rows: RowKeys,
    histories: Sequence[Wanted],
    order: splits.PerUserOrder | None = None,
    done: Done = lambda rows: None,
) -> Grouped:
    """Group all rows (see the module). `work` is a folder for files; `order` asks for a split by users' order."""
    n = len(rows.user)
    if not histories and order is None and not any(rows.request[piece].any() for piece in flat.pieces(n)):
        return _each_alone(work, rows, done)
    total = n + sum(len(keys.time) for keys in rows.events.values() if keys.user is not None)
    bits = max(total - 1, 0).bit_length() - (BUCKET_ROWS - 1).bit_length()
    bits = min(max(bits, 0), 16)
    columns = [("user", rows.user), ("request", rows.request), ("time", rows.time)]
    for place, wanted in enumerate(histories):
        keys = rows.events[wanted.name]
        if keys.user is None:
            columns += [(f"available{place}", keys.available), (f"time{place}", keys.time)]
    buckets = _Bucketed(work / "buckets.npy", bits, columns, rows.user, rows.request)
    result = Grouped(
        first=flat.create(work / "first.npy", np.int64, n),
        request_time=flat.create(work / "request_time.npy", np.int64, n),
        split=flat.create(work / "split.npy", np.uint8, n) if order else None,
    )
    stores = [_Store(work, place, wanted, rows, bits) for place, wanted in enumerate(histories)]
    for number in range(1 << bits):
        records = buckets.read(number)
        users = _Users.of(records)
        result.first[records["row"]] = users.row[users.first]
        result.request_time[records["row"]] = users.request_time
        if order and result.split is not None and len(records):
            result.split[records["row"]] = splits.per_user_order(order, users.user, users.order, users.first)
        for store in stores:
            store.add(number, records, users)
        done(len(records))
    for store in stores:
        result.histories[store.wanted.name] = store.close()
    return result


def _each_alone(work: Path, rows: RowKeys, done: Done) -> Grouped:
    """Where no row has a request key and nobody asks for the past: every row is its own request."""
    first = flat.create(work / "first.npy", np.int64, len(rows.user))
    for piece in flat.pieces(len(first)):
        first[piece] = np.arange(piece.start, piece.stop)
        done(piece.stop - piece.start)
    return Grouped(first=first, request_time=rows.time, split=None)


@dataclass(frozen=True)
class _Users:
    """The rows of a bucket. `first[i]`: index (not row number) of the first row of row i's request. `order` sorts by
    (user, request time, row), requests together."""

    user: np.ndarray
    row: np.ndarray
    first: np.ndarray
    request_time: np.ndarray
    order: np.ndarray

    @staticmethod
    def of(records: np.ndarray) -> _Users:
        user, request, n = records["user"].copy(), records["request"], len(records)
        by_request = np.lexsort((request, user))  # stable: rows of a request stay in their order
        u, r = user[by_request], request[by_request]
        new = np.ones(n, dtype=bool)
        new[1:] = (u[1:] != u[:-1]) | (r[1:] != r[:-1]) | (r[1:] == 0)
        start = np.flatnonzero(new)
        of_request = np.cumsum(new) - 1
        first = np.empty(n, dtype=np.int64)
        request_time = np.empty(n, dtype=np.int64)
        if n:
            least = np.minimum.reduceat(records["time"][by_request], start)
            first[by_request] = by_request[start][of_request]
            request_time[by_request] = least[of_request]
        order = np.lexsort((np.arange(n), first, request_time, user))
        return _Users(user, records["row"].copy(), first, request_time, order)


class _Store:
    """One history: its events in their order over all buckets, and the past of every request."""

    def __init__(self, work: Path, place: int, wanted: Wanted, rows: RowKeys, bits: int):
        self.wanted = wanted
        self.place = place
        self.num_events = 0
        keys = rows.events[wanted.name]
        n = len(rows.user)
        self._events = None
        if keys.user is not None:
            columns = [("user", keys.user), ("available", keys.available), ("time", keys.time)]
            none = np.broadcast_to(np.uint64(0), keys.user.shape)
            self._events = _Bucketed(work / f"events{place}.npy", bits, columns, keys.user, none)
        self._end = flat.create(work / f"end{place}.npy", np.int64, n)
        self._length = flat.create(work / f"length{place}.npy", np.int32, n)
        self._dest = flat.create(work / f"dest{place}.npy", np.int64, len(keys.time))
        self._carried_path = work / f"carried{place}.npy"
        self._carried = flat.FlatWriter(self._carried_path, CARRIED)
        wanted.folder.mkdir(parents=True, exist_ok=True)
        self._user = flat.FlatWriter(wanted.folder / "user.npy", np.uint64)
        self._start = flat.FlatWriter(wanted.folder / "start.npy", np.int64)

    def add(self, bucket: int, records: np.ndarray, users: _Users) -> None:
        user, available, time, row = self._new_events(bucket, records, users)
        self._dest[row] = -1
        is_event = (available != NEVER) & (user != 0)
        user, available, time, row = user[is_event], available[is_event], time[is_event], row[is_event]
        partition = np.full(len(user), -1, dtype=np.int64)
        carried = self._carry(np.unique(np.concatenate([users.user, user])), users)
        user, available, time, row, partition = (
            np.concatenate(pair)
            for pair in zip(carried, (user, available, time, row, partition), strict=True)
        )
        order = np.lexsort((row, partition < 0, time, available, user))  # what was there before comes before
        user, available, row, partition = user[order], available[order], row[order], partition[order]
        dest = self.num_events + np.arange(len(user))
        new = partition < 0
        self._dest[row[new]] = dest[new]
        moved = np.empty(int((~new).sum()), dtype=CARRIED)
        moved["dest"], moved["partition"], moved["place"] = dest[~new], partition[~new], row[~new]
        self._carried.append(moved)
        self._pasts(user, available, users)
        names, start = np.unique(user, return_index=True)
        self._user.append(names)
        self._start.append(start + self.num_events)
        self.num_events += len(user)

    def _new_events(self, bucket: int, records: np.ndarray, users: _Users) -> tuple[np.ndarray, ...]:
        if self._events is not None:
            events = self._events.read(bucket)
            return tuple(events[name].copy() for name in ("user", "available", "time", "row"))
        # An event of the log is not known before its own request was: a request is never in its own past.
        available = np.maximum(records[f"available{self.place}"], users.request_time)
        return users.user, available, records[f"time{self.place}"].copy(), users.row

    def _carry(self, names: np.ndarray, users: _Users) -> tuple[np.ndarray, ...]:
        """Of each user's events in the newest earlier partition that has the user: the newest `max_length` before the
        user's first request here, and all after."""
        names = names[names != 0]
        first_time = np.full(len(names), NEVER)
        known = users.user != 0
        np.minimum.at(first_time, np.searchsorted(names, users.user[known]), users.request_time[known])
        parts = [(np.empty(0, np.uint64), *(np.empty(0, np.int64) for _ in range(4)))]
        for partition, source in reversed(self.wanted.prior):
            assert source.user is not None and source.start is not None
            if not len(names) or not len(source.user):
                continue
            place = np.minimum(np.searchsorted(source.user, names), len(source.user) - 1)
            found = source.user[place] == names
            start, end = source.start[place[found]], source.start[place[found] + 1]
            past = source.spans(names[found], first_time[found])
            positions, offsets = span_positions(np.maximum(past.end_R - self.wanted.max_length, start), end)
            columns = (source.columns[name][positions] for name in ("available", "time"))
            owner = np.repeat(names[found], np.diff(offsets))
            parts.append((owner, *columns, positions, np.full(len(positions), partition, dtype=np.int64)))
            names, first_time = names[~found], first_time[~found]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _pasts(self, user: np.ndarray, available: np.ndarray, users: _Users) -> None:
        """The past of each request of the bucket: events of its user available strictly before it."""
        asking = np.flatnonzero((users.first == np.arange(len(users.first))) & (users.user != 0))
        who, when = users.user[asking], users.request_time[asking]
        is_event = np.repeat([False, True], [len(asking), len(user)])
        # Requests sort before events of the same time, so exactly the earlier events of the user precede them.
        order = np.lexsort((is_event, np.concatenate([when, available]), np.concatenate([who, user])))
        before = np.cumsum(is_event[order])
        end = np.empty(len(order), dtype=np.int64)
        end[order] = before
        end = end[: len(asking)]
        length = np.minimum(end - np.searchsorted(user, who), self.wanted.max_length)
        row = users.row[asking]
        self._end[row] = end + self.num_events
        self._length[row] = length

    def close(self) -> HistoryPlaces:
        self._start.append(np.array([self.num_events]))
        for writer in (self._carried, self._user, self._start):
            writer.close()
        carried = flat.open_flat(self._carried_path)
        return HistoryPlaces(self._end, self._length, self._dest, carried, self.num_events)
