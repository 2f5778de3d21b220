"""Prepared data, opened: immutable partitions as memory-mapped blocks, late labels laid over them, views for old runs.

Opening reads the manifest and nothing else; columns are mapped when a block is read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.columns import Columns, DataError, EncodedBlock, array, from_arrow
from fullrank.data.history import HistorySource
from fullrank.data.inputs import Field, Inputs
from fullrank.data.manifest import CorrectionEntry, Manifest, PartitionEntry
from fullrank.data.normalise_time import task_windows
from fullrank.data.pack import LABEL_COLUMNS, Views, Windows, known_labels
from fullrank.schema import did_you_mean

if TYPE_CHECKING:
    from fullrank.data.item_table import ItemTable
    from fullrank.data.lineage import Lineage
    from fullrank.data.transform import Transform
    from fullrank.schema import Schema


@dataclass(frozen=True, kw_only=True)
class DataState:
    """Which partitions there were, and what was known: what a run was trained on."""

    partitions: tuple[str, ...]
    as_of: int


@dataclass(frozen=True)
class BlockRef:
    """Block `number` of one split of partition `partition` (an index); its rows start at `first_row` of the split."""

    partition: int
    split: str
    number: int
    first_row: int
    num_rows: int
    num_requests: int


class Partition:
    """One folder of `partitions/`."""

    def __init__(self, folder: Path, index: int, entry: PartitionEntry):
        self.folder = folder
        self.index = index
        self.entry = entry

    @cached_property
    def _files(self) -> dict[str, tuple]:
        import pyarrow as pa

        def mapped(split: str, name: str) -> pa.ipc.RecordBatchFileReader:
            return pa.ipc.open_file(pa.memory_map(str(self.folder / split / name)))

        return {split: (mapped(split, "requests.arrow"), mapped(split, "rows.arrow")) for split in self.entry.splits}

    def blocks(self, split: str) -> list[BlockRef]:
        if split not in self.entry.splits:
            return []
        requests, rows = self._files[split]
        blocks, first = [], 0
        for number in range(rows.num_record_batches):
            size = rows.get_batch(number).num_rows
            # without a column there is no request to tell from others: each row is its own
            num_requests = requests.get_batch(number).num_rows if requests.schema.names else size
            blocks.append(BlockRef(self.index, split, number, first, size, num_requests))
            first += size
        return blocks

    def columns(self, block: BlockRef, part: str, names: list[str] | None) -> Columns:
        """The named columns of a block that are there ("requests" or "rows"; every column if `names` is None)."""
        batch = self._files[block.split][part == "rows"].get_batch(block.number)
        held = batch.schema.names
        return from_arrow(batch, held if names is None else [name for name in names if name in held])

    def history(self, name: str) -> HistorySource:
        return HistorySource.open(self.folder / "events" / name)


class PreparedData:
    """A folder of prepared data: partitions, fitted state, and what was known when (`as_of`).

    `views` and `items` are those of the pinned version where `pinned` was called, else of the newest.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        self.as_of = manifest.as_of
        self.partitions = tuple(
            Partition(folder / "partitions" / entry.name, index, entry)
            for index, entry in enumerate(manifest.partitions)
        )

    @staticmethod
    def open(folder: Path | str) -> PreparedData:
        """Open a folder that `prepare` made; a file that is missing or cut short is an error that names it."""
        return PreparedData(Path(folder), Manifest.load(Path(folder)))

    @cached_property
    def schema(self) -> Schema:
        from fullrank.schema_toml import from_toml

        path = self.folder / "schema.toml"
        return from_toml(path.read_text(encoding="utf-8"), str(path))

    @cached_property
    def windows(self) -> Windows:
        """The attribution window of every task that has one."""
        return task_windows(self.schema)

    @cached_property
    def lineage(self) -> Lineage:
        from fullrank.data.lineage import Lineage

        return Lineage.from_json(self.manifest.lineage)

    @cached_property
    def transform(self) -> Transform:
        """What was fitted (id maps, scalers, item table), at the newest version."""
        from fullrank.data.prepare import load_transform

        return load_transform(self.folder, self.manifest, self.schema)

    @cached_property
    def views(self) -> Views:
        """Key space → id of the data → id to read, for key spaces where some differ."""
        return self._views(self.transform)

    def _views(self, transform: Transform) -> Views:
        views = {name: self.transform.id_maps[name].view(pinned) for name, pinned in transform.id_maps.items()}
        return {name: view for name, view in views.items() if (view != np.arange(len(view))).any()}

    @cached_property
    def items(self) -> ItemTable | None:
        return self.transform.items

    @property
    def state(self) -> DataState:
        """What there is now: enough to open it again as it is, after appends."""
        return DataState(partitions=tuple(entry.name for entry in self.manifest.partitions), as_of=self.as_of)

    def at(self, state: DataState) -> PreparedData:
        """The data as they were at `state`: partitions and late labels that came since are left out."""
        there = {entry.name: entry for entry in self.manifest.partitions}
        gone = [name for name in state.partitions if name not in there]
        if gone:
            raise DataError(
                f"Expected {self.folder} to have the partitions {list(state.partitions)}, {gone} are gone "
                "(`forget` rewrites partitions). Start a new run."
            )
        kept = tuple(there[name] for name in state.partitions)
        data = PreparedData(self.folder, replace(self.manifest, partitions=kept, as_of=state.as_of))
        data.transform = self.transform
        return data

    def pinned(self, transform: Transform) -> PreparedData:
        """The same partitions as a run sees them that pinned a version: every id becomes what the run's own maps make
        of its key (its id then, or an unknown row), and item attributes are those of its own item table."""
        data = PreparedData(self.folder, self.manifest)
        data.transform = self.transform
        data.as_of = self.as_of
        data.views = self._views(transform)
        data.items = transform.items
        return data

    def renamed(self, state: DataState) -> DataState:
        """The state with the names that its partitions have now: `forget` writes some anew, with the same number."""
        now = {entry.name.split("-")[0]: entry.name for entry in self.manifest.partitions}
        return replace(state, partitions=tuple(now.get(name.split("-")[0], name) for name in state.partitions))

    @property
    def splits(self) -> set[str]:
        """The splits that some partition has, be it without rows."""
        return {name for entry in self.manifest.partitions for name in entry.splits}

    def num_rows(self, split: str) -> int:
        """Rows of a split over all partitions; 0 for a split that is not there."""
        return sum(entry.splits[split].rows for entry in self.manifest.partitions if split in entry.splits)

    def blocks(self, split: str, partitions: tuple[int, ...] | None = None) -> list[BlockRef]:
        """Every block of a split, partition by partition; an unknown split name is an error."""
        known = sorted(self.splits)
        if split not in known:
            raise DataError(f"Expected a split of {self.folder}: {known}, got {split!r}.{did_you_mean(split, known)}")
        chosen = self.partitions if partitions is None else [self.partitions[index] for index in partitions]
        return [block for partition in chosen for block in partition.blocks(split) if block.num_rows]

    def sources(self, history: str) -> tuple[HistorySource, ...]:
        """The event store of a history in every partition, by partition index (an empty store for corrections)."""
        nothing = HistorySource({"item": np.empty(0, np.int32)})
        return tuple(p.history(history) if p.entry.kind == "rows" else nothing for p in self.partitions)

    def read(self, block: BlockRef, inputs: Inputs) -> EncodedBlock:
        """The columns of a block that `inputs` asks for, and those every batch has, with late labels laid over."""
        requests = ["@user", "@time", *_names(inputs.request)]
        for history in inputs.histories:
            requests += [f"@history.{history.name}.end", f"@history.{history.name}.length"]
        rows = ["@request", "@time", *LABEL_COLUMNS, *_names(inputs.candidate)]
        rows += [f"@{what}.{task}" for task in inputs.task_names for what in ("label", "known_at")]
        return self._block(block, requests, rows)

    def known(self, block: BlockRef, tasks: tuple[str, ...]) -> np.ndarray:
        """Which labels of a block count (bool `[rows, tasks]`), from the times and labels alone."""
        labels = [f"@{what}.{task}" for task in tasks for what in ("label", "known_at")]
        rows = self._block(block, [], ["@time", *labels]).rows
        return known_labels(rows, block.num_rows, tasks, as_of=self.as_of, windows=self.windows)

    def read_all(self, block: BlockRef) -> EncodedBlock:
        """Every column of a block, with late labels laid over."""
        return self._block(block, None, None)

    def _block(self, block: BlockRef, requests: list[str] | None, rows: list[str] | None) -> EncodedBlock:
        partition = self.partitions[block.partition]
        encoded = EncodedBlock(
            requests=partition.columns(block, "requests", requests),
            rows=partition.columns(block, "rows", rows),
            num_requests=block.num_requests,
            num_rows=block.num_rows,
        )
        return self._with_late_labels(block, encoded)

    @cached_property
    def _corrections(self) -> dict[tuple[str, str], list[tuple[CorrectionEntry, dict[str, np.ndarray]]]]:
        """(target partition, split) → late labels, in the order they arrived."""
        found: dict[tuple[str, str], list[tuple[CorrectionEntry, dict[str, np.ndarray]]]] = {}
        for partition in self.partitions:
            for entry in partition.entry.corrections:
                folder = partition.folder / "corrections" / entry.folder
                columns = {
                    name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                    for name in ("row", "label", "known_at")
                }
                found.setdefault((entry.target, entry.split), []).append((entry, columns))
        return found

    def _with_late_labels(self, block: BlockRef, encoded: EncodedBlock) -> EncodedBlock:
        rows = encoded.rows
        for entry, late in self._corrections.get((self.partitions[block.partition].entry.name, block.split), []):
            label, known_at = f"@label.{entry.task}", f"@known_at.{entry.task}"
            low, high = np.searchsorted(late["row"], [block.first_row, block.first_row + block.num_rows])
            come = np.flatnonzero(late["known_at"][low:high] <= self.as_of) + low  # later ones are still to come
            if not len(come) or label not in rows:
                continue
            place = late["row"][come] - block.first_row
            rows = {**rows, label: array(rows, label).copy(), known_at: array(rows, known_at).copy()}
            array(rows, label)[place] = late["label"][come]
            array(rows, known_at)[place] = late["known_at"][come]
        return replace(encoded, rows=rows)


def _names(fields: tuple[Field, ...]) -> list[str]:
    return [name for f in fields for name in ([f.name, f"{f.name}@weights"] if f.kind == "multi" else [f.name])]
