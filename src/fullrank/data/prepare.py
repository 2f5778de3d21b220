"""Logs → partitions: read and check, group by user, fit on training rows, encode, commit.

Every stage streams: what is held in memory is a chunk of rows, one bucket of users, the key counts and the id maps.
What is long is in files of the work folder. Equal input gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fullrank.data import flat, splits
from fullrank.data.by_user import Grouped, Wanted, group
from fullrank.data.columns import DataError
from fullrank.data.commit import commit, files_under, sizes, undertaking
from fullrank.data.corrections import late_outcomes
from fullrank.data.history import HistorySource
from fullrank.data.id_map import IdMap
from fullrank.data.id_segments import digest
from fullrank.data.item_table import ItemTable
from fullrank.data.lineage import Lineage
from fullrank.data.manifest import FORMAT, MANIFEST, Manifest, PartitionEntry
from fullrank.data.partition_writer import BLOCK_ROWS
from fullrank.data.prepare_checks import check_hash_key, check_schema, chosen_split, key_check, partition_with
from fullrank.data.scalers import Scalers
from fullrank.data.source import LogSource
from fullrank.data.splits import AllTrain, ByHash, ByTime, PerUserOrder, Split
from fullrank.data.stage_encode import Earlier, encode
from fullrank.data.stage_fit import extend_ids, fit_items, fit_scalers, last_training_time
from fullrank.data.stage_read import Read, read
from fullrank.data.stages import Stages
from fullrank.data.transform import Transform
from fullrank.schema import Schema
from fullrank.schema_toml import to_toml


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What bounds memory: `keys` entries that each key counter holds, `block_rows` rows of a block on disk. The result
    does not depend on `keys`."""

    keys: int = 1 << 18
    block_rows: int = BLOCK_ROWS


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """What `prepare` did. `rows`: by split. `events`: by history, of this partition. `new_keys`: by key space."""

    folder: Path
    partition: str
    is_new: bool
    rows: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    new_keys: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.is_new:
            return (
                f"{self.folder}: this input is there already, as partition {self.partition}. Nothing to do."
            )
        lines = [f"{self.folder}: prepared partition {self.partition}."]
        for name, rows in self.rows.items():
            lines.append(f"  {name}: {rows} rows in {self.requests[name]} requests")
        lines += [f"  history {name}: {events} events" for name, events in self.events.items()]
        lines += [f"  key space {name}: {keys} new keys" for name, keys in self.new_keys.items()]
        return "\n".join(lines)


def prepare(
    source: LogSource,
    out: Path | str,
    *,
    split: Split | None = None,
    append: bool = False,
    hash_key: bytes | None = None,
    as_of: int | None = None,
    progress: bool = False,
    budget: Budget | None = None,
) -> PrepareReport:
    """Prepare a log into the folder `out`, as its first partition or (`append`) as one more.

    `split`: needed for the first; an append repeats a `GivenFiles` or `ByHash` of the first and otherwise trains
    (`AllTrain`). `hash_key` hides user, request and impression keys. `as_of` (µs, or position): what is known; by
    default the latest row, or label that came later. The same input again changes nothing and says so.

    Raises `DataError`: bad records, other input for a folder that has some, another schema or hash key on append, an
    append to a `PerUserOrder` split, no training rows, someone else writing, no space. Then nothing has changed.
    """
    with undertaking(Path(out)) as work, Stages(progress) as stages:
        return _Preparation(source, Path(out), work, hash_key, as_of, budget or Budget(), stages).run(
            split, append
        )


class _Preparation:
    """One run of `prepare`."""

    def __init__(
        self,
        source: LogSource,
        out: Path,
        work: Path,
        hash_key: bytes | None,
        as_of: int | None,
        budget: Budget,
        stages: Stages,
    ):
        self.source, self.schema, self.out, self.work = source, source.schema, out, work
        self.hash_key, self.as_of, self.budget, self.stages = hash_key, as_of, budget, stages
        self.old = Manifest.load(out) if (out / MANIFEST).exists() else None
        self.toml = to_toml(self.schema)

    def run(self, asked: Split | None, append: bool) -> PrepareReport:
        if self.old:
            check_hash_key(self.old, self.hash_key)
            check_schema(self.out, self.old, self.toml)
        events = [f"{name}={events.fingerprint()}" for name, events in sorted(self.source.events.items())]
        contents = digest(self.source.fingerprint(), *events)
        there = partition_with(self.out, self.old, contents, asked, self.as_of, append)
        if there:
            return PrepareReport(folder=self.out, partition=there, is_new=False)
        split = chosen_split(self.schema, self.old, asked)
        Transform(
            self.schema, {}, Scalers()
        )  # what it refuses of a schema is better heard before all is read
        before = self.old.to_json() if self.old else ""
        options = f"{FORMAT} {splits.to_json(split)} {self.as_of} {self.budget.block_rows}"
        fingerprint = digest(contents, digest(self.toml), before, key_check(self.hash_key), options)
        name = f"{len(self.old.partitions) if self.old else 0:04d}-{fingerprint[:8]}"
        return self._prepare(name, fingerprint, contents, split)

    def _prepare(self, name: str, fingerprint: str, contents: str, split: Split) -> PrepareReport:
        old, folder = self.old, self.out / "partitions" / name
        self.stages.begin("read")
        inputs = read(self.source, self.work, split, self.hash_key, self.stages.done)
        num_rows = inputs.rows.num_rows
        earlier = self._earlier()
        self.stages.begin("group by user", num_rows)
        grouped = self._group(inputs, split, folder, earlier)
        of_row = self._splits(inputs, grouped, split)
        if old is None and not splits.counts(of_row)["train"]:
            raise DataError(
                f"Expected training rows, got none of {len(of_row)}: choose another split than {split}."
            )
        before = load_transform(self.out, old, self.schema) if old else None
        self.stages.begin("fit", num_rows)
        fitted = self._fit(inputs, of_row, grouped, before)
        self.stages.begin("encode", num_rows)
        encoded = encode(
            inputs,
            grouped,
            of_row,
            fitted,
            folder,
            self.work,
            earlier,
            self.budget.block_rows,
            self.stages.done,
        )
        self.stages.begin("commit")
        lineage = (Lineage.from_json(old.lineage) if old else Lineage()).extend(fitted.id_maps)
        fixed = self._save(fitted)
        known = inputs.known_max or 0
        as_of = self.as_of if self.as_of is not None else max(known, old.as_of) if old else known
        entry = PartitionEntry(
            name=name,
            kind="rows",
            source=contents,
            fingerprint=fingerprint,
            lineage_version=len(lineage.versions) - 1,
            splits=encoded.splits,
            events=encoded.events,
            time_min=inputs.time_min,
            time_max=inputs.time_max,
            as_of=as_of,
        )
        names = sorted(
            {path.relative_to(self.out).as_posix() for path in fixed} | set(files_under(self.out, folder))
        )
        manifest = Manifest(
            schema_hash=digest(self.toml),
            split=old.split if old else splits.to_json(split),
            as_of=as_of,
            key_check=key_check(self.hash_key),
            lineage=lineage.to_json(),
            fitted_at=old.fitted_at if old else name,
            partitions=(*(old.partitions if old else ()), entry),
            files={**(old.files if old else {}), **sizes(self.out, names)},
        )
        commit(self.out, manifest)
        empty = {space: IdMap.empty(self.schema.key_space(space)) for space in fitted.id_maps}
        maps = before.id_maps if before else empty
        return PrepareReport(
            folder=self.out,
            partition=name,
            is_new=True,
            rows={split: size.rows for split, size in encoded.splits.items()},
            requests={split: size.requests for split, size in encoded.splits.items()},
            events=encoded.events,
            new_keys={name: new.num_rows - maps[name].num_rows for name, new in fitted.id_maps.items()},
        )

    def _fit(self, inputs: Read, of_row: np.ndarray, grouped: Grouped, before: Transform | None) -> Transform:
        """What was fitted, extended by the training rows of this input."""
        last = last_training_time(self.schema, grouped.request_time, of_row)
        empty = {space: IdMap.empty(self.schema.key_space(space)) for space in self.schema.used_key_spaces()}
        maps = before.id_maps if before else empty
        maps = extend_ids(
            self.schema, inputs, of_row, last, maps, self.work, self.budget.keys, self.stages.done
        )
        scalers = before.scalers if before else fit_scalers(self.schema, inputs, of_row, last)
        items = fit_items(self.schema, inputs, maps, scalers, before.items if before else None)
        return Transform(self.schema, maps, scalers, items)

    def _save(self, fitted: Transform) -> list[Path]:
        """The files of the fitted state; those of earlier versions are there already."""
        files = [
            file for name, id_map in fitted.id_maps.items() for file in id_map.save(self.out / "ids" / name)
        ]
        if fitted.items is not None:
            number = len(self.old.partitions) if self.old else 0
            segment = fitted.items.save(self.out / "items", number)
            files += [segment] if segment else []
        if self.old is None:
            (self.out / "transform").mkdir()
            fitted.scalers.save(self.out / "transform" / "scalers.json")
            (self.out / "schema.toml").write_text(self.toml, encoding="utf-8")
            files += [self.out / "transform" / "scalers.json", self.out / "schema.toml"]
        return files

    def _earlier(self) -> Earlier:
        """What a new partition takes over from those before."""
        old, stores = self.old, {}
        if old is None:
            return Earlier({}, {})
        outcomes = {}
        for history in self.schema.histories:
            if history.layout == "by_user":
                stores[history.name] = [
                    (
                        number,
                        HistorySource.open(self.out / "partitions" / entry.name / "events" / history.name),
                    )
                    for number, entry in enumerate(old.partitions)
                    if entry.kind == "rows"
                ]
                outcomes[history.name] = late_outcomes(self.out, old, self.schema, history)
        return Earlier(stores, outcomes)

    def _group(self, inputs: Read, split: Split, folder: Path, earlier: Earlier) -> Grouped:
        wanted = [
            Wanted(
                history.name,
                history.max_length,
                folder / "events" / history.name,
                earlier.stores.get(history.name, ()),
            )
            for history in self.schema.histories
            if history.layout == "by_user"
        ]
        order = split if isinstance(split, PerUserOrder) else None
        return group(self.work, inputs.keys, wanted, order, self.stages.done)

    def _splits(self, inputs: Read, grouped: Grouped, split: Split) -> np.ndarray:
        """The split of each row, that of its request's first row."""
        if grouped.split is not None:
            return grouped.split
        n = len(grouped.first)
        decided = flat.create(self.work / "split.npy", np.uint8, n)
        if isinstance(split, AllTrain):
            return decided
        cut = (
            splits.by_time(split, self._scratch(grouped.request_time)) if isinstance(split, ByTime) else None
        )
        for piece in flat.pieces(n):
            first = grouped.first[piece]
            if cut is not None:
                decided[piece] = cut(grouped.request_time[piece])
            elif isinstance(split, ByHash):
                assert inputs.hashed is not None
                decided[piece] = splits.by_hash(split, inputs.hashed[first])
            else:
                assert inputs.given is not None
                decided[piece] = inputs.given[first]
        return decided

    def _scratch(self, times: np.ndarray) -> Callable[[], np.ndarray]:
        """A function that gives a copy of `times` in a file, to be partitioned in place."""

        def copy() -> np.ndarray:
            copied = flat.create(self.work / "quantiles.npy", np.int64, len(times))
            for piece in flat.pieces(len(times)):
                copied[piece] = times[piece]
            return copied

        return copy


def load_transform(folder: Path, manifest: Manifest, schema: Schema) -> Transform:
    """The fitted state of a folder of prepared data, at its newest version (without the hash key)."""
    spaces = Lineage.from_json(manifest.lineage).versions[-1].spaces
    maps = {
        name: IdMap.load(folder / "ids" / name, schema.key_space(name), hash=version.hash)
        for name, version in spaces.items()
    }
    segments = [int(Path(name).stem) for name in manifest.files if name.startswith("items/")]
    items = ItemTable.load(folder / "items", segments) if segments else None
    return Transform(schema, maps, Scalers.load(folder / "transform" / "scalers.json"), items)
