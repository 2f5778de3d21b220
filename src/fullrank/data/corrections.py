"""Late labels: a partition of corrections, joined to earlier rows by impression.

A conversion that came after its day was prepared rewrites nothing. It is kept as (partition, split, row) → label and
the moment it became known, laid over the row's columns when its block is read. Events that later partitions carry over
take late labels as outcomes, where outcome and task are the same log column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data import flat
from fullrank.data.columns import NEVER, DataError, array, from_arrow
from fullrank.data.commit import commit, files_under, sizes, undertaking
from fullrank.data.event_writer import Outcomes, of_the_log
from fullrank.data.id_segments import digest
from fullrank.data.manifest import CorrectionEntry, Manifest, PartitionEntry
from fullrank.data.normalise import Origin, normalise
from fullrank.data.normalise_cells import row_error
from fullrank.data.normalise_time import ticks
from fullrank.data.prepare_checks import check_hash_key
from fullrank.data.source import LogSource
from fullrank.schema import History, Roles, Schema, Task, did_you_mean
from fullrank.schema_toml import from_toml

LATE = ("impression", "label", "known_at")


@dataclass(frozen=True, kw_only=True)
class CorrectionReport:
    """What `append_labels` did. `labels`: by task, labels that met a row; `unknown`: by task, those that met none."""

    folder: Path
    partition: str
    is_new: bool
    labels: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.is_new:
            return f"{self.folder}: these labels are there already, as partition {self.partition}. Nothing to do."
        lines = [f"{self.folder}: late labels as partition {self.partition}."]
        for task, count in self.labels.items():
            left_out = f", {self.unknown[task]} of unknown impressions left out" if self.unknown[task] else ""
            lines.append(f"  {task}: {count} labels{left_out}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Late:
    """Late labels of one task: `impression` uint64 ascending and distinct, `label` float32, `known_at` int64."""

    impression: np.ndarray
    label: np.ndarray
    known_at: np.ndarray

    def find(self, impression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of these impressions have a late label (bool), and the place of each label."""
        place = np.searchsorted(self.impression, impression)
        place = np.minimum(place, max(len(self.impression) - 1, 0))
        found = (
            self.impression[place] == impression
            if len(self.impression)
            else np.zeros(len(impression), dtype=bool)
        )
        return found & (impression != 0), place


def append_labels(
    source: LogSource, out: Path | str, *, hash_key: bytes | None = None, as_of: int | None = None
) -> CorrectionReport:
    """Add labels that came late. `source` has the columns: the schema's impression role, `task` (may be left out where
    the schema has one task), `label`, `time` (when it became known, in the schema's time unit).

    One impression and task may come twice only with the same label and time. Impressions that no row has are counted
    and left out. `as_of` becomes the given moment, or at least the latest `time`. Raises `DataError`.
    """
    out = Path(out)
    manifest = Manifest.load(out)
    schema = from_toml((out / "schema.toml").read_text(encoding="utf-8"))
    if not schema.roles.impression:
        raise DataError(
            "Late labels are joined by impression: prepare with a schema that has the role impression."
        )
    check_hash_key(manifest, hash_key)
    with undertaking(out):
        manifest = Manifest.load(out)
        contents = digest(source.fingerprint())
        for entry in manifest.partitions:
            if entry.kind == "corrections" and entry.source == contents:
                return CorrectionReport(folder=out, partition=entry.name, is_new=False)
        late = _read(source, schema, hash_key)
        name = f"{len(manifest.partitions):04d}-{digest('corrections', contents, manifest.to_json())[:8]}"
        folder = out / "partitions" / name / "corrections"
        corrections, met = _resolve(out, manifest, late, folder)
        places = {}
        for number, (task, labels) in enumerate(late.items()):
            places[task] = f"late-{number}"
            kept = Late(*(getattr(labels, column)[met[task]] for column in LATE))
            save_columns(folder / places[task], {column: getattr(kept, column) for column in LATE})
        known = max(
            [manifest.as_of, *(int(labels.known_at.max()) for labels in late.values() if len(labels.label))]
        )
        as_of = known if as_of is None else as_of
        entry = PartitionEntry(
            name=name,
            kind="corrections",
            source=contents,
            fingerprint=name.split("-")[1],
            lineage_version=len(manifest.lineage["versions"]) - 1,
            splits={},
            events={},
            corrections=tuple(corrections),
            late=places,
            as_of=as_of,
        )
        files = {**manifest.files, **sizes(out, files_under(out, out / "partitions" / name))}
        partitions = (*manifest.partitions, entry)
        commit(
            out,
            replace(manifest, as_of=as_of, partitions=partitions, files=files),
        )
    return CorrectionReport(
        folder=out,
        partition=name,
        is_new=True,
        labels={task: int(found.sum()) for task, found in met.items()},
        unknown={task: int((~found).sum()) for task, found in met.items()},
    )


def _read(source: LogSource, schema: Schema, hash_key: bytes | None) -> dict[str, Late]:
    """The labels of every task, sorted by impression, checked."""
    gathered: dict[str, list[tuple[np.ndarray, ...]]] = {task.name: [] for task in schema.tasks}
    before = 0
    for chunk in source.chunks():
        origin = Origin(chunk.file, chunk.first_row)
        for task, chosen in _by_task(chunk.records, schema, origin).items():
            rows = normalise(
                _schema_of(schema, task), _only(chunk.records, chosen), origin, hash_key=hash_key
            )
            impression, known_at = rows.array("@impression"), rows.array(f"@known_at.{task.name}")
            for what, bad in (("an impression", impression == 0), ("a label", known_at == NEVER)):
                if (bad & chosen).any():
                    row = origin.row(int(np.argmax(bad & chosen)))
                    raise DataError(
                        f"{chunk.file}: row {row}: expected {what}, got nothing. Leave such rows out."
                    )
            columns = (
                impression,
                rows.array(f"@label.{task.name}"),
                known_at,
                before + np.arange(1, rows.num_rows + 1),
            )
            gathered[task.name].append(tuple(column[chosen] for column in columns))
        before += chunk.records.num_rows
    return {name: _sorted(name, parts) for name, parts in gathered.items() if parts}


def _only(records: pa.RecordBatch, chosen: np.ndarray) -> pa.RecordBatch:
    """The records with a label only in the chosen rows, so that every row keeps its number."""
    labels = records.column("label") if "label" in records.schema.names else None
    if labels is None or chosen.all():
        return records
    kept = labels.take(pa.array(np.arange(len(chosen)), mask=~chosen))
    return records.set_column(records.schema.names.index("label"), "label", kept)


def _by_task(records: pa.RecordBatch, schema: Schema, origin: Origin) -> dict[Task, np.ndarray]:
    """Which rows are about which task."""
    tasks = {task.name: task for task in schema.tasks}
    if "task" not in records.schema.names:
        if len(tasks) == 1:
            return {schema.tasks[0]: np.ones(records.num_rows, dtype=bool)}
        names = records.schema.names
        raise DataError(
            f"{origin.file}: expected a column 'task' with one of {list(tasks)}, got the columns {names}."
        )
    names = np.array(records.column("task").to_pylist(), dtype=object)
    for row, name in enumerate(names):
        if name not in tasks:
            near = did_you_mean(str(name), list(tasks))
            raise row_error(origin, "task", row, name, f"one of {list(tasks)}", near.strip())
    return {task: names == name for name, task in tasks.items() if (names == name).any()}


def _schema_of(schema: Schema, task: Task) -> Schema:
    """What a table of late labels of one task means."""
    time = {"order": "time"} if schema.time_unit == "position" else {"time": "time"}
    roles = Roles(impression=schema.roles.impression, **time)
    label = replace(task, column="label", label_time="time", window=0, parent="", scenarios=())
    return Schema(name="late labels", roles=roles, time_unit=schema.time_unit, tasks=(label,))


def _sorted(task: str, parts: Sequence[tuple[np.ndarray, ...]]) -> Late:
    impression, label, known_at, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(impression, kind="stable")
    impression, label, known_at, row = impression[order], label[order], known_at[order], row[order]
    again = np.flatnonzero(impression[1:] == impression[:-1]) + 1
    differ = again[(label[again] != label[again - 1]) | (known_at[again] != known_at[again - 1])]
    if len(differ):
        one, two = int(differ[0]) - 1, int(differ[0])
        raise DataError(
            f"Expected one label of task {task!r} an impression, got two for the same: {label[one]:g} known at "
            f"{known_at[one]} (row {row[one]}), {label[two]:g} known at {known_at[two]} (row {row[two]}). "
            "Keep the one that holds."
        )
    first = np.delete(np.arange(len(impression)), again)
    return Late(impression[first], label[first], known_at[first])


def _resolve(
    out: Path, manifest: Manifest, late: dict[str, Late], folder: Path
) -> tuple[list[CorrectionEntry], dict[str, np.ndarray]]:
    """Find the rows of the impressions, one block at a time, and write the corrections of every split."""
    met = {task: np.zeros(len(labels.label), dtype=bool) for task, labels in late.items()}
    entries = []
    for entry in manifest.partitions:
        for split in entry.splits:
            found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {task: [] for task in late}
            first_row = 0
            for impression in blocks_of(
                out / "partitions" / entry.name / split / "rows.arrow", "@impression"
            ):
                for task, labels in late.items():
                    here, place = labels.find(impression)
                    if here.any():
                        found[task].append((np.flatnonzero(here) + first_row, place[here]))
                        met[task][place[here]] = True
                first_row += len(impression)
            for task, parts in found.items():
                if parts:
                    row, place = (np.concatenate(column) for column in zip(*parts, strict=True))
                    name = f"{len(entries):03d}"
                    labels = late[task]
                    save_columns(
                        folder / name,
                        {"row": row, "label": labels.label[place], "known_at": labels.known_at[place]},
                    )
                    entries.append(
                        CorrectionEntry(target=entry.name, split=split, task=task, folder=name, rows=len(row))
                    )
    return entries, met


def blocks_of(path: Path, column: str):
    """One column of every record batch of an Arrow file."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield array(from_arrow(reader.get_batch(number), [column]), column)


def save_columns(folder: Path, columns: dict[str, np.ndarray]) -> None:
    """One `.npy` file a column."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in columns.items():
        writer = flat.FlatWriter(folder / f"{name}.npy", values.dtype)
        writer.append(values)
        writer.close()


def load_late(out: Path, entry: PartitionEntry, task: str) -> Late:
    """The late labels of a corrections partition by impression, memory-mapped."""
    folder = out / "partitions" / entry.name / "corrections" / entry.late[task]
    return Late(*(flat.open_flat(folder / f"{name}.npy") for name in LATE))


def late_outcomes(out: Path, manifest: Manifest, schema: Schema, history: History) -> Outcomes | None:
    """What corrects the outcomes of carried events of a log history; None where nothing came late."""
    tasks = {task.column: task.name for task in schema.tasks}
    wanted = [
        (outcome, load_late(out, entry, tasks[outcome.column]))
        for entry in manifest.partitions
        for outcome in history.outcomes
        if outcome.column in tasks and tasks[outcome.column] in entry.late
    ]
    if not wanted or not of_the_log(history):
        return None

    def correct(columns: dict[str, np.ndarray]) -> None:
        for outcome, late in wanted:
            found, place = late.find(columns["@impression"])
            lag = ticks(outcome.lag, schema.time_unit)
            columns[outcome.name][found] = late.label[place[found]]
            columns[f"{outcome.name}@known_at"][found] = late.known_at[place[found]] + lag

    return correct
