"""Logs → partitions: read and check, group by user, fit on training rows, encode, commit.

Every stage streams: what is held in memory is a chunk of rows, one bucket of users, the key counts and the id maps.
What is long is in files of the work folder. Equal input gives equal bytes.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from fullrank.data.scalers import Scalers
from fullrank.data.source import LogSource
from fullrank.data.splits import AllTrain, ByHash, ByTime, GivenFiles, PerUserOrder, Split
from fullrank.data.stage_encode import Earlier, encode
from fullrank.data.stage_fit import extend_ids, fit_items, fit_scalers, last_training_time
from fullrank.data.stage_read import Read, Tick, read
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
    with undertaking(Path(out)) as work, _progress(progress) as tick:
        return _Preparation(source, Path(out), work, hash_key, as_of, budget or Budget(), tick).run(
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
        tick: Tick,
    ):
        self.source, self.schema, self.out, self.work = source, source.schema, out, work
        self.hash_key, self.as_of, self.budget, self.tick = hash_key, as_of, budget, tick
        self.old = Manifest.load(out) if (out / MANIFEST).exists() else None
        self.toml = to_toml(self.schema)
        self.schema_hash = digest(self.toml)

    def run(self, asked: Split | None, append: bool) -> PrepareReport:
        if self.old:
            check_hash_key(self.old, self.hash_key)
            self._check_schema(self.old)
        events = [f"{name}={events.fingerprint()}" for name, events in sorted(self.source.events.items())]
        contents = digest(self.source.fingerprint(), *events)
        there = self._there(contents, asked, append)
        if there:
            return PrepareReport(folder=self.out, partition=there, is_new=False)
        split = self._split(asked)
        before = self.old.to_json() if self.old else ""
        options = f"{FORMAT} {splits.to_json(split)} {self.as_of} {self.budget.block_rows}"
        fingerprint = digest(contents, self.schema_hash, before, _key_check(self.hash_key), options)
        name = f"{len(self.old.partitions) if self.old else 0:04d}-{fingerprint[:8]}"
        return self._prepare(name, fingerprint, contents, split)

    def _prepare(self, name: str, fingerprint: str, contents: str, split: Split) -> PrepareReport:
        old, folder = self.old, self.out / "partitions" / name
        inputs = read(self.source, self.work, split, self.hash_key, self.tick)
        earlier = self._earlier()
        grouped = self._group(inputs, split, folder, earlier)
        of_row = self._splits(inputs, grouped, split)
        if old is None and not splits.counts(of_row)["train"]:
            raise DataError(
                f"Expected training rows, got none of {len(of_row)}: choose another split than {split}."
            )
        before = load_transform(self.out, old, self.schema) if old else None
        fitted = self._fit(inputs, of_row, grouped, before)
        encoded = encode(inputs, grouped, of_row, fitted, folder, self.work, earlier, self.budget.block_rows)
        lineage = (Lineage.from_json(old.lineage) if old else Lineage()).extend(fitted.id_maps)
        fixed = self._save(fitted)
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
        )
        known = inputs.known_max or 0
        names = sorted(
            {path.relative_to(self.out).as_posix() for path in fixed} | set(files_under(self.out, folder))
        )
        manifest = Manifest(
            schema_hash=self.schema_hash,
            split=old.split if old else splits.to_json(split),
            as_of=self.as_of if self.as_of is not None else max(known, old.as_of) if old else known,
            key_check=_key_check(self.hash_key),
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
        maps = extend_ids(self.schema, inputs, of_row, last, maps, self.work, self.budget.keys)
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

    def _there(self, contents: str, asked: Split | None, append: bool) -> str:
        """The partition that holds this input already, or "" if it is to be prepared."""
        if self.old is None:
            if append:
                raise DataError(
                    f"Expected prepared data in {self.out} to append to, found none: prepare it first."
                )
            return ""
        first = self.old.partitions[0]
        if append:
            return next((entry.name for entry in self.old.partitions if entry.source == contents), "")
        same = asked is None or splits.to_json(asked) == self.old.split
        if first.source == contents and same and self.as_of in (None, self.old.as_of):
            return first.name
        what = "another input" if first.source != contents else "the same input with other options"
        raise DataError(
            f"{self.out} holds prepared data, and this is {what}. To add it as one more partition, append; to start "
            "anew, choose another folder."
        )

    def _split(self, asked: Split | None) -> Split:
        if self.old is None:
            if asked is None:
                raise DataError(
                    "Expected a split, got none: GivenFiles, ByTime, PerUserOrder, ByHash or AllTrain."
                )
            return self._checked(asked)
        first = splits.from_json(self.old.split)
        if isinstance(first, PerUserOrder) or isinstance(asked, PerUserOrder):
            raise DataError(
                "Expected a log that can grow, got a split by each user's order, which is for a closed log: an append "
                "would move the cuts of every user. Prepare the whole log anew, or split by time or by hash."
            )
        repeated = first if isinstance(first, (GivenFiles, ByHash)) else AllTrain()
        return self._checked(asked or repeated)

    def _checked(self, split: Split) -> Split:
        roles = self.schema.roles
        if isinstance(split, ByTime) and not (roles.time or roles.order):
            raise DataError(
                "Expected a time or an order in the log to split by time, and the schema names neither."
            )
        if isinstance(split, PerUserOrder) and not roles.user:
            raise DataError(
                "Expected the role user to split by each user's order, and the schema does not name it."
            )
        if isinstance(split, ByHash):
            split.column(self.schema)
        return split

    def _check_schema(self, old: Manifest) -> None:
        if old.schema_hash == self.schema_hash:
            return
        stored = (self.out / "schema.toml").read_text(encoding="utf-8")
        lines = list(difflib.unified_diff(stored.splitlines(), self.toml.splitlines(), n=0, lineterm=""))
        changed = "; ".join(line for line in lines[2:] if not line.startswith("@@"))
        raise DataError(
            f"Expected the schema that {self.out} was prepared with, got another (- there, + here): {changed}. "
            "Use its schema.toml, or prepare into another folder."
        )

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
        return group(self.work, inputs.keys, wanted, split if isinstance(split, PerUserOrder) else None)

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


@contextmanager
def _progress(show: bool) -> Iterator[Tick]:
    """Rows read so far, on standard error."""
    if not show:
        yield lambda rows: None
        return
    from tqdm import tqdm

    with tqdm(unit=" rows", unit_scale=True, desc="read") as bar:
        yield bar.update


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


def check_hash_key(manifest: Manifest, hash_key: bytes | None) -> None:
    """Raise unless the keys were hashed (or not) the same way."""
    if manifest.key_check == _key_check(hash_key):
        return
    if not manifest.key_check:
        raise DataError(
            "Expected no hash key: the keys of this data are not hashed. Leave it out, or prepare anew."
        )
    if hash_key is None:
        raise DataError(
            "Expected the hash key that this data was prepared with, got none: its keys are hashed."
        )
    raise DataError(
        "Expected the hash key that this data was prepared with, got another: no key would be found again."
    )


def _key_check(hash_key: bytes | None) -> str:
    if hash_key is None:
        return ""
    return hashlib.blake2b(b"fullrank key check", key=hash_key, digest_size=16).hexdigest()
