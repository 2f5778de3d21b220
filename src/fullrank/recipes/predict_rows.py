"""A run's predictions of rows that were never prepared: the log's own columns in, a number a task and row out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from fullrank.data.ask import asking, complete
from fullrank.data.assemble import Views, assemble
from fullrank.data.batch import to_device
from fullrank.data.columns import NEVER
from fullrank.data.history import HistorySource, Spans
from fullrank.data.inputs import TaskInput
from fullrank.data.normalise import Origin
from fullrank.data.partitions import PreparedData
from fullrank.data.past import pasts
from fullrank.data.prepare_checks import check_hash_key
from fullrank.data.source import LogChunk
from fullrank.data.transform import EventsByUser
from fullrank.rankers import Ranker
from fullrank.recipes.field_states import field_states
from fullrank.schema import Schema
from fullrank.training.run import Run


@dataclass
class Seen:
    """What was found in the rows so far. `absent`: columns the run reads and the file has not. By input of the model:
    the rows in which it was missing, and those in which its key was never met in training. `events`: past events, by
    history, of all rows' requests; `source` says where each history comes from."""

    rows: int = 0
    absent: tuple[str, ...] = ()
    missing: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)

    def words(self) -> list[str]:
        """Sentences for a person; nothing is said of what is whole."""
        said = []
        if self.absent:
            said.append(f"Columns that are not there, taken as missing: {', '.join(self.absent)}.")
        for name in self.missing:
            parts = [f"missing in {self.missing[name]:,}"] * bool(self.missing[name])
            parts += [f"never met in training in {self.unknown[name]:,}"] * bool(self.unknown[name])
            if parts:
                said.append(f"{name}: {' and '.join(parts)} of {self.rows:,} rows.")
        said += [f"History {name}: {self.events[name]:,} events, {source}." for name, source in self.source.items()]
        return said


class RowPredictor:
    """Predicts rows by the path that prepared what the run learned from: `normalise`, `encode`, `assemble`.

    Rows of a prepared split, raw, get the logits that `predict` gives for the split, if the rows of a request stand
    together in them. A column that is not there is missing in every row; item attributes that are not there are those
    of the run's item table (our choice). Labels and what logging adds are not read. A history is read strictly before
    the row's time: from `data` where the log's rows are its events, from the rows where they carry lists.

    Args:
        data: prepared data with the users' past, what the run was trained on or a later version; None: no past.
        hash_key: where the run's data was prepared with one.
    """

    def __init__(
        self, run: Run, ranker: Ranker, data: PreparedData | None = None, *, hash_key: bytes | None = None
    ) -> None:
        inputs = run.record.inputs
        self.inputs = inputs
        self.seen = Seen()
        self._ranker = ranker.eval()
        self._device = next((parameter.device for parameter in ranker.parameters()), torch.device("cpu"))
        whole = run.transform(hash_key)
        self._transform = asking(whole, inputs)
        self._views: Views = {}
        self._events: dict[str, EventsByUser] = {}
        self._now = run.record.data.as_of + 1 if run.record.data else 0
        if data is not None:
            check_hash_key(data.manifest, hash_key)
            data.lineage.check(run.record.lineage, str(run.path))
            self._views = data.pinned(whole).views
            self._events |= pasts(data, inputs)
            self._now = max(self._now, data.as_of + 1)
        for wanted in inputs.histories:
            history = self.schema.history(wanted.name)
            if history.layout == "inline":
                self.seen.source[history.name] = "from the rows' own lists"
            elif data is not None:
                self.seen.source[history.name] = f"from {data.folder}"
            else:
                self._events[history.name] = _Nothing(self._columns_of_no_events(history.name))
                self.seen.source[history.name] = "none: give the prepared data that hold them"

    @property
    def schema(self) -> Schema:
        """What is read of a row."""
        return self._transform.schema

    def logits(self, records: pa.RecordBatch, origin: Origin | None = None) -> np.ndarray:
        """float32 [B, K], in the order of the rows and of the run's tasks. Raises `DataError`."""
        made = complete(self.schema, records, self._now)
        block, sources = self._transform.read(made.records, self.inputs, events=self._events, origin=origin)
        items = self._transform.items
        if items is not None:
            for feature in self.schema.features:
                if feature.of == "item" and feature.column in made.absent:
                    for name in (feature.name, f"{feature.name}@weights"):
                        if name in block.rows:
                            ids, codes = block.rows["item"], block.rows["@item"]
                            assert isinstance(codes, np.ndarray)
                            own = ids if isinstance(ids, np.ndarray) else ids.values[ids.offsets[:-1]]
                            block.rows[name] = items.attributes(name, own, codes_E=codes)
        batch = assemble(
            block,
            self.inputs,
            sources=sources,
            items=items,
            views=self._views,
            as_of=NEVER - 1,
            windows={},
            labels=False,
        )
        rows = np.bincount(batch.candidates.request_of_row_B.numpy(), minlength=block.num_requests)
        seen, maps = self.seen, self._transform.id_maps
        seen.rows += block.num_rows
        seen.absent = made.absent
        for part, fields, times in (
            (batch.requests.features, self.inputs.request, rows),
            (batch.candidates.features, self.inputs.candidate, np.ones(block.num_rows, np.int64)),
        ):
            for name, state in field_states(part, fields, maps).items():
                seen.missing[name] = seen.missing.get(name, 0) + int(times[state.missing_n].sum())
                seen.unknown[name] = seen.unknown.get(name, 0) + int(times[state.unknown_n].sum())
        for history, events in zip(self.inputs.histories, batch.requests.histories, strict=True):
            seen.events[history.name] = seen.events.get(history.name, 0) + events.num_events
        with torch.inference_mode():
            logits = self._ranker(to_device(batch, self._device)).logits
            return torch.stack([logits[task].float() for task in self.inputs.task_names], dim=1).cpu().numpy()

    def predict(self, chunks: Iterable[LogChunk]) -> Iterator[dict[str, np.ndarray]]:
        """The answers of every chunk, by task: memory is that of one chunk."""
        for chunk in chunks:
            yield answers(self.logits(chunk.records, Origin(chunk.file, chunk.first_row)), self.inputs.tasks)

    def _columns_of_no_events(self, name: str) -> dict[str, np.ndarray]:
        history = self.schema.history(name)
        columns: dict[str, np.ndarray] = {"item": np.empty(0, np.int32), "@item": np.empty(0, np.uint64)}
        columns |= {"time": np.empty(0, np.int64), "available": np.empty(0, np.int64)}
        for feature in history.features:
            columns[feature.name] = np.empty(0, np.int32 if feature.kind == "categorical" else np.float32)
        for outcome in history.outcomes:
            columns |= {outcome.name: np.empty(0, np.float32), f"{outcome.name}@known_at": np.empty(0, np.int64)}
        return columns


class _Nothing(HistorySource):
    """A store in which no user has a past."""

    def past(self, user_R: np.ndarray, time_R: np.ndarray) -> tuple[HistorySource, Spans]:
        return self, Spans(np.zeros(len(user_R), np.int64), np.zeros(len(user_R), np.int32))


def answers(logits_NK: np.ndarray, tasks: tuple[TaskInput, ...]) -> dict[str, np.ndarray]:
    """What the logits say, float32 [N] a task: a probability, or the number itself of a regression task."""
    values = np.asarray(logits_NK, dtype=np.float64)
    found = {}
    for place, task in enumerate(tasks):
        column = values[:, place]
        if task.kind == "binary":
            column = np.exp(-np.logaddexp(0.0, -column))  # 1 / (1 + e^-z), which can't overflow
        found[task.name] = column.astype(np.float32)
    return found
