"""Forget one user: the only operation that writes partitions anew.

Every partition that holds rows or events of the user (carried ones too) is written again without them under a new
name, corrections follow their rows, the user's key leaves the id map (its id is a tombstone) and a new lineage begins
that names the old one. One commit puts all of it in place; the old files are then removed. What was learnt from the
user stays: counts of other keys, scalers, the item table, the weights of runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pyarrow as pa

from fullrank.data import flat
from fullrank.data.columns import Columns, DataError, EncodedBlock, array, from_arrow
from fullrank.data.commit import commit, files_under, sizes, undertaking
from fullrank.data.corrections import LATE, blocks_of, load_late, save_columns
from fullrank.data.event_writer import code_columns
from fullrank.data.history import HistorySource
from fullrank.data.id_map import IdMap
from fullrank.data.id_segments import digest
from fullrank.data.keys import code_of_key
from fullrank.data.lineage import Lineage
from fullrank.data.manifest import CorrectionEntry, Manifest, PartitionEntry
from fullrank.data.partition_writer import BlockWriter, take_requests
from fullrank.data.prepare import load_transform
from fullrank.data.prepare_checks import check_hash_key
from fullrank.schema import Schema
from fullrank.schema_toml import from_toml


@dataclass(frozen=True, kw_only=True)
class ForgetReport:
    """What `forget` removed. `found`: whether there was anything; `partitions`: how many were written anew."""

    folder: Path
    found: bool
    rows: int = 0
    events: int = 0
    partitions: int = 0
    runs: int = 0

    def __str__(self) -> str:
        runs = f" The key was removed from {self.runs} runs." if self.runs else ""
        if not self.found:
            return f"{self.folder}: there is nothing of this user.{runs}"
        return (
            f"{self.folder}: removed {self.rows} rows and {self.events} history events of this user; {self.partitions} "
            f"partitions were written anew.{runs}"
        )


@dataclass(frozen=True)
class _Cuts:
    """Spans `[start, end)` that leave a long array; ascending and apart."""

    start: np.ndarray
    end: np.ndarray

    @property
    def total(self) -> int:
        return int((self.end - self.start).sum())

    def moved(self, position: np.ndarray) -> np.ndarray:
        """Where an end of a span that stays is afterwards."""
        removed = np.concatenate([[0], np.cumsum(self.end - self.start)])
        return position - removed[np.searchsorted(self.end, position, side="right")]

    def kept(self, length: int) -> Iterator[slice]:
        """The pieces of `range(length)` that stay."""
        for start, end in zip(np.append(0, self.end), np.append(self.start, length), strict=True):
            for piece in flat.pieces(int(end - start)):
                yield slice(piece.start + int(start), piece.stop + int(start))


@dataclass(frozen=True)
class _Removed:
    """What left a partition: row numbers by split, impression codes, how many events."""

    rows: dict[str, np.ndarray]
    impressions: np.ndarray
    events: int


def forget(
    folder: Path | str, user: int | str, *, hash_key: bytes | None = None, runs: Sequence[Path | str] = ()
) -> ForgetReport:
    """Remove a user's rows, history and key from prepared data, and the key from the id maps of `runs`.

    `hash_key` is needed where the keys are hashed. Runs trained before keep working: the user is unknown to them.
    Forgetting the same user again finds nothing. Costs a copy of every partition the user is in. Raises `DataError`.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    check_hash_key(manifest, hash_key)
    schema = from_toml((folder / "schema.toml").read_text(encoding="utf-8"))
    if not schema.roles.user:
        raise DataError(
            f"Expected the role user in the schema of {folder}, found none: there is no user to forget."
        )
    code = code_of_key(user, hash_key)
    if not code:
        raise DataError("Expected a user's key, got nothing.")
    run_maps = [Path(run) / "transform" / "ids" for run in runs]
    for path in run_maps:
        if not path.is_dir():
            raise DataError(f"Expected a run with id maps in {path}, found none: name the folder of the run.")
    with undertaking(folder):
        report = _Forgetting(folder, Manifest.load(folder), schema, np.uint64(code)).run()
    changed = sum(any([_blank(path / s, schema, s, code) for s in _spaces(schema)]) for path in run_maps)
    return replace(report, runs=changed)


def _spaces(schema: Schema) -> list[str]:
    """The key spaces that hold users' keys: of every feature that is the user's column."""
    names = [f.key_space for f in schema.all_features() if f.column == schema.roles.user and f.key_space]
    return list(dict.fromkeys(names))


class _Forgetting:
    """One user leaving one folder of prepared data."""

    def __init__(self, folder: Path, manifest: Manifest, schema: Schema, code: np.uint64):
        self.folder, self.manifest, self.schema, self.code = folder, manifest, schema, code

    def run(self) -> ForgetReport:
        manifest = self.manifest
        maps = dict(load_transform(self.folder, manifest, self.schema).id_maps)
        affected = [entry for entry in manifest.partitions if entry.kind == "rows" and self._holds(entry)]
        without = {space: maps[space].forget(int(self.code)) for space in _spaces(self.schema)}
        if not affected and all(maps[space] is id_map for space, id_map in without.items()):
            return ForgetReport(folder=self.folder, found=False)
        maps.update(without)
        lineage = Lineage.from_json(manifest.lineage).forgotten(maps)
        entries, removed = {}, {}
        for entry in affected:
            entries[entry.name], removed[entry.name] = self._rewrite(entry, self._renamed(entry, lineage))
        for entry in manifest.partitions:
            if entry.kind == "corrections" and self._is_touched(entry, removed):
                entries[entry.name] = self._rewrite_corrections(
                    entry, self._renamed(entry, lineage), entries, removed
                )
        old = (*(f"ids/{space}/" for space in without), *(f"partitions/{name}/" for name in entries))
        files = {name: size for name, size in manifest.files.items() if not name.startswith(old)}
        saved = [
            file for space, id_map in without.items() for file in id_map.save(self.folder / "ids" / space)
        ]
        new = [file.relative_to(self.folder).as_posix() for file in saved]
        for entry in entries.values():
            new += files_under(self.folder, self.folder / "partitions" / entry.name)
        partitions = [
            replace(entries.get(entry.name, entry), lineage_version=0) for entry in manifest.partitions
        ]
        fitted_at = entries[manifest.fitted_at].name if manifest.fitted_at in entries else manifest.fitted_at
        commit(
            self.folder,
            replace(
                manifest,
                lineage=lineage.to_json(),
                fitted_at=fitted_at,
                partitions=tuple(partitions),
                files={**files, **sizes(self.folder, new)},
            ),
        )
        return ForgetReport(
            folder=self.folder,
            found=True,
            rows=sum(len(rows) for gone in removed.values() for rows in gone.rows.values()),
            events=sum(gone.events for gone in removed.values()),
            partitions=len(entries),
        )

    def _renamed(self, entry: PartitionEntry, lineage: Lineage) -> PartitionEntry:
        fingerprint = digest(entry.fingerprint, lineage.pin.hash)
        return replace(entry, name=f"{entry.name.split('-')[0]}-{fingerprint[:8]}", fingerprint=fingerprint)

    def _path(self, entry: PartitionEntry) -> Path:
        return self.folder / "partitions" / entry.name

    def _holds(self, entry: PartitionEntry) -> bool:
        """Whether a partition has rows or events of the user, or events of others that name the user."""
        for history in self.schema.histories:
            store = self._store(entry, history.name)
            if history.layout == "by_user" and self._cut_of_user(store).total:
                return True
            if any((store.columns[name] == self.code).any() for name in self._codes_of_users(history.name)):
                return True
        files = (self._path(entry) / split / "requests.arrow" for split in entry.splits)
        return any((users == self.code).any() for path in files for users in blocks_of(path, "@user"))

    def _store(self, entry: PartitionEntry, history: str) -> HistorySource:
        return HistorySource.open(self._path(entry) / "events" / history)

    def _codes_of_users(self, history: str) -> list[str]:
        """Event columns that hold codes of users' keys (a history of whom one follows)."""
        spaces, columns = _spaces(self.schema), code_columns(self.schema, self.schema.history(history))
        return [code for code, space in columns.values() if space in spaces]

    def _cut_of_user(self, store: HistorySource) -> _Cuts:
        assert store.user is not None and store.start is not None
        place = int(np.searchsorted(store.user, self.code))
        if place == len(store.user) or store.user[place] != self.code:
            return _Cuts(np.empty(0, np.int64), np.empty(0, np.int64))
        return _Cuts(np.array([store.start[place]]), np.array([store.start[place + 1]]))

    def _cut_of_requests(self, entry: PartitionEntry, history: str) -> _Cuts:
        """The inline events of the user's requests."""
        starts, ends = [], []
        for split in entry.splits:
            for columns in _blocks(self._path(entry) / split / "requests.arrow"):
                mine = array(columns, "@user") == self.code
                end = array(columns, f"@history.{history}.end")[mine]
                starts.append(end - array(columns, f"@history.{history}.length")[mine])
                ends.append(end)
        start, end = np.concatenate(starts), np.concatenate(ends)
        order = np.flatnonzero(end > start)
        order = order[np.argsort(start[order])]
        return _Cuts(start[order], end[order])

    def _rewrite(self, entry: PartitionEntry, new: PartitionEntry) -> tuple[PartitionEntry, _Removed]:
        """The partition without the user, under its new name."""
        cuts = {
            history.name: self._cut_of_user(self._store(entry, history.name))
            if history.layout == "by_user"
            else self._cut_of_requests(entry, history.name)
            for history in self.schema.histories
        }
        events = {}
        for name, cut in cuts.items():
            events[name] = self._rewrite_events(entry, new, name, cut)
        splits, rows, impressions, times = {}, {}, [np.empty(0, np.uint64)], []
        for split in entry.splits:
            writer = BlockWriter(self._path(new) / split)
            first_row, gone = 0, []
            for block in _encoded(self._path(entry) / split):
                stays = array(block.requests, "@user") != self.code
                leaves = ~stays[array(block.rows, "@request")]
                gone.append(np.flatnonzero(leaves) + first_row)
                first_row += block.num_rows
                if "@impression" in block.rows:
                    impressions.append(array(block.rows, "@impression")[leaves])
                for name, cut in cuts.items():
                    column = f"@history.{name}.end"
                    block.requests[column] = cut.moved(array(block.requests, column))
                writer.write(block if stays.all() else take_requests(block, np.flatnonzero(stays)))
                if "@time" in block.rows and not leaves.all():
                    times.append(array(block.rows, "@time")[~leaves])
            splits[split], rows[split] = writer.close(), np.concatenate([np.empty(0, np.int64), *gone])
        removed = _Removed(rows, np.concatenate(impressions), sum(cut.total for cut in cuts.values()))
        low = min((int(time.min()) for time in times), default=None)
        high = max((int(time.max()) for time in times), default=None)
        return replace(new, splits=splits, events=events, time_min=low, time_max=high), removed

    def _rewrite_events(self, entry: PartitionEntry, new: PartitionEntry, name: str, cut: _Cuts) -> int:
        store, folder = self._store(entry, name), self._path(new) / "events" / name
        folder.mkdir(parents=True)
        of_users = self._codes_of_users(name)
        for column, values in store.columns.items():
            writer = flat.FlatWriter(folder / f"{column}.npy", values.dtype)
            for piece in cut.kept(len(values)):
                kept = values[piece]
                writer.append(np.where(kept == self.code, np.uint64(0), kept) if column in of_users else kept)
            writer.close()
        if store.user is not None and store.start is not None:
            stays = store.user != self.code
            start = cut.moved(np.asarray(store.start))
            save_columns(
                folder, {"user": store.user[stays], "start": np.append(start[:-1][stays], start[-1])}
            )
        return store.num_events - cut.total

    def _is_touched(self, entry: PartitionEntry, removed: dict[str, _Removed]) -> bool:
        if any(correction.target in removed for correction in entry.corrections):
            return True
        gone = np.concatenate([np.empty(0, np.uint64), *(r.impressions for r in removed.values())])
        return any(load_late(self.folder, entry, task).find(gone)[0].any() for task in entry.late)

    def _rewrite_corrections(
        self,
        entry: PartitionEntry,
        new: PartitionEntry,
        entries: dict[str, PartitionEntry],
        removed: dict[str, _Removed],
    ) -> PartitionEntry:
        """Late labels follow their rows; those of rows that left go."""
        source, target = self._path(entry) / "corrections", self._path(new) / "corrections"
        corrections: list[CorrectionEntry] = []
        for correction in entry.corrections:
            columns = {
                name: np.asarray(flat.open_flat(source / correction.folder / f"{name}.npy"))
                for name in ("row", "label", "known_at")
            }
            if correction.target in removed:
                gone = removed[correction.target].rows[correction.split]
                stays = ~np.isin(columns["row"], gone)
                columns = {name: values[stays] for name, values in columns.items()}
                columns["row"] = columns["row"] - np.searchsorted(gone, columns["row"])
                correction = replace(
                    correction, target=entries[correction.target].name, rows=len(columns["row"])
                )
            save_columns(target / correction.folder, columns)
            corrections.append(correction)
        gone = np.concatenate([np.empty(0, np.uint64), *(r.impressions for r in removed.values())])
        for task, place in entry.late.items():
            late = load_late(self.folder, entry, task)
            stays = ~np.isin(late.impression, gone)
            save_columns(target / place, {name: getattr(late, name)[stays] for name in LATE})
        return replace(new, corrections=tuple(corrections))


def _blocks(path: Path) -> Iterator[Columns]:
    """The columns of every record batch of an Arrow file."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield from_arrow(reader.get_batch(number))


def _encoded(folder: Path) -> Iterator[EncodedBlock]:
    """The blocks of a split; one without rows where there is none, so that the columns are known."""
    some = False
    for requests, rows in zip(
        _blocks(folder / "requests.arrow"), _blocks(folder / "rows.arrow"), strict=True
    ):
        some = True
        yield EncodedBlock(requests, rows, len(array(requests, "@user")), len(array(rows, "@request")))
    if not some:
        requests, rows = (_no_rows(folder / f"{name}.arrow") for name in ("requests", "rows"))
        yield EncodedBlock(requests, rows, 0, 0)


def _no_rows(path: Path) -> Columns:
    with pa.memory_map(str(path)) as source:
        schema = pa.ipc.open_file(source).schema
    return from_arrow(pa.RecordBatch.from_pylist([], schema))


def _blank(path: Path, schema: Schema, space: str, code: int) -> bool:
    """Remove the key from a run's id map: the map without it is written beside, then takes its place."""
    aside, new = path.with_name(f".{space}.old"), path.with_name(f".{space}.new")
    if aside.is_dir() and not path.is_dir():  # interrupted between the two renames
        aside.rename(path)
    for left in (aside, new):
        rmtree(left, ignore_errors=True)
    if not path.is_dir():  # an empty or hashed map has no files
        return False
    old = IdMap.load(path, schema.key_space(space))
    without = old.forget(code)
    if without is old:
        return False
    without.save(new)
    path.rename(aside)
    new.rename(path)
    rmtree(aside)
    return True
