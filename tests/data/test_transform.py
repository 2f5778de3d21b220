"""One path from records to batches: what prepare encodes and what predict makes of the same records is one thing."""

import numpy as np
import pyarrow as pa
import pytest

from fullrank.data.assemble import assemble
from fullrank.data.batch import Batch, map_tensors
from fullrank.data.columns import NEVER, DataError, Ragged, from_arrow, to_arrow
from fullrank.data.history import HistorySource
from fullrank.data.id_map import IdMap
from fullrank.data.inputs import Inputs
from fullrank.data.item_table import ItemTableBuilder
from fullrank.data.key_counter import NO_TIME, Counts
from fullrank.data.keys import code_of_key
from fullrank.data.normalise import Origin, normalise
from fullrank.data.scalers import ScalersFitter
from fullrank.data.transform import Transform
from fullrank.schema import (
    EventFeature,
    EventOutcome,
    Feature,
    History,
    KeySpace,
    Roles,
    Schema,
    SchemaError,
    Task,
)

SECOND = 1_000_000
SCHEMA = Schema(
    roles=Roles(user="u", item="i", request="r", impression="imp", time="t", weight="w", position="pos"),
    features=(
        Feature(name="city", kind="categorical", of="user"),
        Feature(name="age", kind="numeric", of="user", scale="quantile"),
        Feature(name="tags", kind="multi", of="context", weights="tw", key_space="tag"),
        Feature(name="dense", kind="vector", of="user", dim=2),
        Feature(name="brand", kind="categorical", of="item", key_space="brand"),
        Feature(name="genres", kind="multi", of="item", key_space="tag"),
        Feature(name="match", kind="numeric", of="pair", scale="log"),
        Feature(name="title", kind="text", of="item"),
    ),
    histories=(
        History(
            name="inline",
            layout="inline",
            item="hi",
            time="ht",
            lag=1,
            max_length=3,
            features=(EventFeature(name="stars", kind="numeric"), EventFeature(name="act", key_space="act")),
            outcomes=(EventOutcome(name="liked"),),
        ),
        History(name="clicks", where="y", features=(EventFeature(name="slot", column="pos"),)),
    ),
    tasks=(Task(name="y"),),
    key_spaces=(KeySpace(name="brand", policy="hashed", buckets=5), KeySpace(name="act", policy="frozen")),
)


def records(n=60, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for row in range(n):
        request = row // 3
        own = np.random.default_rng(1000 * seed + request)  # request-side values are equal within a request
        events = int(own.integers(0, 6))
        times = np.sort(own.integers(0, 100 + request, events)).tolist()
        tags = [None if tag == 4 else f"tag{tag}" for tag in own.integers(0, 5, own.integers(0, 4))]
        rows.append(
            {
                "u": int(own.integers(0, 6)),
                "i": f"item{rng.integers(0, 9)}",
                "r": request,
                "imp": row,
                "t": 100 + request,
                "w": 1.0,
                "pos": row % 3,
                "city": "Zürich" if request % 2 else None,
                "age": float(own.normal()) if request % 4 else None,
                "tags": tags,
                "tw": [0.5] * len(tags),
                "dense": [1.0, float(request)] if request % 5 else None,
                "brand": int(rng.integers(0, 20)),
                "genres": [f"tag{g}" for g in rng.integers(0, 5, rng.integers(0, 3))],
                "match": float(rng.normal() * 100),
                "title": "☂",
                "hi": [f"item{e}" for e in own.integers(0, 9, events)],
                "ht": times,
                "stars": own.normal(size=events).tolist(),
                "act": [f"act{a}" for a in own.integers(0, 2, events)],
                "liked": [None if v == 2 else int(v) for v in own.integers(0, 3, events)],
                "y": int(rng.integers(0, 2)),
            }
        )
    return pa.RecordBatch.from_pylist(rows)


def fit(schema, batch, hash_key=None):
    rows = normalise(schema, batch, Origin("train"), hash_key=hash_key)
    spaces = {f.name: f.key_space for f in schema.all_features() if f.key_space}
    for history in schema.histories:
        prefix = f"@history.{history.name}."
        spaces |= {prefix + f.name: f.key_space for f in history.features if f.key_space}
    id_maps = {}
    for space in schema.used_key_spaces():
        names = [name for name, key_space in spaces.items() if key_space == space]
        counts = [
            Counts(
                k.unique_codes,
                np.ones(len(k.unique_codes), np.int64),
                np.full(len(k.unique_codes), NO_TIME),
                k.unique_texts,
            )
            for k in (rows.keys[name] for name in names)
        ]
        id_maps[space] = IdMap.empty(schema.key_space(space)).extend(Counts.merged(counts))
    ordinals = np.arange(rows.num_rows)
    scalers = ScalersFitter(schema)
    scalers.add(rows, ordinals)
    made = scalers.finish()
    items = None
    if schema.roles.item:
        builder = ItemTableBuilder(schema)
        builder.add(rows, ordinals)
        items = builder.finish(id_maps, made)
    return Transform(schema, id_maps, made, items, hash_key), rows


def click_store(transform, rows):
    """What prepare does for a by_user history of the log, the slow way."""
    chosen = np.flatnonzero(rows.array("@history.clicks.where"))
    order = chosen[np.lexsort((chosen, rows.array("@time")[chosen], rows.array("@user")[chosen]))]
    prefix = "@history.clicks."
    names = [n for n in rows.columns if n.startswith(prefix) and not n.endswith(".where")]
    columns = transform.event_columns("clicks", {n.removeprefix(prefix): rows.array(n)[order] for n in names})
    user, start = np.unique(rows.array("@user")[order], return_index=True)
    return HistorySource(columns, user, np.append(start, len(order)))


def through_disk(columns):
    sink = pa.BufferOutputStream()
    batch = to_arrow(columns)
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return from_arrow(pa.ipc.open_file(sink.getvalue()).get_batch(0))


def tensors(batch: Batch):
    found = []
    map_tensors(batch, lambda tensor: found.append(tensor.numpy().copy()))
    return found


def identical(left: Batch, right: Batch):
    pairs = list(zip(tensors(left), tensors(right), strict=True))
    assert len(pairs) > 20
    for one, other in pairs:
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def prepared_batch(transform, rows, inputs, clicks):
    """Encode, write, read, assemble: what a loader gives for one block."""
    block = transform.encode(rows)
    lists = transform.encode_events(rows, "inline", block)
    spans = clicks.spans(block.requests["@user"], block.requests["@time"])
    block.requests["@history.inline.end"] = lists["item"].offsets[1:]
    block.requests["@history.inline.length"] = np.diff(lists["item"].offsets).astype(np.int32)
    block.requests["@history.clicks.end"], block.requests["@history.clicks.length"] = (
        spans.end_R,
        spans.length_R,
    )
    read = type(block)(
        through_disk(block.requests), through_disk(block.rows), block.num_requests, block.num_rows
    )
    sources = (HistorySource({name: column.values for name, column in lists.items()}), clicks)
    return assemble(read, inputs, sources=sources, items=transform.items, views={}, as_of=NEVER - 1, windows={})


@pytest.mark.parametrize("hash_key", [None, b"0123456789abcdef"])
def test_prepare_and_predict_give_the_same_bits(tmp_path, hash_key):
    train = records()
    transform, rows = fit(SCHEMA, train, hash_key)
    inputs = Inputs.of(SCHEMA)
    clicks = click_store(transform, rows)
    for batch in (train, records(30, seed=1)):  # the second with keys the transform never saw
        prepared = prepared_batch(transform, transform.normalise(batch, Origin("b")), inputs, clicks)
        assert prepared.requests.num_requests < prepared.num_rows
        assert all(history.num_events > 0 for history in prepared.requests.histories)
        identical(prepared, transform.apply(batch, inputs, events={"clicks": clicks}, labels=True))
        transform.save(tmp_path / str(batch.num_rows))
        loaded = Transform.load(tmp_path / str(batch.num_rows), SCHEMA, hash_key=hash_key)
        identical(prepared, loaded.apply(batch, inputs, events={"clicks": clicks}, labels=True))


def test_one_record_is_its_row_in_a_larger_batch():
    transform, rows = fit(SCHEMA, train := records())
    clicks, inputs = click_store(transform, rows), Inputs.of(SCHEMA)
    whole = transform.apply(train, inputs, events={"clicks": clicks})
    for row in (0, 31, 59):
        one = transform.apply(train.slice(row, 1), inputs, events={"clicks": clicks})
        request = int(whole.candidates.request_of_row_B[row])
        np.testing.assert_array_equal(
            one.candidates.features.ids_nF[0], whole.candidates.features.ids_nF[row]
        )
        np.testing.assert_array_equal(
            one.candidates.features.numbers_nF[0], whole.candidates.features.numbers_nF[row]
        )
        np.testing.assert_array_equal(
            one.requests.features.numbers_nF[0], whole.requests.features.numbers_nF[request]
        )
        for mine, theirs in zip(one.requests.histories, whole.requests.histories, strict=True):
            span = slice(theirs.offsets[request], theirs.offsets[request + 1])
            np.testing.assert_array_equal(mine.events.ids_nF, theirs.events.ids_nF[span])
            np.testing.assert_array_equal(mine.events.numbers_nF, theirs.events.numbers_nF[span])


def test_predict_needs_neither_labels_nor_what_logging_adds():
    transform, rows = fit(SCHEMA, train := records())
    clicks, inputs = click_store(transform, rows), Inputs.of(SCHEMA)
    fewer = train.drop_columns(["y", "imp", "w", "pos"])
    batch = transform.apply(fewer, inputs, events={"clicks": clicks})
    assert batch.labels is None
    whole = transform.apply(train, inputs, events={"clicks": clicks})
    identical(batch, whole)
    with pytest.raises(DataError, match="expected column 'imp'"):
        transform.apply(fewer, inputs, events={"clicks": clicks}, labels=True)
    with pytest.raises(DataError, match=r"events of history 'clicks'.*Did you mean 'click'"):
        transform.apply(fewer, inputs, events={"click": clicks})


def test_requests_are_consecutive_rows_with_one_key_and_one_request_side():
    base = records(6).to_pylist()
    changes: list[dict] = [{}, {}, {"r": 9}, {"r": 9, "city": "Bern"}, {"r": 0}, {"r": None}]
    rows = [base[0] | change for change in changes] + [base[0] | {"r": None}]
    transform, _ = fit(SCHEMA, records())

    def requests(rows):
        made = transform.normalise(pa.RecordBatch.from_pylist(rows, schema=records().schema), Origin("f"))
        return transform.encode(made).rows["@request"].tolist()

    assert requests(rows) == [0, 0, 1, 2, 3, 4, 5]
    lists = base[1] | {
        "hi": ["item1", "item2"],
        "ht": [1, 2],
        "stars": [1.0, None],
        "act": ["a", "b"],
        "liked": [1, None],
    }
    others = [
        lists,
        lists,
        lists | {"ht": [1, 3]},
        lists | {"stars": [1.0, 2.0]},
        lists | {"dense": [1.0, 7.0]},
    ]
    assert requests(others) == [0, 0, 1, 2, 3]
    tags = lists | {"tags": ["tag1"], "tw": [0.5]}
    assert requests(
        [tags, tags, tags | {"tw": [0.25]}, tags | {"age": 3.0}, tags | {"match": 5.0, "age": 3.0}]
    ) == [
        0,
        0,
        1,
        2,
        2,
    ]
    assert requests(base[:0]) == []


def test_without_a_request_role_each_row_is_its_own():
    schema = Schema(roles=Roles(user="u"), tasks=(Task(name="y"),))
    batch = pa.RecordBatch.from_pydict({"u": [1, 1, 1], "y": [0, 1, 0]})
    transform, rows = fit(schema, batch)
    block = transform.encode(rows)
    assert block.rows["@request"].tolist() == [0, 1, 2] and "@time" not in block.requests


def test_past_is_what_was_available_before_the_request():
    base = records(1).to_pylist()[0]
    row = base | {"t": 100, "hi": [f"item{k}" for k in range(6)], "ht": [10, 20, 97, 98, 99, 100]}
    row |= {"stars": [float(k) for k in range(6)], "act": ["act0"] * 6, "liked": [1] * 6}
    later = row | {"t": 200, "imp": 1}
    transform, _ = fit(SCHEMA, records())
    rows = transform.normalise(pa.RecordBatch.from_pylist([later, row]), Origin("f"))
    block = transform.encode(rows)
    assert block.num_requests == 1 and block.requests["@time"].tolist() == [
        100 * SECOND
    ]  # the least of its rows
    lists = transform.encode_events(rows, "inline", block)
    assert lists["time"].values.tolist() == [
        20 * SECOND,
        97 * SECOND,
        98 * SECOND,
    ]  # lag 1, newest 3, strictly before
    names = ["@item", "act", "act@code", "available", "item", "liked", "liked@known_at", "stars", "time"]
    assert sorted(lists) == names
    block.requests["@time"][0] = 21 * SECOND  # someone knew of an earlier row of this request
    assert transform.encode_events(rows, "inline", block)["time"].values.tolist() == [10 * SECOND]


def test_k_hashes_lie_side_by_side():
    space = KeySpace(name="s", policy="hashed", buckets=100, hashes=2)
    features = (
        Feature(name="c", kind="categorical", key_space="s"),
        Feature(name="m", kind="multi", key_space="s", weights="w"),
    )
    schema = Schema(features=features, key_spaces=(space,))
    batch = pa.RecordBatch.from_pydict({"c": ["a", None], "m": [["a", "b"], []], "w": [[1.0, 2.0], []]})
    transform, rows = fit(schema, batch)
    made = transform.encode(rows).requests
    expected = transform.id_maps["s"].ids_k(rows.array("c"))
    assert isinstance(made["c"], Ragged) and made["c"].values.tolist() == [*expected[0].tolist(), 1, 1]
    assert made["m"].values[:2].tolist() == expected[0].tolist() and made["m"].offsets.tolist() == [0, 4, 4]
    assert made["m@weights"].values.tolist() == [1, 1, 2, 2]
    history = History(name="h", layout="inline", item="l", key_space="s")
    with pytest.raises(SchemaError, match="History 'h' uses key space 's' with 2 hashes"):
        Transform(Schema(histories=(history,), key_spaces=(space,)), {}, transform.scalers)


def test_the_columns_of_a_block():
    transform, rows = fit(SCHEMA, records())
    block = transform.encode(rows)
    requests = ["@request", "@time", "@user", "age", "city", "dense", "tags", "tags@weights", "user"]
    assert sorted(block.requests) == requests
    own = ["@impression", "@item", "@known_at.y", "@label.y", "@position", "@request", "@time", "@weight"]
    assert sorted(block.rows) == [*own, "brand", "genres", "item", "match"]
    for name in ("city", "user"):
        assert (
            block.requests[name].dtype == np.int32 and len(block.requests[name]) == block.num_requests == 20
        )
    for name in ("brand", "item"):
        assert block.rows[name].dtype == np.int32 and len(block.rows[name]) == block.num_rows == 60
    empty = transform.encode(rows.take(np.zeros(60, dtype=bool)))
    assert (empty.num_requests, empty.num_rows) == (0, 0) and sorted(empty.rows) == sorted(block.rows)


def test_keys_of_scenario_campaign_and_advertiser_are_row_columns():
    schema = Schema(roles=Roles(scenario="s", campaign="c", advertiser="a"), tasks=(Task(name="y"),))
    batch = pa.RecordBatch.from_pydict({"s": ["feed", "feed"], "c": [7, None], "a": ["acme", "7"], "y": [0, 1]})
    transform, rows = fit(schema, batch)
    own = through_disk(transform.encode(rows).rows)
    for name, keys in (("@scenario", ["feed", "feed"]), ("@campaign", [7, None]), ("@advertiser", ["acme", 7])):
        codes = [0 if key is None else code_of_key(key) for key in keys]
        assert own[name].dtype == np.uint64 and own[name].tolist() == codes
