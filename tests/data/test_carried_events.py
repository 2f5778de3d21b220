"""Events that a later partition carries over are read in its ids, as if both days had been prepared at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prepared_log import blocks, folder_hash, prepared
from small_log import SCHEMA, Memory, rows

from fullrank.data.batch import FeatureBlock
from fullrank.data.columns import array
from fullrank.data.event_writer import code_columns
from fullrank.data.id_map import IdMap
from fullrank.data.inputs import Inputs
from fullrank.data.keys import code_of_key
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.splits import AllTrain
from fullrank.data.transform import Transform
from fullrank.schema import EventFeature, Feature, History, KeySpace, Roles, Schema, Task

LATE = ("item", "page", "campaign")  # key spaces in which a key has to be seen twice
GROWS = replace(
    SCHEMA,
    histories=(replace(SCHEMA.histories[0], max_length=30),),
    key_spaces=tuple(KeySpace(name=name, min_count=2, unknown_rows=2) for name in LATE),
)


def days() -> list[pa.Table]:
    """Two short days of many items, pages and campaigns: a good part of them is seen once a day."""
    tables = []
    for seed, start in ((0, 1_000_000), (1, 1_003_000)):
        table = rows(seed, requests=40, users=4, items=60, start=start)
        items, times = table["item_id"].to_pylist(), table["ts"].to_pylist()
        for column, values in (
            ("page", [f"page {i % 47}" for i in items]),
            ("campaign", [f"campaign {(i + t // 300) % 53}" for i, t in zip(items, times, strict=True)]),
        ):
            table = table.set_column(table.column_names.index(column), column, pa.array(values))
        tables.append(table)
    return tables


def keys(block: FeatureBlock, data: PreparedData, history: int = 0) -> list[dict[str, Any]]:
    """The events of a block with ids as keys: "[unknown 0]" where the key has none."""
    fields = Inputs.of(data.schema).histories[history].fields
    categorical = [field for field in fields if field.kind == "categorical"]
    (bag,) = block.bags
    (genres,) = [field for field in fields if field.kind == "multi"]
    events = []
    for e, ids in enumerate(block.ids_nF.tolist()):
        maps = data.transform.id_maps
        event: dict[str, Any] = {f.name: maps[f.key_space].key_of_id(i) for f, i in zip(categorical, ids, strict=True)}
        own = bag.ids_N[int(bag.offsets[e]) : int(bag.offsets[e + 1])].tolist()
        event[genres.name] = [maps[genres.key_space].key_of_id(i) for i in own]
        event["numbers"] = repr(block.numbers_nF[e].tolist())
        events.append(event)
    return events


def pasts(data: PreparedData, partition: int) -> dict[int, list[dict[str, Any]]]:
    """Impression → the events of its request."""
    inputs, found = Inputs.of(data.schema), {}
    for ref in data.blocks("train", (partition,)):
        impressions = array(data.read_all(ref).rows, "@impression")
        loader = Loader(data, inputs, "train", batch_size=1)
        batch = loader._take(loader._pack([ref]))
        history = batch.requests.histories[0]
        events, offsets = keys(history.events, data), history.offsets.tolist()
        for impression, r in zip(impressions.tolist(), batch.candidates.request_of_row_B.tolist(), strict=True):
            found[impression] = events[offsets[r] : offsets[r + 1]]
    return found


def test_two_days_read_as_one_prepare_of_both(tmp_path: Path) -> None:
    one, two = days()
    first = prepared(tmp_path, Memory(one, schema=GROWS), split=AllTrain())
    transform = first.transform
    before = folder_hash(tmp_path / "data" / "partitions")
    data = prepared(tmp_path, Memory(two, schema=GROWS), split=None, append=True)
    after = folder_hash(tmp_path / "data" / "partitions")
    assert {name: after[name] for name in before} == before
    both = Memory(pa.concat_tables([one, two]), schema=GROWS)
    whole = prepared(tmp_path, both, name="whole", split=AllTrain())
    for name, id_map in whole.transform.id_maps.items():  # the same keys, in another order
        other = data.transform.id_maps[name]
        left, right = (np.sort(m.codes_of_ids(np.arange(m.num_rows))) for m in (id_map, other))
        np.testing.assert_array_equal(left, right)
    read, expected = pasts(data, 1), pasts(whole, 0)
    assert read == {impression: expected[impression] for impression in read}
    # and it was worth a test: carried events show keys that the first day had not admitted
    store = data.sources("clicks")[1].columns
    for name, (code, space) in code_columns(GROWS, GROWS.histories[0]).items():
        then, now = (maps[space].ids(store[code]) for maps in (transform.id_maps, data.transform.id_maps))
        carried = store["time"] < 1_003_000 * 1_000_000
        assert (carried & (then != now)).any()
        np.testing.assert_array_equal(store[name], now)
    # A run of the first day reads them as it would have: unknown.
    views = data.pinned(transform).views
    as_then = transform.id_maps["item"].ids(store["@item"])
    np.testing.assert_array_equal(views["item"][store["item"]], as_then)


def test_codes_are_kept_where_ids_may_change() -> None:
    spaces = (KeySpace(name="page", policy="frozen"), KeySpace(name="campaign", policy="hashed", buckets=3))
    frozen = replace(GROWS, key_spaces=spaces)
    assert code_columns(GROWS, GROWS.histories[0]) == {
        "item": ("@item", "item"),
        "page": ("page@code", "page"),
        "item.campaign": ("item.campaign@code", "campaign"),
    }
    assert code_columns(frozen, frozen.histories[0]) == {"item": ("@item", "item")}
    inline = History(name="seen", layout="inline", item="seen", features=(EventFeature(name="page"),))
    assert code_columns(replace(GROWS, histories=(inline,)), inline) == {"item": ("@item", "item")}


@pytest.mark.parametrize("layout", ["log", "inline"])
def test_items_of_one_bucket_show_their_own_attributes(tmp_path: Path, layout: str) -> None:
    listed = layout == "inline"
    history = History(name="h", layout="inline", item="hi", time="ht") if listed else History(name="h")
    schema = Schema(
        roles=Roles(user="u", item="i", time="t"),
        features=(Feature(name="cat", kind="categorical", of="item"),),
        histories=(history,),
        tasks=(Task(name="y"),),
        key_spaces=(KeySpace(name="item", policy="hashed", buckets=2),),
    )
    items = [*(f"k{j}" for j in range(6)), "k0"]
    table = pa.table(
        {
            "u": [1] * 7,
            "i": items,
            "t": range(7),
            "y": [1] * 7,
            "cat": [f"of {item}" for item in items],
            "hi": [items[:j] for j in range(7)],
            "ht": pa.array([list(range(j)) for j in range(7)], pa.list_(pa.int64())),
        }
    )
    data = prepared(tmp_path, Memory(table, schema=schema), split=AllTrain())
    (batch,) = Loader(data, Inputs.of(schema), "train", batch_size=9, seed=0).epoch(0)
    (history_of_all,) = batch.requests.histories
    longest = int(np.argmax(np.diff(history_of_all.offsets.numpy())))
    start, end = history_of_all.offsets[longest : longest + 2].tolist()
    cat = data.transform.id_maps["cat"]
    read = [cat.key_of_id(i) for i in history_of_all.events.ids_nF[start:end, 1].tolist()]
    assert read == [f"of {item}" for item in items[:6]]
    # An item that a run has never seen has no attributes, though another of its bucket has.
    first = prepared(tmp_path, Memory(table.slice(0, 1), schema=schema), name="first", split=AllTrain()).transform
    (batch,) = Loader(data.pinned(first), Inputs.of(schema), "train", batch_size=9, seed=0).epoch(0)
    read = batch.requests.histories[0].events.ids_nF[start:end, 1].tolist()
    assert read == [first.id_maps["cat"].first_key_id, *[1] * 5]


DAY = 86_400
FADING = Schema(
    roles=Roles(user="u", item="i", time="t"),
    features=(Feature(name="cat", kind="categorical", of="item"),),
    histories=(History(name="h"),),
    tasks=(Task(name="y"),),
    key_spaces=(KeySpace(name="item", ttl=DAY),),
)


def fading(items: str, day: int) -> Memory:
    n, keys = len(items), list(items)
    columns = {"u": [1] * n, "i": keys, "t": [day * DAY + k for k in range(n)], "y": [1] * n, "cat": keys}
    return Memory(pa.table(columns), schema=FADING)


def ids_of(id_map: IdMap, items: str) -> list[int]:
    return id_map.ids(np.array([code_of_key(item) for item in items], dtype=np.uint64)).tolist()


def test_every_version_of_a_key_that_came_back_is_read_as_the_run_has_it(tmp_path: Path) -> None:
    """ "a" is seen on day 0, evicted on day 3 (no new key: the map keeps its size), and comes back on day 4."""
    runs: list[Transform] = []
    logged = {0: "aba", 3: "bb", 4: "aba"}
    for number, (day, items) in enumerate(logged.items()):
        data = prepared(tmp_path, fading(items, day), split=None if number else AllTrain(), append=number > 0)
        runs.append(PreparedData.open(data.folder).transform)
    sizes = [run.id_maps["item"].num_rows for run in runs]
    assert sizes[0] == sizes[1] == sizes[2] - 1
    own = [ids_of(run.id_maps["item"], "ab") for run in runs]
    assert own[1][0] == 2 and len({a for a, _ in own}) == 3 and len({b for _, b in own}) == 1
    data = PreparedData.open(tmp_path / "data")
    for run in runs:
        pinned = data.pinned(run)
        view = pinned.views.get("item", np.arange(sizes[2]))
        for partition, items in enumerate(logged.values()):
            for _, block in blocks(pinned, partition):
                assert view[array(block.rows, "item")].tolist() == ids_of(run.id_maps["item"], items)
        store = data.sources("h")[2].columns
        assert view[store["item"]].tolist() == ids_of(run.id_maps["item"], "".join(logged.values()))
        # and what the item is like is found by the id it has for the run
        (batch,) = Loader(pinned, Inputs.of(FADING), "train", batch_size=9, partitions=(2,)).epoch(0)
        item, cat = batch.requests.histories[0].events.ids_nF.T
        known = item >= run.id_maps["item"].first_key_id
        assert known.any() and ((cat != 1) == known).all()
