"""The catalogue: first seen in time wins, whatever order rows come in; versions only add."""

import numpy as np
import pyarrow as pa
import pytest

from fullrank.data.columns import Ragged
from fullrank.data.id_map import IdMap
from fullrank.data.item_table import ItemTable, ItemTableBuilder
from fullrank.data.key_counter import NO_TIME, Counts
from fullrank.data.keys import code_of_key, codes_of_array
from fullrank.data.normalise import Origin, normalise
from fullrank.data.scalers import ScalersFitter
from fullrank.schema import Feature, KeySpace, Roles, Schema

FEATURES = (
    Feature(name="brand", kind="categorical", of="item"),
    Feature(name="genres", kind="multi", of="item", weights="gw"),
    Feature(name="price", kind="numeric", of="item", scale="none"),
    Feature(name="vec", kind="vector", of="item", dim=2),
    Feature(name="title", kind="text", of="item"),
)


def schema(item=None, time="t"):
    spaces = (item,) if item else ()
    return Schema(roles=Roles(item="i", time=time), features=FEATURES, key_spaces=spaces)


def record(item, time, brand, title="T"):
    genres = [brand, "all"] if brand else []
    weights = [1.0] * len(genres)
    price, vec = float(time), [1.0, float(time)]
    return {
        "i": item,
        "t": time,
        "brand": brand,
        "genres": genres,
        "gw": weights,
        "price": price,
        "vec": vec,
        "title": title,
    }


def id_map(space, *days):
    """The map after the keys of each day were admitted."""
    made = IdMap.empty(space)
    for keys in days:
        found = codes_of_array(pa.array(keys))
        _, counts = np.unique(found.codes, return_counts=True)
        made = made.extend(
            Counts(found.unique_codes, counts, np.full(len(counts), NO_TIME), found.unique_texts)
        )
    return made


def maps(item_days, item=None):
    item = item or KeySpace(name="item")
    words = ["A", "B", "C", "all"]
    return {
        "item": id_map(item, *item_days),
        **{n: id_map(KeySpace(name=n), words) for n in ("brand", "genres")},
    }


def build(schema_, records, id_maps, known=None, chunks=1, order=None):
    order = np.arange(len(records)) if order is None else order
    builder = ItemTableBuilder(schema_, known)
    for part in np.array_split(order, chunks):
        batch = pa.RecordBatch.from_pylist([records[i] for i in part]) if len(part) else None
        if batch is not None:
            builder.add(normalise(schema_, batch, Origin("f")), part)
    fitter = ScalersFitter(schema_)
    return builder.finish(id_maps, fitter.finish())


RECORDS = [
    record("x", 5, "B", "later"),
    record("y", 3, "A"),
    record("x", 2, "A", "first é"),
    record("x", 2, "C", "same time, later row"),
    record(None, 1, "A"),
    record("z", 4, None, None),
    record("new", 1, "B", "not admitted"),
]
ADMITTED = ["x", "x", "x", "y", "y", "z"]  # ids 3, 4, 5


def describe(table):
    rows = {}
    for row, key in enumerate(table.key.to_pylist()):
        genres, weights = table.columns["genres"], table.columns["genres@weights"]
        span = slice(genres.offsets[row], genres.offsets[row + 1])
        rows[key] = (
            int(table.code[row]),
            int(table.id[row]),
            int(table.columns["brand"][row]),
            genres.values[span].tolist(),
            weights.values[span].tolist(),
            float(table.columns["price"][row]),
            table.columns["vec"][row].tolist(),
            table.texts["title"][row].as_py(),
        )
    return rows


@pytest.mark.parametrize("chunks", [1, 3, 7])
def test_the_first_in_time_wins_in_any_order(chunks):
    id_maps = maps([ADMITTED])
    brand = dict(
        zip(
            "ABC", id_maps["brand"].ids(codes_of_array(pa.array(["A", "B", "C"])).codes).tolist(), strict=True
        )
    )
    order = np.random.default_rng(chunks).permutation(len(RECORDS))
    table = build(schema(), RECORDS, id_maps, chunks=chunks, order=order)
    got = describe(table)
    assert set(got) == {"x", "y", "z", "new"}
    assert got["x"][:3] == (code_of_key("x"), 3, brand["A"]) and got["x"][5:] == (2.0, [1.0, 2.0], "first é")
    assert got["z"][2:5] == (1, [], []) and got["z"][7] is None
    assert got["new"][1] == 2 and len(got["x"][3]) == 2 and got["x"][4] == [1.0, 1.0]
    assert got == describe(build(schema(), RECORDS, id_maps))


def test_many_merges_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    records = [record(int(item), int(time), "ABC"[item % 3]) for item, time in rng.integers(0, 40, (400, 2))]
    id_maps = maps([[r["i"] for r in records]])
    expected: dict[str, float] = {}
    for r in records:
        key = str(r["i"])
        expected[key] = min(expected.get(key, 1e9), r["price"])
    monkeypatch.setattr(ItemTableBuilder, "PENDING", 5)
    table = build(schema(), records, id_maps, chunks=60)
    assert {key: row[5] for key, row in describe(table).items()} == expected


def test_attributes_by_id():
    table = build(schema(), RECORDS, maps([ADMITTED]))
    ids = np.array([3, 2, 1, 0, 5, 77, 3], dtype=np.int32)
    brands = table.attributes("brand", ids)
    assert (
        brands.dtype == np.int32
        and brands[[1, 2, 3, 4, 5]].tolist() == [1] * 5
        and brands[0] == brands[6] > 2
    )
    bags = table.attributes("genres", ids)
    assert isinstance(bags, Ragged) and np.diff(bags.offsets).tolist() == [2, 0, 0, 0, 0, 0, 2]
    assert np.isnan(table.attributes("price", ids)).tolist() == [False, True, True, True, False, True, False]
    assert table.attributes("vec", ids).shape == (7, 2) and np.isnan(table.attributes("vec", ids)[1]).all()
    assert table.keys_of_ids(ids).to_pylist() == ["x", None, None, None, "z", None, "x"]
    assert table.text("title", ids).to_pylist() == ["first é", None, None, None, None, None, "first é"]
    assert len(table.attributes("brand", ids[:0])) == 0


def test_a_log_without_a_clock_goes_by_row():
    records = [record("x", 9, "B"), record("x", 1, "A")]
    table = build(schema(time=""), records, maps([["x"]]), order=np.array([1, 0]))
    assert describe(table)["x"][5] == 9.0


def test_a_hashed_space_keeps_the_first_of_a_bucket():
    space = KeySpace(name="item", policy="hashed", buckets=1)
    table = build(schema(space), RECORDS, maps([], space))
    assert table.key.to_pylist() == ["new", "x", "y", "z"] and set(table.id.tolist()) == {2}
    assert table.keys_of_ids(np.array([2])).to_pylist() == ["new"]


def test_with_codes_every_item_of_a_bucket_has_its_own_attributes():
    space = KeySpace(name="item", policy="hashed", buckets=2)
    id_maps = maps([], space)
    table = build(schema(space), RECORDS, id_maps)
    code = codes_of_array(pa.array(["x", "y", "z", "new", None, "never"])).codes
    ids = id_maps["item"].ids(code)
    price = table.attributes("price", ids, codes_E=code)
    assert price[:4].tolist() == [2.0, 3.0, 4.0, 1.0] and np.isnan(price[4:]).all()
    by_3s = table.attributes("price", ids, np.full(6, 3_000_000), code)
    assert np.isnan(by_3s).tolist() == [False, True, True, False, True, True]
    genres = table.attributes("genres", ids, codes_E=code)
    assert isinstance(genres, Ragged) and np.diff(genres.offsets).tolist() == [2, 2, 0, 2, 0, 0]
    assert len(set(table.attributes("price", ids).tolist()[:4])) < 4  # by id alone they could not be told apart


def test_an_append_adds_new_items_and_those_that_got_an_id(tmp_path):
    day1 = maps([ADMITTED])
    table = build(schema(), RECORDS, day1)
    table.save(tmp_path, 0)
    first = (tmp_path / "000.arrow").read_bytes()
    day2 = maps([ADMITTED, ["new", "fresh"]])
    more = [
        record("x", 50, "C"),
        record("new", 51, "C", "second day"),
        record("fresh", 52, "A"),
        record("w", 53, "B"),
    ]
    grown = build(schema(), more, day2, known=ItemTable.load(tmp_path))
    before, after = describe(table), describe(grown)
    assert {key: after[key] for key in "xyz"} == {key: before[key] for key in "xyz"}
    assert after["new"][1] in (6, 7) and after["w"][1] == 2
    assert after["new"][2:] == before["new"][2:]  # as first seen, on the first day
    assert table.attributes("price", np.array([after["new"][1]])).tolist() != [1.0]
    assert grown.attributes("price", np.array([after["new"][1]])).tolist() == [1.0]
    assert grown.num_saved == 3 and set(after) == {"x", "y", "z", "new", "fresh", "w"}
    grown.save(tmp_path, 1)
    assert (tmp_path / "000.arrow").read_bytes() == first
    assert describe(ItemTable.load(tmp_path)) == after == describe(ItemTable.load(tmp_path, [0, 1]))
    assert describe(ItemTable.load(tmp_path, [0])) == before
    assert ItemTable.load(tmp_path).save(tmp_path, 2) is None and not (tmp_path / "002.arrow").exists()
    same = build(schema(), more[:1], day2, known=ItemTable.load(tmp_path))
    assert same.num_saved == len(same)


def test_an_item_that_gets_an_id_has_its_attributes_in_ids_of_then(tmp_path):
    """On the first day neither the item nor its brand has an id; the second day shows both, with other attributes."""
    spaces = {n: KeySpace(name=n) for n in ("item", "brand", "genres")}
    spaces["genres"] = KeySpace(name="genres", policy="frozen")
    schema_ = Schema(roles=Roles(item="i", time="t"), features=FEATURES, key_spaces=tuple(spaces.values()))
    days = [[["x"], ["A"], ["A", "all"]], [["late"], ["B"], ["B"]]]
    day1 = {name: id_map(spaces[name], days[0][k]) for k, name in enumerate(spaces)}
    day2 = {name: id_map(spaces[name], days[0][k], days[1][k]) for k, name in enumerate(spaces)}
    table = build(schema_, [record("x", 1, "A"), record("late", 2, "B", "first")], day1)
    assert describe(table)["late"][1:4] == (2, 2, [2, day1["genres"].ids(codes_of_array(pa.array(["all"])).codes)[0]])
    table.save(tmp_path, 0)
    grown = build(schema_, [record("late", 9, "A", "second")], day2, known=ItemTable.load(tmp_path))
    grown.save(tmp_path, 1)
    for after in (grown, ItemTable.load(tmp_path)):
        assert describe(after)["late"][1:3] == (4, 4) and describe(after)["late"][7] == "first"
        assert describe(after)["late"][3] == describe(table)["late"][3]  # a frozen space says what it said
        assert after.attributes("brand", np.array([4]), np.array([2_000_000])).tolist() == [1]  # not before it was seen
        assert after.attributes("brand", np.array([4]), np.array([2_000_001])).tolist() == [4]
    # The same append without any row of the item: its key was admitted by events of a file.
    assert describe(build(schema_, [record(None, 9, "A")], day2, known=table))["late"] == describe(grown)["late"]


def test_codes_of_users_are_not_kept_with_items():
    brand = Feature(name="brand", kind="categorical", of="item")
    features = (brand, Feature(name="seller", kind="categorical", of="item", key_space="user"))
    schema_ = Schema(roles=Roles(user="u", item="i", time="t"), features=features)
    records = [{"u": "someone", "i": "x", "t": 1, "seller": "someone", "brand": "A"}]
    id_maps = {n: id_map(KeySpace(name=n), ["x"]) for n in ("user", "item", "brand")}
    assert list(build(schema_, records, id_maps).codes) == ["brand"]


def test_the_next_day_without_any_item(tmp_path):
    assert build(schema(), [record(None, 1, "A")], maps([["x"]])) is None
    with pytest.raises(FileNotFoundError, match="Expected segments of the item table"):
        ItemTable.load(tmp_path)
