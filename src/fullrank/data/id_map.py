"""From a code to its id in one key space, and what an append does to that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data import id_segments
from fullrank.data.code_index import CodeIndex
from fullrank.data.id_segments import IdMapError, Segment, State
from fullrank.data.key_counter import NO_TIME, Counts
from fullrank.data.keys import MISSING, bucket
from fullrank.kernels.codes import shared_where_unknown
from fullrank.schema import KeySpace

PADDING_ID, MISSING_ID, FIRST_UNKNOWN_ID = 0, 1, 2
_MOST_ROWS = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class IdMap:
    """The ids of one key space: 0 padding · 1 missing · 2 + hash for unknown keys · then keys in order of admission.

    Immutable: `extend` returns another map in which every id keeps its meaning. Start with `IdMap.empty(space)`.
    A slot is an id less `first_key_id`. A slot outlives its key: an evicted key (its slot is in `state.evicted`) and a
    forgotten one (code 0, no text) are unknown to `ids`, and the slot is never given to another.
    """

    space: KeySpace
    segments: tuple[Segment, ...]
    state: State

    @staticmethod
    def empty(space: KeySpace) -> IdMap:
        """The map that knows no key. For a `hashed` space it is the only one."""
        return IdMap(space, (), State.empty())

    # what it is

    @property
    def version(self) -> int:
        """How many segments came after the first; -1 for an empty map. An append that changes nothing adds none."""
        return len(self.segments) - 1

    @property
    def first_key_id(self) -> int:
        """The least id that belongs to one key alone."""
        shared = self.space.buckets if self.space.policy == "hashed" else self.space.unknown_rows
        return FIRST_UNKNOWN_ID + shared

    @property
    def num_rows(self) -> int:
        """How many rows a table of this key space needs."""
        return self.first_key_id + sum(len(segment.codes) for segment in self.segments)

    @property
    def can_grow(self) -> bool:
        """Whether `extend` may change anything."""
        return self.space.policy == "growing" or (self.space.policy == "frozen" and not self.segments)

    @cached_property
    def hash(self) -> str:
        """Two maps of one hash give every key the same id, now and after the same appends."""
        return self.state.hash(self._last_hash)

    @property
    def _last_hash(self) -> str:
        return self.segments[-1].hash if self.segments else id_segments.digest(id_segments.space_meaning(self.space))

    @cached_property
    def _slot_codes(self) -> np.ndarray:
        if len(self.segments) == 1:
            return self.segments[0].codes
        return np.concatenate([np.empty(0, dtype=np.uint64), *(segment.codes for segment in self.segments)])

    @cached_property
    def _slot_texts(self) -> pa.ChunkedArray:
        return pa.chunked_array([segment.texts for segment in self.segments], pa.large_string())

    @cached_property
    def _index(self) -> CodeIndex:
        known = self._slot_codes != MISSING
        known[self.state.evicted] = False
        slots = np.flatnonzero(known)
        return CodeIndex(self._slot_codes[slots], slots)

    # lookups

    def ids(self, codes: np.ndarray) -> np.ndarray:
        """The id of each code, int32 [n]: 1 where missing, `2 + code % unknown_rows` where unknown; in a `hashed`
        space `2 + bucket`."""
        if self.space.policy == "hashed":
            ids = FIRST_UNKNOWN_ID + bucket(codes, self.space.buckets)
            ids[codes == MISSING] = MISSING_ID
            return ids
        ids, shared = self._index.find(codes), self.space.unknown_rows
        shared_where_unknown(
            ids, codes, own=self.first_key_id, unknown=FIRST_UNKNOWN_ID, shared=shared, missing=MISSING_ID
        )
        return ids

    def ids_k(self, codes: np.ndarray) -> np.ndarray:
        """The `hashes` buckets of each code in a `hashed` space, int32 [n, hashes]; all 1 where missing. The first of
        them is `ids(codes)`."""
        if self.space.policy != "hashed":
            raise IdMapError(f"Expected a hashed key space, {self.space.name!r} is {self.space.policy}: use ids().")
        ids = np.stack([bucket(codes, self.space.buckets, which) for which in range(self.space.hashes)], axis=1)
        ids += np.int32(FIRST_UNKNOWN_ID)
        ids[codes == MISSING] = MISSING_ID
        return ids

    def codes_of_ids(self, ids: np.ndarray) -> np.ndarray:
        """The code of each id, uint64; 0 for an id that is no key's own, or whose key was forgotten."""
        codes = np.zeros(len(ids), dtype=np.uint64)
        own = ids >= self.first_key_id
        codes[own] = self._slot_codes[ids[own] - self.first_key_id]
        return codes

    def key_of_id(self, id: int) -> str:
        """The key's canonical text, or in brackets what the id is instead."""
        if not 0 <= id < self.num_rows:
            raise IdMapError(
                f"Expected an id of key space {self.space.name!r} from 0 to {self.num_rows - 1}, got {id}."
            )
        if id >= self.first_key_id:
            text = self._slot_texts[id - self.first_key_id].as_py()
            return "[forgotten]" if text is None else text
        if id < FIRST_UNKNOWN_ID:
            return ("[padding]", "[missing]")[id]
        return f"[{'bucket' if self.space.policy == 'hashed' else 'unknown'} {id - FIRST_UNKNOWN_ID}]"

    def view(self, pinned: IdMap) -> np.ndarray:
        """For each id of this map, the id that a run which pinned an earlier version reads; int32 [self.num_rows].

        It is `pinned.ids` of the id's key: `view[self.ids(codes)] == pinned.ids(codes)`, and an id that the key had at
        another time (before it was evicted, or since it came back) is read as that same one. A key that the pinned
        version had not got, or had evicted, goes to its unknown row, a forgotten one to the first.
        """
        view = np.arange(self.num_rows, dtype=np.int32)
        if self.space.policy == "hashed":
            return view
        mine, theirs = self._slot_codes, pinned._slot_codes
        both = min(len(mine), len(theirs))
        same = np.zeros(len(mine), dtype=bool)
        same[:both] = (mine[:both] == theirs[:both]) & (mine[:both] != MISSING)
        same[pinned.state.evicted[pinned.state.evicted < both]] = False
        slots = np.flatnonzero(~same)
        ids = pinned.ids(mine[slots]) if len(slots) else np.empty(0, np.int32)
        ids[mine[slots] == MISSING] = FIRST_UNKNOWN_ID
        view[self.first_key_id + slots] = ids
        return view

    # changes

    def extend(self, counts: Counts, now: int | None = None) -> IdMap:
        """The map after an append whose training rows held these keys.

        `growing`: a key is admitted once it was counted `min_count` times over all appends. With a ttl and `now` (µs),
        a key last seen more than `ttl` seconds before `now` is evicted, or not admitted; an evicted key that is seen
        again gets a new id (our choice: at once, since its count was reached before). A key without times never
        expires. `frozen`: the first call admits, later ones add nothing. `hashed`: nothing ever.
        Ids go by count so far, descending, then by code.
        """
        if not self.can_grow:
            return self
        slots = self._index.find(counts.codes)
        has_id = slots >= 0
        last_seen, evicted = self._aged(slots[has_id], counts.last_seen[has_id], now)
        was_evicted = np.isin(counts.codes, self._slot_codes[self.state.evicted])

        total, seen, waiting = self._with_pending(counts)
        admitted = ~has_id & ((total >= self.space.min_count) | was_evicted) & ~self._expired(seen, now)
        rest = ~has_id & ~admitted
        chosen = np.flatnonzero(admitted)
        chosen = chosen[np.lexsort((counts.codes[chosen], -total[chosen]))]
        num_rows = self.num_rows + len(chosen)
        if num_rows > _MOST_ROWS:
            raise IdMapError(
                f"Expected at most {_MOST_ROWS} ids in key space {self.space.name!r}, got {num_rows}. "
                "Raise min_count or make the key space hashed."
            )
        texts = counts.texts.take(pa.array(chosen))
        segment = Segment.of(counts.codes[chosen], texts, total[chosen], self._last_hash)
        state = State.empty()
        if self.space.policy == "growing":
            codes = np.concatenate([self.state.pending_codes[waiting], counts.codes[rest]])
            order = np.argsort(codes)
            state = State(
                pending_codes=codes[order],
                pending_counts=np.concatenate([self.state.pending_counts[waiting], total[rest]])[order],
                pending_last_seen=np.concatenate([self.state.pending_last_seen[waiting], seen[rest]])[order],
                last_seen=np.concatenate([last_seen, seen[chosen]]) if self.space.ttl else last_seen,
                evicted=evicted,
            )
        if self.segments and not len(chosen) and state.hash(self._last_hash) == self.hash:
            return self
        return IdMap(self.space, (*self.segments, segment), state)

    def forget(self, code: int) -> IdMap:
        """The map without any trace of one key: its slots become tombstones, its text, code and counts go.

        All segments become one, so no old file is part of the result: save it, then delete the others. A map that
        never met the key is returned as it is. If the key comes again, it is a new key.
        """
        slots = np.flatnonzero(self._slot_codes == np.uint64(code))
        pending = self.state.pending_codes != np.uint64(code)
        if not len(slots) and pending.all():
            return self
        gone = np.zeros(len(self._slot_codes), dtype=bool)
        gone[slots] = True
        codes = np.where(gone, MISSING, self._slot_codes)
        # Taken anew: setting a text to null would leave its bytes in the buffer, and so in the file.
        texts = self._slot_texts.combine_chunks().take(pa.array(np.arange(len(gone)), mask=gone))
        counts = np.where(gone, 0, np.concatenate([segment.counts for segment in self.segments]))
        state = replace(
            self.state,
            pending_codes=self.state.pending_codes[pending],
            pending_counts=self.state.pending_counts[pending],
            pending_last_seen=self.state.pending_last_seen[pending],
            last_seen=np.where(gone, NO_TIME, self.state.last_seen)
            if len(self.state.last_seen)
            else self.state.last_seen,
            evicted=np.setdiff1d(self.state.evicted, slots),
        )
        root = self.segments[0].parent
        return IdMap(self.space, (Segment.of(codes, texts, counts, root),), state)

    def _aged(self, slots: np.ndarray, times: np.ndarray, now: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Last-seen times after seeing `slots` at `times`, and the slots evicted by `now`."""
        if not self.space.ttl:
            return self.state.last_seen, self.state.evicted
        last_seen = self.state.last_seen.copy()
        last_seen[slots] = np.maximum(last_seen[slots], times)
        gone = self._expired(last_seen, now) & (self._slot_codes != MISSING)
        return last_seen, np.union1d(self.state.evicted, np.flatnonzero(gone))

    def _expired(self, last_seen: np.ndarray, now: int | None) -> np.ndarray:
        if not self.space.ttl or now is None:
            return np.zeros(len(last_seen), dtype=bool)
        return (last_seen != NO_TIME) & (last_seen < now - self.space.ttl * 1_000_000)

    def _with_pending(self, counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts and last-seen times with what was pending, and a mask of the pending keys that were not met now."""
        pending = self.state
        waiting = np.ones(len(pending.pending_codes), dtype=bool)
        if not len(waiting):
            return counts.counts, counts.last_seen, waiting
        place = np.minimum(np.searchsorted(pending.pending_codes, counts.codes), len(waiting) - 1)
        met = pending.pending_codes[place] == counts.codes
        waiting[place[met]] = False
        total = counts.counts + np.where(met, pending.pending_counts[place], 0)
        seen = np.maximum(counts.last_seen, np.where(met, pending.pending_last_seen[place], NO_TIME))
        return total, seen, waiting

    # files

    def save(self, folder: Path) -> list[Path]:
        """Write what is not there yet of this map's segments, and its state; returns the files it consists of."""
        files = [
            id_segments.save_segment(Path(folder), version, segment, self.space)
            for version, segment in enumerate(self.segments)
        ]
        if self.segments:
            files.append(id_segments.save_state(Path(folder), self.version, self.state, self._last_hash))
        return files

    @staticmethod
    def load(folder: Path, space: KeySpace, version: int | None = None, hash: str = "") -> IdMap:
        """The map of that version (the newest if None) or hash, from memory-mapped files.

        Give the `hash` the manifest or run names: without it, a version that was written twice is an error.
        """
        empty = IdMap.empty(space)
        if hash == empty.hash or (space.policy == "hashed" and not hash):
            return empty
        if space.policy == "hashed":
            raise IdMapError(
                f"Expected hashed key space {space.name!r} to have hash {hash}, got {empty.hash}: its buckets or "
                "hashes are not those of the data. They cannot change for data already prepared: prepare it anew."
            )
        path = id_segments.find_state(Path(folder), version, hash)
        state, parent, found = id_segments.load_state(path)
        if hash and found != hash:
            raise IdMapError(f"Expected id map {hash} of key space {space.name!r} in {path}, found {found}.")
        segments = id_segments.load_segments(Path(folder), int(path.name.split("-")[0]), parent, space)
        return IdMap(space, tuple(segments), state)
