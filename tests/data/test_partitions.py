"""Prepared data, opened: blocks in order, columns asked for, late labels laid over, versions and states of the past."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_log import DAY, SCHEMA, Memory, rows

from fullrank.data.columns import NEVER, DataError, array
from fullrank.data.corrections import append_labels
from fullrank.data.inputs import Inputs
from fullrank.data.keys import code_of_key
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.splits import AllTrain, ByTime

SMALL = Budget(block_rows=40)
SECOND = 1_000_000
START = 1_000_000  # of the small log


@pytest.fixture
def out(tmp_path: Path) -> Path:
    prepare(Memory(rows()), tmp_path / "data", split=ByTime(valid=0.1, test=0.2), budget=SMALL)
    return tmp_path / "data"


def append_day(out: Path) -> PreparedData:
    table = rows(seed=1, start=START + DAY, items=30)
    names = pa.array([f"{name} of day 2" for name in table["imp"].to_pylist()])
    prepare(Memory(table.set_column(table.column_names.index("imp"), "imp", names)), out, append=True, budget=SMALL)
    return PreparedData.open(out)


def late(impressions: list[str], label: int, time: int) -> Memory:
    n = len(impressions)
    columns = {"imp": impressions, "label": [label] * n, "time": [time] * n, "task": ["bought"] * n}
    return Memory(pa.table(columns), name=f"late {time}")


def impressions(data: PreparedData, split: str) -> list[int]:
    return [int(code) for block in data.blocks(split) for code in array(data.read_all(block).rows, "@impression")]


def labels(data: PreparedData) -> dict[int, tuple[float, int]]:
    """Impression code → label `bought` and when it is known."""
    found = {}
    for split in ("train", "valid", "test"):
        for block in data.blocks(split):
            read = data.read_all(block).rows
            columns = (array(read, name).tolist() for name in ("@impression", "@label.bought", "@known_at.bought"))
            found |= {imp: (label, known) for imp, label, known in zip(*columns, strict=True)}
    return found


def test_blocks_follow_each_other_partition_by_partition(out: Path) -> None:
    data = append_day(out)
    blocks = data.blocks("train")
    assert len({block.partition for block in blocks}) == 2 and len(blocks) > 5
    for index in (0, 1):
        own = data.blocks("train", (index,))
        assert own == [block for block in blocks if block.partition == index] == data.partitions[index].blocks("train")
        assert [block.number for block in own] == list(range(len(own)))
        assert [block.first_row for block in own] == np.cumsum([0, *(b.num_rows for b in own)])[:-1].tolist()
    assert sum(block.num_rows for block in blocks) == data.num_rows("train")
    assert len(set(impressions(data, "train"))) == data.num_rows("train")
    assert data.num_rows("valid") == sum(b.num_rows for b in data.blocks("valid")) > 0  # the second day has none
    assert data.blocks("valid", (1,)) == [] and data.num_rows("holdout") == 0


def test_an_unknown_split_names_the_nearest(out: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a split of .*'test', 'train', 'valid'.*got 'vaild'.*'valid'\?"):
        PreparedData.open(out).blocks("vaild")


def test_reading_for_a_model_gives_its_columns_and_no_others(out: Path) -> None:
    data = PreparedData.open(out)
    block = data.blocks("train")[0]
    inputs = Inputs.of(SCHEMA, exclude=("city", "clicks", "match", "genres"))
    read, everything = data.read(block, inputs), data.read_all(block)
    assert set(read.requests) == {"@user", "@time", "user", "hour"}
    assert set(read.rows) == {
        *("@request", "@time", "item", "campaign"),
        *("@label.clicked", "@known_at.clicked", "@label.bought", "@known_at.bought"),
    }
    for part, whole in ((read.requests, everything.requests), (read.rows, everything.rows)):
        for name in part:
            assert np.array_equal(array(part, name), array(whole, name), equal_nan=name == "hour")
    assert (read.num_rows, read.num_requests) == (block.num_rows, block.num_requests)


def test_what_is_not_there_cannot_be_excluded() -> None:
    with pytest.raises(ValueError, match=r"exclude to name one of .*match.*, got 'macth'. Did you mean 'match'\?"):
        Inputs.of(SCHEMA, exclude=("city", "macth"))
    with pytest.raises(ValueError, match=r"last_n >= 1, got 0. To leave a history out, exclude it"):
        Inputs.of(SCHEMA, last_n=0)


def test_late_labels_are_laid_over_rows_of_any_block_and_the_last_to_come_holds(out: Path) -> None:
    table = rows()
    names = table["imp"].to_pylist()
    before, everyone = labels(PreparedData.open(out)), [code_of_key(name) for name in names]
    some, again = names[::7], names[::14]
    append_labels(late(some, 1, START + DAY), out)
    append_labels(late(again, 0, START + 2 * DAY), out)
    after = labels(PreparedData.open(out))
    for name, code in zip(names, everyone, strict=True):
        expected = before[code]
        if name in some:
            expected = (1.0, (START + DAY) * SECOND)
        if name in again:
            expected = (0.0, (START + 2 * DAY) * SECOND)
        assert after[code] == expected
    reread = append_labels(late(some, 1, START + DAY), out)  # the same table once more
    assert not reread.is_new and labels(PreparedData.open(out)) == after
    data = PreparedData.open(out)
    assert [p.entry.kind for p in data.partitions] == ["rows", "corrections", "corrections"]
    assert [store.num_events > 0 for store in data.sources("clicks")] == [True, False, False]
    assert data.blocks("train", (1,)) == []


def test_a_label_is_masked_until_it_is_known_and_its_window_closed(out: Path) -> None:
    data = PreparedData.open(out)
    inputs = Inputs.of(SCHEMA)
    read = [data.read_all(block).rows for block in data.blocks("train")]
    time, known_at = (np.concatenate([array(rows, name) for rows in read]) for name in ("@time", "@known_at.bought"))
    last = int(time.max())
    for as_of in (int(time.min()) - 1, last, last - 500 * SECOND + DAY * SECOND, NEVER - 1):
        data.as_of = as_of
        batches = list(Loader(data, inputs, "train", batch_size=64).epoch(0))
        known = np.concatenate([b.labels.known_BK.numpy() for b in batches if b.labels])
        values = np.concatenate([b.labels.values_BK.numpy() for b in batches if b.labels])
        assert np.array_equal(known[:, 0], time <= as_of)  # a click has no window
        assert np.array_equal(known[:, 1], (known_at <= as_of) & (time + DAY * SECOND <= as_of))
        assert (values[~known] == 0).all()
    assert known.all() and values.sum() > 0


def test_data_can_be_read_as_they_were(out: Path) -> None:
    append_labels(late(rows()["imp"].to_pylist()[:3], 1, START + DAY), out)
    first = PreparedData.open(out)
    state, before = first.state, labels(first)
    grown = append_day(out)
    append_labels(late(rows()["imp"].to_pylist()[:9], 0, START + 3 * DAY), out)
    grown = PreparedData.open(out)
    assert labels(grown) != before and grown.as_of > state.as_of
    past = grown.at(state)
    assert labels(past) == before and past.as_of == state.as_of
    assert past.num_rows("train") == first.num_rows("train") and len(past.partitions) == 2


def test_a_pinned_version_sees_no_id_that_it_has_not_got(out: Path) -> None:
    transform = PreparedData.open(out).transform
    sizes = {name: id_map.num_rows for name, id_map in transform.id_maps.items()}
    grown = append_day(out)
    assert grown.transform.id_maps["item"].num_rows > sizes["item"]
    pinned = grown.pinned(transform)
    seen: dict[bool, int] = {}
    for data in (grown, pinned):
        loader = Loader(data, Inputs.of(SCHEMA), "train", batch_size=1000, partitions=(1,))
        items = np.concatenate([b.candidates.features.ids_nF[:, 0].numpy() for b in loader.epoch(0)])
        seen[data is pinned] = int(items.max())
    assert seen[True] < sizes["item"] <= seen[False]
    assert pinned.items is transform.items and grown.items is not transform.items


def test_a_request_is_read_once_whatever_cuts_it(out: Path) -> None:
    """Batches of any size, in any order, over several partitions: the same rows with the same request and history."""
    data, inputs = append_day(out), Inputs.of(SCHEMA)

    def read(**options) -> dict[tuple, int]:
        found: dict[tuple, int] = {}
        for batch in Loader(data, inputs, "train", **options).epoch(0):
            (history,) = batch.requests.histories
            offsets = history.offsets.tolist()
            for b, r in enumerate(batch.candidates.request_of_row_B.tolist()):
                events = history.events.ids_nF[offsets[r] : offsets[r + 1]].tolist()
                row = (
                    *(int(batch.requests.user_R[r]), int(batch.requests.time_R[r]), str(events)),
                    *batch.candidates.features.ids_nF[b].tolist(),
                )
                found[row] = found.get(row, 0) + 1
        return found

    whole = read(batch_size=10_000)
    assert sum(whole.values()) == data.num_rows("train")
    for batch_size in (1, 7, 64):
        assert read(batch_size=batch_size) == whole
    assert read(batch_size=33, shuffle=True, seed=5, window_blocks=3) == whole


def test_one_row_is_enough(tmp_path: Path) -> None:
    prepare(Memory(rows(requests=1).slice(0, 1)), tmp_path / "data", split=AllTrain())
    data = PreparedData.open(tmp_path / "data")
    (batch,) = Loader(data, Inputs.of(SCHEMA), "train", batch_size=8).epoch(0)
    assert batch.num_rows == batch.requests.num_requests == 1 and batch.requests.histories[0].num_events == 0
    assert data.blocks("valid") == [] and list(Loader(data, Inputs.of(SCHEMA), "test", batch_size=8).epoch(0)) == []
