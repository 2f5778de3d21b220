"""Late labels meet their rows by impression, rewrite nothing, and reach histories that are carried over."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_log import DAY, SCHEMA, Memory, rows

from fullrank.data.columns import DataError, array
from fullrank.data.corrections import CorrectionReport, append_labels
from fullrank.data.inputs import Inputs
from fullrank.data.keys import code_of_key
from fullrank.data.manifest import MANIFEST
from fullrank.data.pack import Unpacked, pack
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import Budget, prepare
from fullrank.data.splits import ByTime
from fullrank.schema import Roles, Schema, Task

SECOND = 1_000_000
LATER = 2_000_000  # seconds, after all rows


def late(
    impressions: list, *, label: object = 1, time: object = LATER, task: str | None = "bought"
) -> Memory:
    n = len(impressions)
    columns = {
        "imp": impressions,
        "label": label if isinstance(label, list) else [label] * n,
        "time": time if isinstance(time, list) else [time] * n,
    }
    columns |= {"task": [task] * n} if task else {}
    return Memory(pa.table(columns), name="late", chunk_rows=3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    prepare(
        Memory(rows()), tmp_path / "data", split=ByTime(valid=0.1, test=0.2), budget=Budget(block_rows=40)
    )
    return tmp_path / "data"


def labels(out: Path) -> dict[int, tuple[float, int]]:
    """Impression code → label and known_at of the task `bought`, as a reader sees them."""
    data, found = PreparedData.open(out), {}
    for split in ("train", "valid", "test"):
        for ref in data.blocks(split):
            block = data.read_all(ref)
            columns = (
                array(block.rows, name) for name in ("@impression", "@label.bought", "@known_at.bought")
            )
            found |= {
                int(imp): (float(label), int(known)) for imp, label, known in zip(*columns, strict=True)
            }
    return found


def files(out: Path) -> dict[str, str]:
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_late_labels_are_laid_over_their_rows(out: Path) -> None:
    before, held = labels(out), files(out)
    chosen = [7, 30, 31, 150, 290]
    times = [LATER + i for i in range(5)]
    report = append_labels(late([*chosen, 10**9], label=[1, 1, 0, 1, 1, 1], time=[*times, LATER]), out)
    assert report.is_new and report.labels == {"bought": 5} and report.unknown == {"bought": 1}
    assert "5 labels, 1 of unknown impressions left out" in str(report)
    expected = dict(before)
    for imp, label, time in zip(chosen, [1, 1, 0, 1, 1], times, strict=True):
        expected[code_of_key(imp)] = (float(label), time * SECOND)
    assert labels(out) == expected
    assert held.items() <= files(out).items()
    assert PreparedData.open(out).as_of == times[-1] * SECOND


def test_the_last_to_come_counts_and_the_same_again_is_nothing(out: Path) -> None:
    append_labels(late([7, 8]), out)
    append_labels(late([7], label=0, time=LATER + 5), out)
    found = labels(out)
    assert found[code_of_key(7)] == (0.0, (LATER + 5) * SECOND) and found[code_of_key(8)] == (
        1.0,
        LATER * SECOND,
    )
    held = files(out)
    again = append_labels(late([7, 8]), out)
    assert not again.is_new and "Nothing to do" in str(again) and files(out) == held


def test_a_late_label_counts_from_its_time_on(out: Path) -> None:
    append_labels(late([7]), out, as_of=LATER * SECOND - 1)
    inputs = Inputs.of(SCHEMA)

    def positives(data: PreparedData) -> int:
        blocks = (data.read(ref, inputs) for ref in data.blocks("train"))
        packed = (pack([Unpacked(b)], inputs, views={}, as_of=data.as_of, windows=data.windows) for b in blocks)
        bought = inputs.task_names.index("bought")
        return sum(int(part.rows.matrix("values", np.float32)[:, bought].sum()) for part in packed)

    early, then = PreparedData.open(out), PreparedData.open(out)
    assert early.as_of == LATER * SECOND - 1
    then.as_of += 1
    assert positives(then) == positives(early) + 1


def test_carried_events_take_late_labels_as_outcomes(out: Path) -> None:
    """A click of day 1 whose purchase came late: on day 2 the user's history knows of it, from then on."""
    day1 = rows().to_pylist()
    open_clicks = [row for row in day1 if row["clicked"] and not row["bought"] and row["user_id"]]
    append_labels(late([row["imp"] for row in open_clicks], time=1_004_000), out)
    prepare(Memory(rows(1, start=1_005_000)), out, append=True)
    store = PreparedData.open(out).sources("clicks")[-1].columns
    carried = {
        int(imp): (float(value), int(known))
        for imp, value, known in zip(
            store["@impression"], store["bought"], store["bought@known_at"], strict=True
        )
    }
    found = [row for row in open_clicks if code_of_key(row["imp"]) in carried]
    assert len(found) > 5
    for row in found:
        assert carried[code_of_key(row["imp"])] == (1.0, 1_004_000 * SECOND)
    bought = [row for row in day1 if row["bought"] and code_of_key(row["imp"]) in carried]
    for row in bought:
        assert carried[code_of_key(row["imp"])] == (1.0, row["bought_at"] * SECOND)
    assert bought and DAY > 0


def test_two_labels_for_one_impression_must_agree(out: Path) -> None:
    append_labels(late([7, 8, 7]), out)
    with pytest.raises(
        DataError, match=r"two for the same: 1 known at .* \(row 1\), 0 known at .* \(row 5\)"
    ):
        append_labels(late([9, 7, 8, 10, 9], label=[1, 1, 1, 1, 0]), out)
    with pytest.raises(DataError, match="Keep the one that holds"):
        append_labels(late([9, 9], time=[LATER, LATER + 1]), out)


def test_bad_tables_say_where_and_change_nothing(out: Path) -> None:
    held = (out / MANIFEST).read_text(), files(out)
    with pytest.raises(DataError, match=r"late.parquet: row 5, column 'label': expected 0 or 1"):
        append_labels(late([1, 2, 3, 4, 5], label=["1", "0", "1", "1", "7"]), out)
    with pytest.raises(
        DataError, match=r"row 1, column 'task': expected one of .*'bougt'.* Did you mean 'bought'"
    ):
        append_labels(late([1], task="bougt"), out)
    with pytest.raises(DataError, match=r"row 2: expected an impression, got nothing"):
        append_labels(late([1, None]), out)
    with pytest.raises(DataError, match=r"row 2: expected a label, got nothing"):
        append_labels(late([1, 2], label=[1, None]), out)
    with pytest.raises(DataError, match="expected a column 'task'"):
        append_labels(late([1], task=None), out)
    assert ((out / MANIFEST).read_text(), files(out)) == held


def test_one_task_needs_no_column_of_tasks_and_no_impressions_cannot_be_joined(tmp_path: Path) -> None:
    table = pa.table({"imp": ["a", "b"], "t": [1, 2], "y": [None, 0]})
    schema = Schema(roles=Roles(impression="imp", time="t"), tasks=(Task(name="y"),))
    prepare(Memory(table, schema=schema), tmp_path / "data", split=ByTime(valid=0.0, test=0.0))
    assert append_labels(late(["a"], time=9, task=None), tmp_path / "data").labels == {"y": 1}
    without = Schema(roles=Roles(time="t"), tasks=(Task(name="y"),))
    prepare(Memory(table, schema=without), tmp_path / "without", split=ByTime(valid=0.0, test=0.0))
    with pytest.raises(DataError, match="role impression"):
        append_labels(late(["a"], task=None), tmp_path / "without")


def test_hashed_impressions_are_met_with_the_secret(tmp_path: Path) -> None:
    secret = b"0123456789abcdef"
    prepare(Memory(rows()), tmp_path / "data", split=ByTime(), hash_key=secret)
    with pytest.raises(DataError, match="its keys are hashed"):
        append_labels(late([7]), tmp_path / "data")
    report = append_labels(late([7]), tmp_path / "data", hash_key=secret)
    assert isinstance(report, CorrectionReport) and report.labels == {"bought": 1}
    code = np.uint64(code_of_key(7, secret))
    assert labels(tmp_path / "data")[int(code)] == (1.0, LATER * SECOND)
