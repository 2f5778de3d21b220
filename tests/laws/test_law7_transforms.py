"""Law 7. A transform fitted, saved and loaded is the same transform; and what a model reads of a record when it is
trained (prepare, loader) it reads when it predicts (`Transform.apply` on the raw record): every bit."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import laws_logs as logs
import laws_reading as reading
import numpy as np
import pyarrow as pa
import pytest

from fullrank.data.batch import Batch
from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.data.splits import ByTime
from fullrank.data.transform import Transform
from fullrank.schema import KeySpace, Scale, Schema

SPLIT = ByTime(valid=0.2, test=0.3)
CASES = [(name, layout) for name in logs.names() for layout in logs.log(name)]


def varied(schema: Schema) -> Schema:
    """Every kind of scaler and of key space: several unknown rows, a threshold, and k hashes where no event asks."""
    scales: tuple[Scale, ...] = ("standard", "log", "quantile", "none")
    numeric = [f.name for f in schema.features if f.kind == "numeric"]
    features = tuple(
        replace(f, scale=scales[numeric.index(f.name) % 4]) if f.kind == "numeric" else f for f in schema.features
    )
    in_events = {h.key_space for h in schema.histories} | {f.key_space for h in schema.histories for f in h.features}
    own = sorted({f.key_space for f in features if f.of in ("user", "context") and f.key_space} - in_events - {"user"})
    spaces = [KeySpace(name="item", min_count=2, unknown_rows=3)]
    spaces += [KeySpace(name="user", policy="frozen", unknown_rows=2)]
    spaces += [KeySpace(name=name, policy="hashed", buckets=11, hashes=2) for name in own[::2]]
    return replace(schema, features=features, key_spaces=tuple(spaces))


def raw_rows(source: logs.Memory, split: str) -> pa.RecordBatch:
    """The rows of a split as they came, the rows of a request together."""
    order = logs.prepared_order(source)
    parts = np.array(logs.splits_of(source, SPLIT))[order]
    (records,) = source.table.take(pa.array(order[parts == split])).combine_chunks().to_batches()
    return records


def predicted(data: PreparedData, transform: Transform, records: pa.RecordBatch, *, labels: bool = True) -> Batch:
    by_user = [history.name for history in data.schema.histories if history.layout == "by_user"]
    events = {name: data.sources(name)[0] for name in by_user}
    return transform.apply(records, Inputs.of(data.schema), events=events, labels=labels, as_of=data.as_of)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_prepare_and_predict_read_the_same(name: str, layout: str, tmp_path) -> None:
    source = logs.log(name)[layout]
    source = replace(source, schema=varied(source.schema))
    data = reading.prepared(source, tmp_path / "data", SPLIT, block_rows=70)
    data.transform.save(tmp_path / "saved")
    loaded = Transform.load(tmp_path / "saved", data.schema)
    for split in ("train", "valid", "test"):
        records = raw_rows(source, split)
        assert records.num_rows == data.num_rows(split) > 0
        trained = reading.batches(data, split, batch_size=records.num_rows)
        for transform in (data.transform, loaded):
            reading.assert_same(trained, [predicted(data, transform, records)])
        without = predicted(data, loaded, records.drop_columns(logged_only(source.schema, layout)), labels=False)
        reading.assert_same([replace(batch, labels=None) for batch in trained], [without])


def logged_only(schema: Schema, layout: str) -> list[str]:
    """Columns that are there once a row was shown and labelled. (An inline history brings its outcomes with it.)"""
    columns = {task.column for task in schema.tasks} | {task.label_time for task in schema.tasks}
    columns |= {getattr(schema.roles, role) for role in ("impression", "propensity", "exploration", "bid", "price")}
    return sorted(columns - {"", *(f.column for f in schema.features)})


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_a_record_alone_is_what_it_is_among_others(name: str, layout: str, tmp_path) -> None:
    source = logs.log(name)[layout]
    data = reading.prepared(source, tmp_path / "data", SPLIT)
    records, inputs = raw_rows(source, "test"), Inputs.of(source.schema)
    requests = logs.requests_of(replace(source, table=pa.Table.from_batches([records])))
    for request in (requests[0], requests[-1]):
        rows = np.flatnonzero([one == request for one in requests])
        alone = predicted(data, data.transform, cast(pa.RecordBatch, records.take(pa.array(rows))), labels=False)
        reading.assert_same([reading.rows_of(data, rows, inputs, "test")], [alone])


@pytest.mark.parametrize("name", logs.names())
def test_what_was_loaded_saves_to_the_same_bytes(name: str, tmp_path) -> None:
    source = next(iter(logs.log(name).values()))
    data = reading.prepared(replace(source, schema=varied(source.schema)), tmp_path / "data", SPLIT)
    first, second = tmp_path / "first", tmp_path / "second"
    data.transform.save(first)
    Transform.load(first, data.schema).save(second)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file()) and files
    assert [name for name in files if (first / name).read_bytes() != (second / name).read_bytes()] == []
