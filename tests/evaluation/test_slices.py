"""Slices against the log itself: every row of a split is found again by its impression."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sliced_log import SCHEMA, Match, Table, log, prepared

from fullrank.config_json import dumps, loads
from fullrank.data.columns import DataError
from fullrank.data.inputs import Inputs
from fullrank.data.keys import codes_of_array
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.splits import AllTrain, ByTime
from fullrank.evaluation.bootstrap import BootstrapConfig
from fullrank.evaluation.evaluate import predict_split
from fullrank.evaluation.row_columns import row_columns
from fullrank.evaluation.slice_metrics import slice_metrics
from fullrank.evaluation.slices import Cut, SliceSource, cut_rows, slice_column
from fullrank.schema import Feature

FEW = BootstrapConfig(replicates=10)


class World:
    """Two partitions; `rows(split)` are the log's own rows (as dicts) in the order of the split."""

    def __init__(self, folder: Path) -> None:
        self.tables = (log(0), log(1, requests=300, first_day=10, days=4, users=120))
        self.data = prepared(folder, *self.tables)
        self.raw = [row for table in self.tables for row in table.to_pylist()]
        self.row_of = {code: n for n, code in enumerate(codes_of_array(pa.array([r["imp"] for r in self.raw])).codes)}

    def rows(self, split: str) -> list[dict]:
        return [self.raw[self.row_of[code]] for code in row_columns(self.data, split, ["@impression"])["@impression"]]

    def source(self, split: str = "test") -> SliceSource:
        return SliceSource(self.data, split, self.data.transform, self.data)

    def named(self, by: str, split: str = "test", top: int = 10) -> list[str]:
        cut, slice_N = cut_rows(self.source(split), by, top=top)
        return [cut.names[number] if number >= 0 else cut.rest for number in slice_N]

    def predictions(self, split: str = "test"):
        inputs = Inputs.of(SCHEMA)
        place = [f.name for f in inputs.candidate if f.kind == "numeric"].index("match")
        return predict_split(Match(place), Loader(self.data, inputs, split, batch_size=37), inputs.tasks)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("sliced") / "data")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_columns_lie_beside_the_predictions_of_the_same_rows(world, split):
    predictions = world.predictions(split)
    columns = row_columns(world.data, split, ["match", "@user", "@time", "@request", "@label.clicked", "@position"])
    np.testing.assert_array_equal(columns["match"], predictions.logits_NK[:, 0])
    np.testing.assert_array_equal(columns["@user"].view(np.int64), predictions.user_N)
    np.testing.assert_array_equal(columns["@label.clicked"], predictions.labels_NK[:, 0])
    rows = world.rows(split)
    assert len(rows) == len(columns["match"]) > 300
    assert columns["@time"].tolist() == [row["ts"] * 1_000_000 for row in rows]
    assert columns["@position"].tolist() == [row["slot"] for row in rows]
    numbers = {row["request_id"]: number for row, number in zip(rows, columns["@request"].tolist(), strict=True)}
    assert sorted(numbers.values()) == list(range(len(numbers)))  # one number a request, over blocks and partitions


def test_days_pages_and_cities_are_those_of_the_log(world):
    rows = world.rows("test")
    assert world.named("day") == [datetime.fromtimestamp(row["ts"], UTC).date().isoformat() for row in rows]
    assert world.named("position") == [str(row["slot"]) for row in rows]
    assert world.named("campaign") == [str(row["campaign"]) for row in rows]  # an integer follows from its code
    named = world.named("scenario")
    assert [name for name, row in zip(named, rows, strict=True) if row["page"] == "home"] == ["home"] * sum(
        row["page"] == "home" for row in rows
    )  # a task names this page
    other = {name for name, row in zip(named, rows, strict=True) if row["page"] == "search"}
    assert len(other) == 1 and next(iter(other)).startswith("key ")  # nothing says what this page is called
    assert world.named("city", top=13) == [row["city"] for row in rows]
    most = [city for city, _ in Counter(row["city"] for row in rows).most_common(3)]
    top = Counter(world.named("city", top=3))
    assert sum(top.values()) == len(rows) and top["other"] == sum(row["city"] not in most for row in rows)


def test_cold_is_what_training_has_not_met_or_cannot_tell_apart(world):
    trained = Counter(row["user_id"] for row in world.rows("train"))
    met = trained + Counter(row["friend"] for row in world.rows("train"))  # one key space: 4 in all give an id
    expected = []
    for user in (row["user_id"] for row in world.rows("test")):
        known = "known" if met[user] >= 4 else "cold: no id of its own"
        expected.append(known if trained[user] else "cold: never in train")
    assert set(expected) == {"known", "cold: no id of its own", "cold: never in train"}
    assert world.named("cold_user") == expected
    items = {row["item_id"] for row in world.rows("train")}
    assert world.named("cold_item") == [
        "known" if row["item_id"] in items else "cold: never in train" for row in world.rows("test")
    ]


def test_a_run_of_the_first_days_knows_fewer_users(world):
    first = world.data.at(replace(world.data.state, partitions=world.data.state.partitions[:1]))
    source = SliceSource(world.data, "test", world.data.transform, first)
    cut, slice_N = cut_rows(source, "cold_user")
    trained = {row["user_id"] for row in world.tables[0].to_pylist()} & {
        row["user_id"] for row in world.rows("train") if row["imp"] < 10_000_000
    }
    never = [row["user_id"] not in trained for row in world.rows("test")]
    assert (slice_N == cut.names.index("cold: never in train")).tolist() == never


def test_lengths_of_histories_fall_into_powers_of_four(world):
    length = row_columns(world.data, "test", ["@history.clicks.length"])["@history.clicks.length"]
    names = np.array(world.named("history.clicks"))
    for name, low, high in (("0", 0, 0), ("1–3", 1, 3), ("4–15", 4, 15), ("16+", 16, 20)):
        assert ((names == name) == ((length >= low) & (length <= high))).all()
    assert len(set(names)) == 4


def test_numbers_are_cut_at_quantiles_and_named_in_the_unit_of_the_log(world):
    price = np.array([np.nan if row["price"] is None else row["price"] for row in world.rows("test")])
    cut, slice_N = cut_rows(world.source(), "price", bins=4)
    assert (slice_N == -1).tolist() == np.isnan(price).tolist() and cut.rest == "missing"
    bounds = [float(name.split(" – ")[1]) for name in cut.names[1:-1]]
    bounds = [float(cut.names[0].removeprefix("< ")), *bounds]
    assert cut.names[-1] == f"≥ {bounds[-1]:.4g}" and len(cut.names) == 4
    expected = np.searchsorted(np.array(bounds) * (1 - 1e-4), price[slice_N >= 0], side="right")
    np.testing.assert_array_equal(slice_N[slice_N >= 0], expected)
    counts = np.bincount(slice_N[slice_N >= 0])
    assert counts.min() > 0.15 * counts.sum()


def test_a_cut_holds_for_other_rows_and_through_json(world):
    for by in ("city", "price", "position", "campaign", "scenario"):
        cut, slice_N = cut_rows(world.source("valid"), by)
        again = loads(Cut, dumps(cut))
        assert again == cut
        np.testing.assert_array_equal(again.slice_of(slice_column(world.source("valid"), by)), slice_N)
        assert again.slice_of(slice_column(world.source("train"), by)).min() >= -1
    assert Cut(by="city", names=("a",), values=(7,)).slice_of(np.array([8, 7], np.int32)).tolist() == [-1, 0]
    assert Cut(by="x", names=("< 1", "≥ 1"), edges=(1.0,)).slice_of(np.array([0.5, np.nan, 1.0])).tolist() == [0, -1, 1]


def test_the_metrics_of_a_slice_are_those_of_its_rows(world):
    predictions, named = world.predictions(), np.array(world.named("city", top=3))
    cut, slice_N = cut_rows(world.source(), "city", top=3)
    for task in ("clicked", "dwell"):
        table = slice_metrics(predictions, task, cut, slice_N, FEW, least_users=2)
        assert [row.slice for row in table.rows] == [*cut.names, "other"] and table.hidden == 0
        for row in table.rows:
            mask = named == row.slice
            assert row.metrics == predictions.rows(mask).task_metrics(task)
            assert row.users == len({r["user_id"] for r, of in zip(world.rows("test"), mask, strict=True) if of})
    rows = slice_metrics(predictions, "clicked", cut, slice_N, FEW, least_users=2).rows
    assert rows[0].intervals["auc"].low <= rows[0].metrics.auc <= rows[0].intervals["auc"].high
    assert slice_metrics(predictions, "clicked", cut, slice_N, None, least_users=2).rows[0].intervals == {}


def test_slices_of_few_users_are_hidden_and_counted(world):
    predictions = world.predictions()
    cut, slice_N = cut_rows(world.source(), "city", top=13)
    table = slice_metrics(predictions, "clicked", cut, slice_N, FEW)
    assert not table.rows or min(row.users for row in table.rows) >= 20
    assert table.hidden + len(table.rows) == 13 and table.hidden > 0
    assert table.hidden_rows + sum(row.metrics.rows for row in table.rows) == len(slice_N)
    home = slice_metrics(predictions, "bought", *cut_rows(world.source(), "scenario"), FEW)
    assert [row.slice for row in home.rows] == ["home"]  # the task has no labels elsewhere
    with pytest.raises(ValueError, match=r"one slice a row \(\d+\), got 3"):
        slice_metrics(predictions, "clicked", cut, slice_N[:3], FEW)


@pytest.mark.parametrize("by", ["user", "friend", "day", "cold_user", "city", "scenario"])
def test_no_user_is_named(world, by):
    cut, slice_N = cut_rows(world.source(), by, top=50)
    table = slice_metrics(world.predictions(), "clicked", cut, slice_N, FEW, least_users=1)
    text = json.dumps(asdict(table), default=str)
    assert "person-" not in text and len(table.rows) > 1
    if by == "user":
        assert "key 2" in text


def test_whoever_shares_the_key_space_of_a_users_column_is_not_named_either(tmp_path):
    person = Feature(name="buyer", kind="categorical", of="user", column="user_id", key_space="person")
    friend = Feature(name="friend", kind="categorical", of="user", key_space="person")
    schema = replace(SCHEMA, features=(person, friend, *(f for f in SCHEMA.features if f.name != "friend")))
    prepare(Table(log(0), schema), tmp_path / "data", split=ByTime(valid=0.2, test=0.3))
    data = PreparedData.open(tmp_path / "data")
    for by in ("buyer", "friend"):
        names = cut_rows(SliceSource(data, "test", data.transform, data), by)[0].names
        assert len(names) == 10 and not [name for name in names if "person" in name]


def test_a_split_without_rows_has_no_slices(tmp_path):
    prepare(Table(log(0)), tmp_path / "data", split=AllTrain())
    data = PreparedData.open(tmp_path / "data")
    source = SliceSource(data, "test", data.transform, data)
    for by in ("day", "cold_user", "cold_item", "history.clicks", "scenario", "position", "city", "price"):
        cut, slice_N = cut_rows(source, by)
        assert len(slice_N) == 0 and (by == "history.clicks" or cut.names == ())


def test_slices_of_near_numbers_have_names_of_their_own(tmp_path):
    table = log(0)
    cents = pa.array([10_001.0 + row % 3 for row in range(len(table))])
    table = table.set_column(table.column_names.index("match"), "match", cents)
    prepare(Table(table), tmp_path / "data", split=ByTime(valid=0.2, test=0.3))
    data = PreparedData.open(tmp_path / "data")
    cut, _ = cut_rows(SliceSource(data, "test", data.transform, data), "match")
    assert cut.names == ("10001", "10002", "10003")


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("citi", r"Expected slices by one of \['user', 'item', 'city'.*'day', 'cold_user'.*got 'citi'.*mean 'city'"),
        ("genres", "Feature 'genres' is multi: slices are cut by categorical and numeric features"),
        ("history.click", "No history 'click'.*Did you mean 'clicks'"),
        ("price_", "Did you mean 'price'"),
    ],
)
def test_what_cannot_be_cut_is_said(world, by, message):
    with pytest.raises(ValueError, match=message):
        cut_rows(world.source(), by)


def test_what_is_no_column_is_said(world):
    with pytest.raises(DataError, match=r"No column 'cty' in .*Did you mean 'city'"):
        row_columns(world.data, "test", ["cty"])
    with pytest.raises(DataError, match="'genres' has several values a row"):
        row_columns(world.data, "test", ["genres"])
