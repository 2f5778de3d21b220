"""Law 2. No future: what was not yet available when a request came can be anything, and the request reads the same; and
what does not train leaves no trace in what is fitted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import laws_logs as logs
import laws_reading as reading
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rewriting import rewritten_after, rewritten_rows

from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.data.splits import ByHash, ByTime, GivenFiles, PerUserOrder, Split

LAYOUTS = [(name, layout) for name in logs.names() for layout in logs.log(name)]


@cache
def thinned(name: str, layout: str) -> logs.Memory:
    """The log without half of its rows. Lists and files of events keep what they had, so an item can be in a history
    long before the log first shows it. Where rows are the events, these keep the item's categories of their time."""
    source = logs.log(name)[layout]
    if layout == "log":
        features = source.schema.features
        mutable = tuple(replace(f, mutable=(f.of, f.kind) == ("item", "categorical")) for f in features)
        source = replace(source, schema=replace(source.schema, features=mutable))
    some = np.random.default_rng(5).permutation(source.table.num_rows)[: source.table.num_rows // 2]
    return replace(source, table=source.table.take(pa.array(np.sort(some))))


@cache
def original(name: str, layout: str) -> PreparedData:
    return reading.prepared(thinned(name, layout), Path(mkdtemp()) / "data")


def place_of_rows(source: logs.Memory) -> np.ndarray:
    order = logs.prepared_order(source)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.reuse, Phase.generate])
@given(data=st.data())
def test_a_request_reads_nothing_that_was_not_available(name: str, layout: str, data: st.DataObject) -> None:
    source, before = thinned(name, layout), original(name, layout)
    times = np.array(logs.request_times(source))
    row = data.draw(st.integers(0, len(times) - 1), label="row")
    changed = rewritten_after(source, row, data.draw(st.integers(0, 99), label="seed"))
    kept = np.append(np.flatnonzero(times < times[row]), row)
    inputs = Inputs.of(source.schema)
    with TemporaryDirectory() as folder:
        after = reading.prepared_with(before.transform, changed, Path(folder) / "data", keep_items=False)
        one, two = (
            reading.rows_of(prepared, place_of_rows(log)[kept], inputs)
            for prepared, log in ((before, source), (after, changed))
        )
        assert reading.differences(one, two) == []


SPLITS: dict[str, tuple[Split, ...]] = {  # by layout: what is read for fitting differs with it
    "log": (ByTime(valid=0.2, test=0.2), PerUserOrder(valid=0.2, test=0.2), GivenFiles()),
    "file": (ByTime(valid=0.2, test=0.2), ByHash(valid=0.2, test=0.2)),
    "inline": (PerUserOrder(valid=0.2, test=0.2), GivenFiles()),
}
SPLIT_CASES = [(name, layout, split) for name, layout in LAYOUTS for split in SPLITS[layout]]


@pytest.mark.parametrize(("name", "layout", "split"), SPLIT_CASES, ids=lambda part: str(part).split("(")[0])
def test_what_does_not_train_leaves_no_trace(name: str, layout: str, split: Split, tmp_path) -> None:
    source, roles = logs.log(name)[layout], logs.log(name)[layout].schema.roles
    keep = [column for column in (roles.request, roles.impression, roles.user, roles.time) if column]
    if isinstance(split, GivenFiles):
        keep = [column for column in (roles.request, roles.impression) if column]
        splits = np.array(logs.splits_of(source, PerUserOrder(valid=0.3, test=0.3)))
        order = np.argsort(splits, kind="stable")
        source = replace(source, table=source.table.take(pa.array(order)), splits=tuple(splits[order].tolist()))
    trains = np.array(logs.splits_of(source, split)) == "train"
    one = reading.prepared(source, tmp_path / "one", split)
    assert one.num_rows("train") == trains.sum() and 0 < trains.sum() < len(trains)
    changed = replace(source, table=rewritten_rows(source, ~trains, 3, keep, later=50))
    two = reading.prepared(changed, tmp_path / "two", split)
    maps = one.transform.id_maps, two.transform.id_maps
    assert {name: m.hash for name, m in maps[0].items()} == {name: m.hash for name, m in maps[1].items()}
    assert one.transform.scalers == two.transform.scalers
    if isinstance(split, ByTime):
        assert_same_catalogue(one, two, source, trains)


def assert_same_catalogue(one: PreparedData, two: PreparedData, source: logs.Memory, trains: np.ndarray) -> None:
    """The item table is a catalogue of all rows, also those that do not train: an item's entry is that of its first
    row. Under a cut in time every item of a training row was first seen in one, so its entry cannot change."""
    item = source.table[source.schema.roles.item].to_numpy(zero_copy_only=False)
    inputs = [f.name.removeprefix("item.") for h in Inputs.of(source.schema).histories for f in h.fields]
    maps = one.transform.id_maps["item"]
    ids = np.arange(maps.first_key_id, maps.num_rows, dtype=np.int32)
    assert len(ids) == len(set(item[trains].tolist()))
    assert one.items is not None and two.items is not None
    for name in set(inputs) & set(one.items.columns):
        left, right = (data.items.attributes(name, ids) for data in (one, two) if data.items)
        assert type(left) is type(right)
        if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
            assert np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
        elif not isinstance(left, np.ndarray) and not isinstance(right, np.ndarray):
            assert np.array_equal(left.values, right.values) and np.array_equal(left.offsets, right.offsets)

