"""Rows that were never prepared get what prepared ones get; what is not there is missing, and said."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from fullrank.cli import main
from fullrank.data.columns import DataError, array
from fullrank.data.keys import codes_of_array
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.rows_file import read_rows
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import write_parquet
from fullrank.data.splits import ByTime
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.predict_rows import RowPredictor, answers
from fullrank.recipes.train import Trained, predict, train_ranker
from fullrank.training.config import TrainConfig

LOG = SimulatedLog(SimulatorConfig(rows=2_400, users=100, ads=80, campaigns=20, days=3, seed=4))
RANKER = DCNv2.Config(embedding=EmbeddingConfig(width=4), num_cross_layers=1, hidden=(8,), dropout=0.1)
TRAINING = TrainConfig(epochs=1, batch_size=200, checkpoint_every_steps=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """Two days of prepared data, a run of the first, and the rows of both as files."""
    folder = tmp_path_factory.mktemp("predict")
    for day in (0, 1):
        prepare(LOG.day(day), folder / "data", split=ByTime(valid=0.1, test=0.3), append=day > 0)
        write_parquet(LOG.day(day), folder / f"day{day}.parquet")
        if day == 0:
            trained = train_ranker(RANKER, PreparedData.open(folder / "data"), folder / "run", TRAINING)
    return folder, trained


def prepared_logits(data: PreparedData, trained: Trained, split: str, partition: int) -> tuple[np.ndarray, np.ndarray]:
    """Impression codes and logits of the rows of a split, as `predict` gives them."""
    logits = predict(trained.run, trained.ranker, data, split).logits_NK
    codes = [array(data.read_all(block).rows, "@impression") for block in data.blocks(split)]
    here = np.concatenate([np.full(b.num_rows, b.partition == partition) for b in data.blocks(split)])
    return np.concatenate(codes)[here], logits[here]


@pytest.mark.parametrize("day", [0, 1])
def test_raw_rows_get_the_logits_of_the_prepared_split(world: tuple[Path, Trained], day: int) -> None:
    folder, trained = world
    data = PreparedData.open(folder / "data")
    predictor = RowPredictor(trained.run, trained.ranker, data)
    chunks = list(read_rows(folder / f"day{day}.parquet", predictor.schema, keep=["impression"]))
    found = np.concatenate([predictor.logits(chunk.records) for chunk in chunks])
    raw = codes_of_array(pa.chunked_array([chunk.records.column("impression") for chunk in chunks])).codes
    for split in ("train", "test"):
        codes, expected = prepared_logits(data, trained, split, day)
        place = np.searchsorted(raw, codes, sorter=np.argsort(raw))
        rows = np.argsort(raw)[place]
        assert (raw[rows] == codes).all() and len(codes) > 100
        np.testing.assert_allclose(found[rows], expected, rtol=0, atol=1e-5)
    assert predictor.seen.rows == len(raw) and predictor.seen.events["shown"] > 0
    assert 0 < predictor.seen.unknown["user"] < len(raw)  # users of the test alone


def test_where_a_chunk_ends_changes_nothing(world: tuple[Path, Trained]) -> None:
    folder, trained = world
    predictor = RowPredictor(trained.run, trained.ranker, PreparedData.open(folder / "data"))
    table = pq.read_table(folder / "day0.parquet")
    whole = predictor.logits(table.combine_chunks().to_batches()[0])
    pq.write_table(table, folder / "groups.parquet", row_group_size=97)
    chunks = list(read_rows(folder / "groups.parquet", predictor.schema))
    assert len(chunks) > 5 and chunks[1].first_row == chunks[0].records.num_rows
    requests = [set(chunk.records.column("request").to_pylist()) for chunk in chunks]
    assert not any(left & right for left, right in pairwise(requests))
    np.testing.assert_allclose(np.concatenate([predictor.logits(c.records) for c in chunks]), whole, atol=1e-5)


def test_columns_may_be_absent_and_labels_may_be_anything(world: tuple[Path, Trained]) -> None:
    folder, trained = world
    data = PreparedData.open(folder / "data")
    (records,) = pq.read_table(folder / "day1.parquet").slice(0, 300).combine_chunks().to_batches()
    whole = RowPredictor(trained.run, trained.ranker, data).logits(records)
    bare = records.drop_columns(["click", "conversion", "conversion_time", "bid", "propensity", "impression"])
    bare = bare.append_column("click", pa.array(["perhaps"] * 300))
    np.testing.assert_array_equal(RowPredictor(trained.run, trained.ranker, data).logits(bare), whole)

    def null(name: str) -> pa.RecordBatch:
        return records.set_column(records.schema.get_field_index(name), name, pa.nulls(300))

    for name in ("age", "segment", "device", "match", "user"):
        absent, there = (RowPredictor(trained.run, trained.ranker, data) for _ in range(2))
        np.testing.assert_array_equal(absent.logits(records.drop_columns([name])), there.logits(null(name)))
        assert absent.seen.absent == (name,) and there.seen.absent == ()
        assert absent.seen.missing[name] == 300
    weights, ones = (RowPredictor(trained.run, trained.ranker, data) for _ in range(2))
    made = records.drop_columns(["interest_weights"])
    lists = pa.array([None if v is None else [1.0] * len(v) for v in made.column("interests").to_pylist()])
    np.testing.assert_array_equal(
        weights.logits(made), ones.logits(made.append_column("interest_weights", lists))
    )


def test_attributes_of_items_come_from_the_item_table_where_rows_have_none(world: tuple[Path, Trained]) -> None:
    folder, trained = world
    data = PreparedData.open(folder / "data")
    (records,) = pq.read_table(folder / "day0.parquet").combine_chunks().to_batches()
    predictor = RowPredictor(trained.run, trained.ranker, data)
    less = records.drop_columns(["category", "format", "price"])
    np.testing.assert_allclose(
        predictor.logits(less), RowPredictor(trained.run, trained.ranker, data).logits(records), atol=1e-5
    )
    assert set(predictor.seen.absent) == {"category", "format", "price"} and not predictor.seen.missing["category"]


def test_without_prepared_data_there_is_no_past(world: tuple[Path, Trained]) -> None:
    folder, trained = world
    (records,) = pq.read_table(folder / "day0.parquet").slice(700, 90).combine_chunks().to_batches()
    without = RowPredictor(trained.run, trained.ranker)
    stranger = RowPredictor(trained.run, trained.ranker, PreparedData.open(folder / "data"))
    early = records.set_column(records.schema.get_field_index("time"), "time", pa.array([5] * 90))
    np.testing.assert_allclose(without.logits(early), stranger.logits(early), atol=1e-6)
    assert without.seen.events == {"clicked": 0, "shown": 0}
    assert "History shown: 0 events, none: give the prepared data that hold them." in without.seen.words()


def test_rows_without_a_time_come_after_all_that_is_known(world: tuple[Path, Trained]) -> None:
    folder, trained = world
    data = PreparedData.open(folder / "data")
    (records,) = pq.read_table(folder / "day1.parquet").slice(0, 50).combine_chunks().to_batches()
    timeless, late = (RowPredictor(trained.run, trained.ranker, data) for _ in range(2))
    found = timeless.logits(records.drop_columns(["time"]))
    stamp = pa.array(np.full(50, data.as_of + 1)).cast(pa.timestamp("us"))
    np.testing.assert_array_equal(found, late.logits(records.drop_columns(["time"]).append_column("time", stamp)))
    assert "time" in timeless.seen.absent


def test_the_verb_writes_what_was_asked(world: tuple[Path, Trained], capsys: pytest.CaptureFixture[str]) -> None:
    folder, trained = world
    table = pq.read_table(folder / "day1.parquet").drop_columns(["interests", "interest_weights", "segment"])
    csv.write_csv(table, folder / "rows.csv")
    pq.write_table(table, folder / "rows.parquet")
    common = ["predict", str(trained.run.path)]
    options = ["--data", str(folder / "data"), "--keep", "ad", "--json", str(folder / "seen.json")]
    outs = {}
    for source, out in (("rows.parquet", "a.parquet"), ("rows.csv", "a.csv"), ("rows.csv", "a.jsonl")):
        assert main([*common, str(folder / source), *options, "--out", str(folder / out)]) == 0
        said = capsys.readouterr()
        assert "a.parquet: 800 rows, click, conversion" in said.out or "a.parquet" not in out
        assert "taken as missing: segment, interests" in said.err
    outs["parquet"] = pq.read_table(folder / "a.parquet").to_pylist()
    outs["csv"] = csv.read_csv(folder / "a.csv").to_pylist()
    outs["jsonl"] = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    direct = RowPredictor(trained.run, trained.ranker, PreparedData.open(folder / "data"))
    (records,) = table.combine_chunks().to_batches()
    expected = answers(direct.logits(records), direct.inputs.tasks)
    for rows in outs.values():
        assert [str(row["ad"]) for row in rows] == [str(ad) for ad in table["ad"].to_pylist()]
        for task, values in expected.items():
            np.testing.assert_allclose([row[task] for row in rows], values, atol=1e-6)
            assert min(values) > 0 and max(values) < 1
    seen = json.loads((folder / "seen.json").read_text())
    assert seen["rows"] == 800 and seen["missing"]["segment"] == 800 and seen["source"]["shown"].startswith("from ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rows.parquet --out x.txt", "Expected --out to end in one of .parquet, .csv, .jsonl, got 'x.txt'"),
        ("day9.parquet", "day9.parquet: expected a file of rows, found none. Did you mean 'day1.parquet'?"),
        ("rows.parquet --keep adv", "expected column 'adv'"),
        ("rows.parquet --keep click", "Expected --keep without 'click'"),
        ("odd.parquet", "odd.parquet: expected some of the columns"),
        ("empty.parquet", "to have rows, got none"),
        ("words.parquet", "words.parquet: row 3, column 'age': expected a finite number"),
    ],
)
def test_what_is_wrong_is_named(
    world: tuple[Path, Trained], words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, trained = world
    pq.write_table(pa.table({"colour": [1]}), folder / "odd.parquet")
    pq.write_table(pa.table({"user": pa.array([], pa.int64())}), folder / "empty.parquet")
    pq.write_table(pa.table({"user": [1, 2, 3], "age": ["1", "", "old"]}), folder / "words.parquet")
    (folder / "rows.parquet").exists() or write_parquet(LOG.day(1), folder / "rows.parquet")
    name, *rest = words.split()
    assert main(["predict", str(trained.run.path), str(folder / name), *rest]) == 2
    assert message in capsys.readouterr().err
    assert not list(folder.glob(".*partial"))


def test_data_of_another_log_is_refused(world: tuple[Path, Trained], tmp_path: Path) -> None:
    _, trained = world
    prepare(SimulatedLog(replace(LOG.config, seed=9)).day(0), tmp_path / "other", split=ByTime(valid=0.1, test=0.1))
    with pytest.raises(ValueError, match="run"):
        RowPredictor(trained.run, trained.ranker, PreparedData.open(tmp_path / "other"))
    with pytest.raises(DataError, match="not hashed"):
        RowPredictor(trained.run, trained.ranker, PreparedData.open(tmp_path / "other"), hash_key=b"0" * 16)
