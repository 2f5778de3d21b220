"""What a profile says of prepared data, against the log itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.profile import DataProfile, compute_profile, stability_index
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash, ByTime

LOG = SimulatedLog(SimulatorConfig(rows=6_000, users=200, ads=120, campaigns=20, days=4, new_keys_per_day=0.2, seed=3))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.Table.from_batches([chunk.records for chunk in LOG.chunks()])


@pytest.fixture(scope="module")
def by_time(tmp_path_factory: pytest.TempPathFactory) -> DataProfile:
    folder = tmp_path_factory.mktemp("profile") / "data"
    prepare(LOG, folder, split=ByTime(valid=0.1, test=0.25))
    return compute_profile(PreparedData.open(folder))


def test_rows_users_items_and_days_are_those_of_the_log(by_time: DataProfile, table: pa.Table) -> None:
    assert [split.split for split in by_time.splits] == ["train", "valid", "test"]
    assert sum(split.rows for split in by_time.splits) == len(table)
    assert sum(split.requests for split in by_time.splits) == len(set(table["request"].to_pylist()))
    time = np.array(table["time"].to_pylist())
    days, rows = np.unique(time // 86_400, return_counts=True)
    assert by_time.day_D.tolist() == days.tolist() and by_time.rows_D.tolist() == rows.tolist()
    click = np.array(table["click"].to_pylist())
    expected = [click[time // 86_400 == day].mean() for day in days]
    np.testing.assert_allclose(by_time.mean_D["click"], expected)
    assert by_time.known_D["click"].tolist() == rows.tolist()


def test_labels_that_do_not_count_yet_are_unknown(by_time: DataProfile) -> None:
    of = {(label.split, label.task): label for label in by_time.labels}
    assert of["train", "click"].unknown == 0
    late = of["test", "conversion"]
    assert late.unknown > 0 and late.known + late.unknown == by_time.splits[2].rows
    assert np.isnan(late.mean) == (late.known == 0)


def test_new_users_are_those_of_no_training_row(tmp_path: Path, table: pa.Table) -> None:
    prepare(LOG, tmp_path / "data", split=ByHash(key="user", valid=0.1, test=0.3))
    splits = {split.split: split for split in compute_profile(PreparedData.open(tmp_path / "data")).splits}
    assert splits["train"].new_user_rows == 0 and splits["test"].new_user_rows == 1
    assert sum(split.users for split in splits.values()) == len(set(table["user"].to_pylist()))
    assert 0 <= splits["test"].new_item_rows < 0.5


def test_missing_values_are_counted(by_time: DataProfile, table: pa.Table) -> None:
    features = {feature.name: feature for feature in by_time.features}
    train = by_time.splits[0]
    order = np.argsort(np.array(table["time"].to_pylist()), kind="stable")[: train.rows]
    prices = np.array(table["price"].to_pylist(), dtype=object)[order]
    assert features["price"].missing == pytest.approx(np.mean([price is None for price in prices]), abs=0.02)
    assert features["segment"].missing == 0 and features["segment"].values > 1
    assert features["match"].values == 0


def test_what_changes_with_time_drifts_and_what_does_not_does_not(by_time: DataProfile) -> None:
    drift = {feature.name: feature.drift for feature in by_time.features}
    assert drift["item"] > 0.1  # new ads every day
    assert drift["device"] < 0.02 and drift["match"] < 0.1


def test_stability_index_by_hand() -> None:
    train, test = np.array([80, 20]), np.array([50, 50])
    p, q = np.array([80.5, 20.5]) / 101, np.array([50.5, 50.5]) / 101
    assert stability_index(train, test) == pytest.approx(sum((q - p) * np.log(q / p)))
    assert stability_index(train, train * 10) < 1e-4
    assert np.isnan(stability_index(train, np.zeros(2)))
    assert np.isfinite(stability_index(np.array([10, 0]), np.array([0, 10])))


def test_data_without_a_clock_users_or_items(tmp_path: Path) -> None:
    from fullrank.data.readers import TabularSource
    from fullrank.schema import Feature, Schema, Task

    (tmp_path / "log.csv").write_text("colour,size,y\nred,1.5,1\nblue,,0\n,2.5,1\n")
    schema = Schema(
        features=(Feature(name="colour", kind="categorical"), Feature(name="size", kind="numeric")),
        tasks=(Task(name="y"),),
    )
    from fullrank.data.splits import AllTrain

    prepare(TabularSource([tmp_path / "log.csv"], schema), tmp_path / "data", split=AllTrain())
    found = compute_profile(PreparedData.open(tmp_path / "data"))
    assert len(found.day_D) == 0 and found.splits[0].users == 0 and np.isnan(found.splits[0].new_user_rows)
    colour, size = found.features
    assert colour.missing == pytest.approx(1 / 3) and size.missing == pytest.approx(1 / 3) and colour.values == 2
    assert np.isnan(colour.drift) and found.labels[0].mean == pytest.approx(2 / 3)
