"""The best items for a user, scored by a run: the catalogue against one request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fullrank.data.assemble import assemble
from fullrank.data.columns import Columns, DataError, EncodedBlock, Ragged, array
from fullrank.data.history import HistorySource
from fullrank.data.id_map import MISSING_ID
from fullrank.data.inputs import Field, Inputs
from fullrank.data.keys import code_of_key
from fullrank.data.partitions import PreparedData
from fullrank.rankers import Ranker
from fullrank.training.run import Run


@dataclass(frozen=True)
class Recommendation:
    """One item: its key, the first text feature of the schema (a title, say; "" without one), a probability a task."""

    key: str
    text: str
    probability: dict[str, float]


@dataclass(frozen=True)
class Recommendations:
    """`items`, best first by the first task. `known`: whether the log ever saw the user. `events`: past events read."""

    known: bool
    events: int
    items: tuple[Recommendation, ...]


def recommend(
    run: Run, ranker: Ranker, data: PreparedData, user: str | int, *, k: int = 3, hash_key: bytes | None = None
) -> Recommendations:
    """The `k` items of the catalogue with the highest probability of the run's first task, less those in the user's
    history, for a request made now: just after the newest time the data know.

    The request carries the user and context features of the user's newest request; those of a user never seen are
    missing, and go through the same model as unknown rows. `pair` features are missing: they belong to a row that
    does not exist yet. Scores the whole catalogue: for millions of items put a retriever in front.
    """
    data.lineage.check(run.record.lineage, str(run.path))
    transform = run.transform()
    view = data.pinned(transform)
    inputs = run.record.inputs
    items = view.items
    if items is None:
        raise DataError(f"{data.folder} has no items: recommending needs a log with the role `item`.")
    code = np.uint64(code_of_key(user, hash_key))
    requests, partition = _newest_request(view, code)
    known = requests is not None
    if requests is None:
        requests = _unknown_request(view, inputs, code)
    now = max(int(array(requests, "@time")[0]) if "@time" in requests else 0, data.as_of) + 1
    requests["@time"] = np.array([now])
    stores = _newest_events(view, inputs, requests, code, now, partition)
    rows: Columns = {"@request": np.zeros(len(items), dtype=np.int32)}
    for field in inputs.candidate:
        if field.name == "item":
            rows["item"] = items.id
        elif field.name in items.columns:
            rows[field.name] = items.columns[field.name]
        else:
            rows |= _missing(field, len(items))
    block = EncodedBlock(requests, rows, 1, len(items))
    batch = assemble(
        block, inputs, sources=stores, items=items, views=view.views, as_of=data.as_of, windows={}, labels=False
    )
    with torch.inference_mode():
        logits = ranker(batch).logits
    past = [
        store.columns["@item"][_span(requests, history.name)]
        for history, store in zip(inputs.histories, stores, strict=True)
        if data.schema.history(history.name).key_space == "item"
    ]
    seen = np.concatenate([np.empty(0, np.uint64), *past])
    score = logits[inputs.task_names[0]].numpy().astype(np.float64)
    score[np.isin(items.code, seen)] = -np.inf
    best = np.lexsort((items.id, -score))[:k]
    text = next(iter(items.texts.values()), None)
    return Recommendations(
        known=known,
        events=len(seen),
        items=tuple(
            Recommendation(
                key=items.key[int(i)].as_py(),
                text=(text[int(i)].as_py() or "") if text is not None else "",
                probability={task: float(torch.sigmoid(logits[task][int(i)])) for task in inputs.task_names},
            )
            for i in best
            if score[i] > -np.inf
        ),
    )


def _span(requests: Columns, history: str) -> slice:
    end = int(array(requests, f"@history.{history}.end")[0])
    return slice(end - int(array(requests, f"@history.{history}.length")[0]), end)


def _newest_request(data: PreparedData, code: np.uint64) -> tuple[Columns | None, int]:
    """The columns of the user's newest request in the log and its partition; (None, the first) if there is none."""
    newest: tuple[int, Columns] | None = None
    where = 0
    for partition in data.partitions:
        for split in partition.entry.splits:
            for block in partition.blocks(split):
                users = array(partition.columns(block, "requests", ["@user"]), "@user")
                at = np.flatnonzero(users == code)
                if not len(at):
                    continue
                columns = partition.columns(block, "requests", None)
                time = array(columns, "@time") if "@time" in columns else np.zeros(len(users), np.int64)
                last = at[np.argmax(time[at])]
                if newest is None or time[last] >= newest[0]:
                    one = np.array([last])
                    taken: Columns = {
                        name: column.take(one) if isinstance(column, Ragged) else column[one]
                        for name, column in columns.items()
                    }
                    newest, where = (int(time[last]), taken), partition.index
    return (newest[1] if newest else None), where


def _unknown_request(data: PreparedData, inputs: Inputs, code: np.uint64) -> Columns:
    requests: Columns = {"@user": np.array([code], dtype=np.uint64)}
    for field in inputs.request:
        requests |= _missing(field, 1)
        if field.name == "user":
            requests["user"] = data.transform.id_maps["user"].ids(np.array([code], dtype=np.uint64))
    for history in inputs.histories:
        requests[f"@history.{history.name}.end"] = np.zeros(1, np.int64)
        requests[f"@history.{history.name}.length"] = np.zeros(1, np.int32)
    return requests


def _missing(field: Field, n: int) -> Columns:
    """The column of a field nobody knows the value of."""
    if field.kind == "categorical":
        return {field.name: np.full(n, MISSING_ID, dtype=np.int32)}
    if field.kind == "numeric":
        return {field.name: np.full(n, np.nan, dtype=np.float32)}
    if field.kind == "vector":
        return {field.name: np.full((n, field.dim), np.nan, dtype=np.float32)}
    empty = np.zeros(n + 1, dtype=np.int64)
    return {
        field.name: Ragged(np.empty(0, np.int32), empty),
        f"{field.name}@weights": Ragged(np.empty(0, np.float32), empty),
    }


def _newest_events(
    data: PreparedData, inputs: Inputs, requests: Columns, code: np.uint64, now: int, partition: int
) -> tuple[HistorySource, ...]:
    """An event store for each history. A by_user history is read up to `now` from the newest partition that holds the
    user's events, since that has the earlier ones too; an inline one is what was logged with the request."""
    stores = []
    for history in inputs.histories:
        sources = data.sources(history.name)
        store = sources[partition]
        if data.schema.history(history.name).layout == "by_user":
            for store in reversed([source for source in sources if source.user is not None]):
                spans = store.spans(np.array([code], dtype=np.uint64), np.array([now]))
                requests[f"@history.{history.name}.end"] = spans.end_R
                requests[f"@history.{history.name}.length"] = spans.length_R
                if spans.length_R[0]:
                    break
        stores.append(store)
    return tuple(stores)
