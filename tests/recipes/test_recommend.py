"""Recommending is predicting the whole catalogue: held against predictions of rows, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fullrank.cli import main
from fullrank.data.columns import DataError
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import write_parquet
from fullrank.data.splits import ByTime
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes import catalogue
from fullrank.recipes.popularity import Popularity
from fullrank.recipes.predict_rows import RowPredictor, answers
from fullrank.recipes.recommend import Recommendations, Recommender, recommend
from fullrank.recipes.train import Trained, train_ranker
from fullrank.schema import History, Roles, Schema, Task
from fullrank.training.config import TrainConfig

LOG = SimulatedLog(SimulatorConfig(rows=2_400, users=60, ads=90, campaigns=20, days=3, seed=5, new_keys_per_day=0.3))
RANKER = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,))
PHONE, TV = "device-0001", "device-0002"
USER_SIDE = ["segment", "age", "interests", "interest_weights", "hour", "device"]
ITEM_SIDE = ["ad", "campaign", "advertiser", "category", "format", "price"]


class World:
    """Two days of data, a run of the first, and the rows as they were logged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tables = []
        for day in (0, 1):
            prepare(LOG.day(day), folder / "data", split=ByTime(valid=0.1, test=0.1), append=day > 0)
            tables.append(pq.read_table(write_parquet(LOG.day(day), folder / f"day{day}.parquet")))
            if day == 0:
                training = TrainConfig(epochs=2, batch_size=100, checkpoint_every_steps=None)
                opened = PreparedData.open(folder / "data")
                self.trained: Trained = train_ranker(RANKER, opened, folder / "run", training)
        self.log = pa.concat_tables(tables).sort_by("time")
        self.data = PreparedData.open(folder / "data")
        self.items = self.log.group_by("ad", use_threads=False).aggregate(
            [(name, "first") for name in ITEM_SIDE if name != "ad"]
        )
        self.items = self.items.rename_columns([name.removesuffix("_first") for name in self.items.column_names])

    def rows(self, **told: object) -> pa.RecordBatch:
        """The whole catalogue as rows of the log, each with what is told of the request."""
        n = self.items.num_rows
        columns = {name: self.items[name] for name in ITEM_SIDE}
        columns |= {name: pa.array([value] * n) for name, value in told.items()}
        columns["request"] = pa.array([1] * n)
        return pa.table(columns).combine_chunks().to_batches()[0]

    def newest(self, user: int) -> dict[str, object]:
        """What the user's newest request said."""
        mine = self.log.filter(pa.compute.equal(self.log["user"], user))
        return {name: mine[name][-1].as_py() for name in ["user", *USER_SIDE]}

    def predicted(self, **told: object) -> dict[str, float]:
        """Click probability by item key, through predictions of rows."""
        predictor = RowPredictor(self.trained.run, self.trained.ranker, self.data)
        found = answers(predictor.logits(self.rows(**told)), predictor.inputs.tasks)["click"]
        return dict(zip(map(str, self.items["ad"].to_pylist()), found.tolist(), strict=True))

    def recommend(self, user: object, **more) -> Recommendations:
        return recommend(self.trained.run, self.trained.ranker, self.data, user, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("recommend"))


def check(found: Recommendations, expected: dict[str, float], k: int) -> None:
    got = {item.key: item.probability["click"] for item in found.items}
    assert list(got.values()) == sorted(got.values(), reverse=True) and len(got) == k
    np.testing.assert_allclose([got[key] for key in got], [expected[key] for key in got], atol=1e-5)
    assert min(got.values()) >= sorted(expected.values(), reverse=True)[k - 1] - 1e-5


@pytest.mark.parametrize("day", [0, 1])
def test_every_item_gets_what_its_row_would_get(world: World, day: int) -> None:
    """Of users of the first day, and of users that came after the run was trained (and of items that did)."""
    newest_day = pa.compute.min(world.log.filter(pa.compute.greater(world.log["time"], 0))["time"]).as_py() + 86_400
    early = set(world.log.filter(pa.compute.less(world.log["time"], newest_day))["user"].to_pylist())
    users = sorted(set(world.log["user"].to_pylist()) - early if day else early)
    user = users[0]
    told = world.newest(user)
    found = world.recommend(user, k=20, include_seen=True)
    check(found, world.predicted(**told), 20)
    assert found.method == "model" and found.known and found.events > 0
    assert ("user" in found.unknown) == (day == 1) and "device" in found.inputs
    assert len(world.items) > len(world.trained.run.transform().items.code)


def test_what_is_told_takes_the_place_of_what_was_logged(world: World) -> None:
    user = world.log["user"][0].as_py()
    told = world.newest(user) | {"device": TV, "interests": ["3", "4"], "interest_weights": [1.0, 2.0], "match": 0.7}
    context = {"device": TV, "interests": "3|4", "interest_weights": "1|2", "match": "0.7"}
    found = world.recommend(user, k=10, context=context, include_seen=True)
    check(found, world.predicted(**told), 10)
    assert "match" in found.inputs
    other = world.recommend(user, k=10, include_seen=True)
    assert "match" not in other.inputs
    assert [item.probability for item in other.items] != [item.probability for item in found.items]


def test_a_stranger_with_features_goes_through_the_model(world: World) -> None:
    found = world.recommend("nobody", k=10, context={"device": PHONE, "age": "33"})
    check(found, world.predicted(user="nobody", device=PHONE, age=33), 10)
    assert (found.method, found.known, found.events) == ("model", False, 0)
    assert set(found.inputs) == {"device", "age"} and found.unknown == ("user",)
    assert "never seen" in found.words() and "by the model, from age, device" in found.words()


def test_without_anything_known_items_come_by_popularity(world: World) -> None:
    found = world.recommend("nobody", k=5)
    fitted = Popularity.fit(world.data, ("click", "conversion"))
    rates = fitted.logit_IK[:, 0].sigmoid()
    ids = world.data.transform.id_maps["item"].ids(world.data.transform.items.code)
    expected = sorted(rates[ids.astype(np.int64)].tolist(), reverse=True)[:5]
    np.testing.assert_allclose([item.probability["click"] for item in found.items], expected, rtol=1e-6)
    assert found.method == "popularity" and "by popularity, the same for everybody" in found.words()
    unknown = world.recommend("nobody", k=5, context={"device": "a device nobody has"})
    assert unknown.method == "popularity" and unknown.unknown == ("user", "device")
    assert unknown.words().endswith("; never met in training: user, device")


def test_seen_items_are_left_out_unless_asked_for(world: World) -> None:
    user = world.log["user"][0].as_py()
    had = {str(ad) for ad in world.log.filter(pa.compute.equal(world.log["user"], user))["ad"].to_pylist()}
    without = {item.key for item in world.recommend(user, k=1_000).items}
    with_seen = {item.key for item in world.recommend(user, k=1_000, include_seen=True).items}
    assert had and with_seen == set(map(str, world.items["ad"].to_pylist())) and without == with_seen - had


def test_many_users_get_what_each_gets_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [*sorted(set(world.log["user"].to_pylist()))[:7], 10**9]
    recommender = Recommender(world.trained.run, world.trained.ranker, world.data)
    records = pa.RecordBatch.from_pydict({"user": users})
    alone = [world.recommend(user, k=4) for user in users]
    for scores, rows in ((8_000_000, 32_768), (3 * 2 * len(world.items), 50)):
        monkeypatch.setattr("fullrank.recipes.recommend.SCORES", scores)
        monkeypatch.setattr(catalogue, "PIECE_ROWS", rows)
        together = list(recommender.recommend(records, k=4))
        for one, other in zip(together, alone, strict=True):
            assert [item.key for item in one.items] == [item.key for item in other.items]
            assert (one.user, one.method, one.inputs, one.events) == (
                other.user,
                other.method,
                other.inputs,
                other.events,
            )


def test_a_moment_can_be_told(world: World) -> None:
    """Nothing that happened later is read."""
    user = world.log["user"][0].as_py()
    first = world.log["time"][0].as_py()
    assert world.recommend(user, context={"time": str(first)}).events == 0
    assert world.recommend(user, context={"time": str(first + 86_400 * 9)}).events > 0


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"devce": "phone"}, r"one of \[.*\], got 'devce'\. Did you mean 'device'\?"),
        ({"category": "3"}, "Column 'category' describes the item: it comes from the catalogue"),
        ({"user": "3"}, "Column 'user' is the user's: name the user instead"),
        ({"age": "old"}, "column 'age': expected a finite number.*got 'old'"),
        ({"device": ["a", "b"]}, r"Expected one value for column 'device', got \['a', 'b'\]"),
        ({"click": "1"}, "Expected a column that a request can be told"),
    ],
)
def test_a_context_that_cannot_be_is_refused(world: World, context: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        world.recommend(1, context=context)


def test_lists_that_are_told_do_not_make_a_user_known(tmp_path: Path) -> None:
    """An inline history: what the record says, else what the user's newest request said."""
    rng = np.random.default_rng(0)
    rows = 400
    columns = {"user": np.arange(rows) % 20, "item": rng.integers(0, 30, rows), "time": np.arange(rows) + 1_700_000_000}
    lists = [rng.integers(0, 30, k).tolist() for k in rng.integers(1, 6, rows)]
    table = pa.table(columns | {"hist": pa.array(lists), "click": rng.integers(0, 2, rows)})
    pq.write_table(table, tmp_path / "log.parquet")
    schema = Schema(
        roles=Roles(user="user", item="item", time="time"),
        histories=(History(name="hist", layout="inline", item="hist", max_length=5),),
        tasks=(Task(name="click"),),
    )
    prepare(TabularSource([tmp_path / "log.parquet"], schema), tmp_path / "data", split=ByTime(valid=0.1, test=0.1))
    data = PreparedData.open(tmp_path / "data")
    training = TrainConfig(epochs=1, batch_size=100, checkpoint_every_steps=None)
    trained = train_ranker(RANKER, data, tmp_path / "run", training)
    known = recommend(trained.run, trained.ranker, data, 3, k=40)
    newest = lists[max(row for row in range(rows) if row % 20 == 3)]
    assert known.known and known.events == len(newest)
    assert {item.key for item in known.items}.isdisjoint(map(str, newest))
    told = recommend(trained.run, trained.ranker, data, 3, k=40, context={"hist": ["5", "6"]})
    assert told.events == 2 and {"5", "6"}.isdisjoint(item.key for item in told.items)
    stranger = recommend(trained.run, trained.ranker, data, "nobody", k=40, context={"hist": "5|6"})
    assert (stranger.method, stranger.known, stranger.events) == ("model", False, 2)
    predictor = RowPredictor(trained.run, trained.ranker, data)
    row = {"user": ["nobody"], "item": [stranger.items[0].key], "hist": [["5", "6"]]}
    expected = answers(predictor.logits(pa.RecordBatch.from_pydict(row)), predictor.inputs.tasks)["click"]
    np.testing.assert_allclose(stranger.items[0].probability["click"], expected[0], atol=1e-6)


def test_the_best_of_scores_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        score = rng.integers(0, 6, 30).astype(float)
        score[rng.random(30) < 0.2] = -np.inf
        k = int(rng.integers(1, 35))
        there = [i for i in np.argsort(-score, kind="stable") if score[i] > -np.inf]
        assert catalogue.best(score, k).tolist() == there[:k]


def test_the_verb_answers_for_a_file_of_users(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["recommend", str(world.folder / "run"), "--data", str(world.folder / "data"), "--k", "3"]
    users = sorted(set(world.log["user"].to_pylist()))[:3]
    (world.folder / "users.txt").write_text("".join(f"{user}\n" for user in users))
    assert main([*common, "--users", str(world.folder / "users.txt")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["user"] for line in lines] == list(map(str, users)) and lines[0]["method"] == "model"
    (world.folder / "users.csv").write_text("user,device\n" + "".join(f"{u},{TV}\n" for u in users) + f",{PHONE}\n")
    for name in ("out.jsonl", "out.parquet"):
        out = world.folder / name
        assert main([*common, "--users", str(world.folder / "users.csv"), "--out", str(out)]) == 0
        assert f"{name}: 4 users" in capsys.readouterr().out
    read = [json.loads(line) for line in (world.folder / "out.jsonl").read_text().splitlines()]
    rows = pq.read_table(world.folder / "out.parquet").to_pylist()
    assert [row["item"] for row in rows] == [item["key"] for line in read for item in line["items"]]
    assert rows[0]["rank"] == 1 and 0 < rows[0]["answer.click"] < 1
    assert read[3]["user"] == "" and read[3]["inputs"] == ["device"] and not read[3]["known"]
    expected = world.recommend(users[0], context={"device": TV})
    assert [item["key"] for item in read[0]["items"]] == [item.key for item in expected.items]
    words = ["--user", str(users[0]), "nobody", "--context", f"device={TV}", "--json", str(world.folder / "two.json")]
    assert main([*common, *words, "--out", str(world.folder / "page")]) == 0
    text = capsys.readouterr().out
    assert f"User {users[0]} (in the log; " in text and "User nobody (never seen in the log; 0 past events" in text
    assert (world.folder / "page" / "recommendations.txt").read_text() == text
    assert len(json.loads((world.folder / "two.json").read_text())["users"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Expected either --user KEY or --users FILE."),
        ("--user 1 --users x.txt", "Expected either --user KEY or --users FILE."),
        ("--user 1 --context device", "Expected --context COLUMN=VALUE, got 'device'."),
        ("--user 1 --context device=a device=b", "Expected column 'device' once in --context"),
        ("--users users.txt --out out.csv", "Expected --out to end in .jsonl or .parquet for a file of users"),
        ("--users user.csv", "user.csv: expected a file of rows, found none."),
    ],
)
def test_a_wrong_command_is_one_line(
    world: World, words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.folder)
    Path("users.txt").write_text("1\n")
    assert main(["recommend", "run", "--data", "data", *words.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("k", [0, -1])
def test_less_than_one_item_is_an_error(world: World, k: int) -> None:
    with pytest.raises(ValueError, match=f"Expected k >= 1, the number of items to recommend, got {k}"):
        recommend(world.trained.run, world.trained.ranker, world.data, 3, k=k)
