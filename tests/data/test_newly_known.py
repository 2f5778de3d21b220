"""A label is newly known at one state of a chain of states, and at one only; the loader visits such rows alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_log import DAY, SCHEMA, Memory, rows

from fullrank.data.columns import DataError
from fullrank.data.corrections import append_labels
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.manifest import MANIFEST, Manifest
from fullrank.data.partitions import DataState, PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.splits import AllTrain
from fullrank.data.states import states, transform_at

SECOND = 1_000_000
START = 1_000_000
INPUTS = Inputs.of(SCHEMA)
NOTHING = DataState(partitions=(), as_of=0)
Late = dict[int, tuple[int, int]]  # impression → label, second it was known


def late_log(late: Late) -> Memory:
    columns = {
        "imp": list(late), "task": ["bought"] * len(late),
        "label": [label for label, _ in late.values()], "time": [time for _, time in late.values()],
    }  # fmt: skip
    return Memory(pa.table(columns), name="late")


DAYS = [rows(0, start=START), rows(1, start=START + DAY - 1_200), rows(2, start=START + 2 * DAY - 1_200)]
LATE: list[Late] = [
    {int(imp): (1, START + 5_000 + int(imp)) for imp in DAYS[0]["imp"].to_pylist()[::7]},
    # corrections of what has counted by then, of what has not, and one still to come when it is appended
    {3: (0, START + DAY + 1_500), 7: (0, START + DAY + 1_600), 1_000_004: (1, START + DAY + 1_700), 14: (1, 10**8)},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("newly") / "data"
    small = Budget(block_rows=40)
    prepare(Memory(DAYS[0]), out, split=AllTrain(), budget=small)
    append_labels(late_log(LATE[0]), out)
    prepare(Memory(DAYS[1]), out, append=True, budget=small)
    append_labels(late_log(LATE[1]), out, as_of=(START + DAY + 1_800) * SECOND)
    prepare(Memory(DAYS[2]), out, append=True, budget=small)
    return out


def counts_at(state: int, as_of: float) -> set[tuple[float, str, float]]:
    """What counts after partition `state`, row by row from the raw logs: (the row's `match`, task, label)."""
    late = {**(LATE[0] if state >= 1 else {}), **(LATE[1] if state >= 3 else {})}
    found = set()
    for row in (row for day in DAYS[: state // 2 + 1] for row in day.to_pylist()):
        if row["ts"] <= as_of:
            found.add((row["match"], "clicked", float(row["clicked"])))
        label, known = row["bought"], row["bought_at"] if row["bought"] else row["ts"] + DAY
        if row["imp"] in late and late[row["imp"]][1] <= as_of:
            label, known = late[row["imp"]]
        if known <= as_of and row["ts"] + DAY <= as_of:
            found.add((row["match"], "bought", float(label)))
    return found


def visited(loader: Loader, start_row: int = 0) -> tuple[list[tuple[float, str, float]], list[float]]:
    """The labels that count, and the rows, in the order of the batches."""
    labels, order = [], []
    for batch in loader.epoch(0, start_row):
        match = batch.candidates.features.numbers_nF[:, 0].tolist()
        order += match
        for task, values, known in zip(
            INPUTS.task_names, batch.labels.values_BK.T.tolist(), batch.labels.known_BK.T.tolist(), strict=True
        ):
            labels += [(m, task, v) for m, v, k in zip(match, values, known, strict=True) if k]
    return labels, order


def newly(data: PreparedData, now: DataState, since: DataState, **options) -> Loader:
    options = {"batch_size": 16, "shuffle": True, "window_blocks": 2} | options
    return Loader(data.at(now), INPUTS, "train", since=since, **options)


def test_every_label_counts_at_exactly_one_state(folder: Path) -> None:
    data = PreparedData.open(folder)
    chain = states(data)
    before: set[tuple[float, str, float]] = set()
    learned: list[tuple[float, str]] = []
    sizes = []
    for number, now in enumerate(chain):
        expected = counts_at(number, now.as_of / SECOND)
        known_before = {(match, task) for match, task, _ in before}
        fresh = {label for label in expected if label[:2] not in known_before}
        loader = newly(data, now, chain[number - 1] if number else NOTHING)
        labels, order = visited(loader)
        assert sorted(labels) == sorted(fresh)
        assert sorted(order) == sorted({match for match, _, _ in fresh}) and loader.num_rows == len(order)
        before, learned = expected, learned + [label[:2] for label in labels]
        sizes.append(loader.num_rows)
    assert len(learned) == len(set(learned)) and set(learned) == {label[:2] for label in before}
    assert min(sizes[0], sizes[2], sizes[4]) > 100 and sizes[3] > 0  # windows close at a corrections partition, too


def test_a_label_corrected_after_it_counted_does_not_count_again(folder: Path) -> None:
    """Impressions 3 and 7 of the first day counted when their windows closed; the correction changes only values."""
    data = PreparedData.open(folder)
    chain = states(data)
    match = {imp: m for day in DAYS for imp, m in zip(day["imp"].to_pylist(), day["match"].to_pylist(), strict=True)}
    counted = {(m, task) for m, task, _ in counts_at(2, chain[2].as_of / SECOND)}
    assert (match[3], "bought") in counted
    again = visited(newly(data, chain[3], chain[2]))[0]
    assert (match[3], "bought") not in {label[:2] for label in again}
    assert (match[3], "bought", 0.0) in visited(newly(data, chain[3], NOTHING))[0]


@pytest.mark.parametrize(("batch_size", "window_blocks", "shuffle"), [(5, 1, True), (7, 3, True), (50, 8, False)])
def test_an_epoch_can_be_taken_up_at_any_batch(
    folder: Path, batch_size: int, window_blocks: int, shuffle: bool
) -> None:
    data = PreparedData.open(folder)
    chain = states(data)
    options = {"batch_size": batch_size, "window_blocks": window_blocks, "shuffle": shuffle}
    order = visited(newly(data, chain[-1], chain[1], **options))[1]
    assert len(order) == len(set(order)) > 300
    again = newly(data, chain[-1], chain[1], **options)
    for batch in (1, 150 // batch_size, len(order) // batch_size):
        later = visited(again, batch * batch_size)[1]
        assert later == order[batch * batch_size :]
    if not shuffle:
        raw = [m for day in DAYS for m in day["match"].to_pylist()]
        assert order == sorted(order, key=raw.index)


def test_blocks_where_nothing_became_known_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PreparedData.open(folder)
    chain = states(data)
    loader = newly(data, chain[1], chain[0])
    read = []
    monkeypatch.setattr(PreparedData, "read", lambda self, block, inputs: read.append(block))
    assert loader.num_rows == 0 and list(loader.epoch(0)) == [] and not read


def test_a_state_of_other_data_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"\['0000-other'\] are gone"):
        newly(PreparedData.open(folder), NOTHING, DataState(partitions=("0000-other",), as_of=0))


def test_the_states_are_those_that_were(tmp_path: Path) -> None:
    then = []
    for number, day in enumerate(DAYS):
        split = AllTrain() if number == 0 else None
        prepare(Memory(day), tmp_path / "data", split=split, append=number > 0)
        then.append(PreparedData.open(tmp_path / "data"))
    data = PreparedData.open(tmp_path / "data")
    assert list(states(data)) == [opened.state for opened in then]
    for number, opened in enumerate(then):
        transform = transform_at(data, number)
        for name, id_map in opened.transform.id_maps.items():
            assert transform.id_maps[name].hash == id_map.hash
        assert np.array_equal(transform.items.code, opened.transform.items.code)
        assert np.array_equal(transform.items.id, opened.transform.items.id)


def test_moments_never_go_back_and_older_manifests_have_the_times_of_their_rows(folder: Path, tmp_path: Path) -> None:
    data = PreparedData.open(folder)
    moments = [state.as_of for state in states(data)]
    assert moments == sorted(moments) and moments[3] == (START + DAY + 1_800) * SECOND
    assert moments[-1] == data.as_of

    def written(**changed: int | None) -> list[int]:
        partitions = tuple(replace(entry, **changed) for entry in data.manifest.partitions)
        old = Manifest.from_json(replace(data.manifest, partitions=partitions).to_json())
        return [state.as_of for state in states(PreparedData(folder, old))]

    times = [int(np.max(day["ts"].to_numpy())) * SECOND for day in DAYS]
    assert written(as_of=None) == [times[0], times[0], times[1], times[1], data.as_of]
    assert written(as_of=5) == [5] * 5
    text = (folder / MANIFEST).read_text()
    assert '"as_of"' in text and text.count('"as_of"') == 6
