"""How often each key occurs and when it was last seen: exact, in bounded memory.

Occurrences are gathered per code, at most `budget_keys` entries at a time; what does not fit goes to disk as runs
sorted by code. Codes are hashes, so the range of codes cut into equal parts cuts the keys into equal parts: the runs
are merged part by part. Memory is that of min(distinct keys, budget) while counting, plus the result.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.keys import Keys, texts_of_integers
from fullrank.kernels.codes import count

NO_TIME = np.iinfo(np.int64).min  # `last_seen` of a key that was only seen without a time


@dataclass(frozen=True)
class Counts:
    """Distinct keys: `codes` uint64 (ascending, once merged) without missing, `counts` int64, `last_seen` int64
    (greatest time; `NO_TIME` if counted without times), `texts` Arrow large_string."""

    codes: np.ndarray
    counts: np.ndarray
    last_seen: np.ndarray
    texts: pa.Array

    def __len__(self) -> int:
        return len(self.codes)

    @staticmethod
    def empty() -> Counts:
        none = np.empty(0, dtype=np.int64)
        return Counts(none.view(np.uint64), none, none, pa.array([], pa.large_string()))

    @staticmethod
    def merged(parts: list[Counts], least: int = 1) -> Counts:
        """The sum of several counts (of which the codes may stand in any order): counts add up, the later time stays.
        Keys that were counted less than `least` times are left out."""
        if not parts:
            return Counts.empty()
        codes = np.concatenate([part.codes for part in parts])
        first, counts, last_seen = count(
            codes,
            weights_n=np.concatenate([part.counts for part in parts]),
            times_n=np.concatenate([part.last_seen for part in parts]),
        )
        chosen = np.flatnonzero(counts >= least)
        chosen = chosen[np.argsort(codes[first[chosen]])]
        texts = pa.concat_arrays([part.texts for part in parts])
        return Counts(
            codes[first[chosen]], counts[chosen], last_seen[chosen], texts.take(pa.array(first[chosen]))
        )


class KeyCounter:
    """Counts keys as they come; the result does not depend on their order, on how they are cut into calls or on
    `budget_keys` (entries held in memory; one entry is some 24 bytes and the key's text)."""

    def __init__(self, spill_dir: Path, budget_keys: int = 2_000_000) -> None:
        self._spill_dir = Path(spill_dir)
        self._budget = budget_keys
        self._parts: list[Counts] = []
        self._held = 0
        self._runs: list[Path] = []

    def add(self, keys: Keys, selected_codes: np.ndarray | None = None, times: np.ndarray | None = None) -> None:
        """Count every code that is not missing, once a row.

        `selected_codes` counts these instead (a subset of the rows, say; each must occur in `keys`, which knows the
        texts). `times` (int64) belong to the codes counted.
        """
        codes = keys.codes if selected_codes is None else selected_codes
        known = keys.codes if keys.entries is None else keys.entries[0]
        if codes is known:  # integers, whose texts follow from their codes
            known = known[:0]
        both = np.concatenate([known, codes])  # so that a code is first where its text is
        weights = np.repeat([0, 1], [len(known), len(codes)])
        if times is not None:
            times = np.concatenate([np.full(len(known), NO_TIME), times])
        first, counts, last_seen = count(both, weights_n=weights, times_n=times)
        occurs = counts > 0
        first, counts, last_seen = first[occurs], counts[occurs], last_seen[occurs]
        unique = both[first]
        if len(known) and (strange := first >= len(known)).any():
            raise ValueError(f"Expected selected codes that occur in the keys, got {unique[strange].min():#x}.")
        if len(unique) == 0:
            return
        texts = texts_of_integers(unique) if keys.entries is None else keys.entries[1].take(pa.array(first))
        self._parts.append(Counts(unique, counts, last_seen, texts))
        self._held += len(unique)
        if self._held > self._budget:
            self._consolidate()

    def finish(self, least: int = 1) -> Counts:
        """Every key that was counted `least` times, and the spilled files removed. The counter is empty afterwards."""
        if not self._runs:
            parts, self._parts, self._held = self._parts, [], 0
            return Counts.merged(parts, least)
        self._spill(Counts.merged(self._parts))
        runs = [_read(path) for path in self._runs]
        entries = sum(len(run) for run in runs)
        bounds = _cut_codes(parts=-(-entries // self._budget))
        cuts = [np.append(np.searchsorted(run.codes, bounds), len(run)) for run in runs]
        merged = []
        for part in range(len(bounds)):
            slices = [_slice(run, cut[part], cut[part + 1]) for run, cut in zip(runs, cuts, strict=True)]
            merged.append(Counts.merged(slices, least))
        result = Counts(
            np.concatenate([part.codes for part in merged]),
            np.concatenate([part.counts for part in merged]),
            np.concatenate([part.last_seen for part in merged]),
            pa.concat_arrays([part.texts for part in merged]),
        )
        for path in self._runs:
            path.unlink()
        self._runs = []
        return result

    def _consolidate(self) -> None:
        """Merge what is held; spill it unless merging freed at least half of the budget."""
        merged = Counts.merged(self._parts)
        if len(merged) > self._budget // 2:
            self._spill(merged)
        else:
            self._parts, self._held = [merged], len(merged)

    def _spill(self, run: Counts) -> None:
        self._spill_dir.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="keys-", suffix=".arrow", dir=self._spill_dir)
        os.close(handle)
        columns = {"code": run.codes, "count": run.counts, "last_seen": run.last_seen, "key": run.texts}
        batch = pa.RecordBatch.from_pydict(columns)
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self._runs.append(Path(name))
        self._parts, self._held = [], 0


def _cut_codes(parts: int) -> np.ndarray:
    """The first code of each of `parts` equal ranges."""
    return np.array([(part << 64) // parts for part in range(parts)], dtype=np.uint64)


def _read(path: Path) -> Counts:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    codes, counts, last_seen = (batch.column(name).to_numpy() for name in ("code", "count", "last_seen"))
    return Counts(codes, counts, last_seen, batch.column("key"))


def _slice(run: Counts, start: int, end: int) -> Counts:
    texts = run.texts.slice(start, end - start)
    return Counts(run.codes[start:end], run.counts[start:end], run.last_seen[start:end], texts)
