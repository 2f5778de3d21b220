"""Folders of prepared data: equal bytes for equal input, all or nothing, and refusals that say what to do."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from prepared_log import BY_TIME, SMALL, folder_hash, prepared
from small_log import SCHEMA, Memory, rows

from fullrank.data.columns import DataError
from fullrank.data.commit import LOCK, undertaking
from fullrank.data.manifest import FORMAT, MANIFEST, Manifest, NotPrepared
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import PrepareReport, prepare
from fullrank.data.splits import AllTrain, ByTime
from fullrank.kernels.bodies import Bodies, bodies


def test_equal_input_gives_equal_bytes_wherever_it_lies_and_however_it_is_cut(tmp_path: Path) -> None:
    for name, chunk_rows, budget in (("a", 9, SMALL), ("b/c", 500, replace(SMALL, keys=100_000))):
        prepare(Memory(rows(), chunk_rows=chunk_rows), tmp_path / name, split=BY_TIME, budget=budget)
        prepare(Memory(rows(1, start=1_005_000)), tmp_path / name, append=True, budget=budget)
    assert folder_hash(tmp_path / "a") == folder_hash(tmp_path / "b/c")
    assert str(tmp_path) not in (tmp_path / "a" / MANIFEST).read_text()


@pytest.mark.parametrize("hash_key", [None, b"0123456789abcdef"])
def test_threads_and_compiled_bodies_change_no_byte(
    hash_key: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: tuple[tuple[str, Bodies], ...] = (("1", "reference"), ("3", "compiled"))
    for threads, which in runs:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        with bodies(which):
            prepare(Memory(rows(), chunk_rows=40), tmp_path / which, split=BY_TIME, budget=SMALL, hash_key=hash_key)
            day2 = Memory(rows(1, start=1_005_000), chunk_rows=40)
            prepare(day2, tmp_path / which, append=True, budget=SMALL, hash_key=hash_key)
    assert folder_hash(tmp_path / "reference") == folder_hash(tmp_path / "compiled")


def test_the_same_input_again_changes_nothing_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "data"
    first = prepare(Memory(rows()), out, split=BY_TIME)
    before = folder_hash(out)
    again = prepare(Memory(rows()), out, split=BY_TIME)
    assert not again.is_new and again.partition == first.partition and "Nothing to do" in str(again)
    day2 = Memory(rows(1, start=1_005_000))
    assert prepare(day2, out, append=True).is_new
    appended = folder_hash(out)
    assert before.items() - appended.items() == {(MANIFEST, before[MANIFEST])}
    assert not prepare(day2, out, append=True).is_new
    assert folder_hash(out) == appended


def test_other_input_or_options_say_what_to_do(tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(Memory(rows()), out, split=BY_TIME)
    with pytest.raises(DataError, match=r"this is another input\. To add it as one more partition, append"):
        prepare(Memory(rows(1)), out, split=BY_TIME)
    with pytest.raises(DataError, match="the same input with other options"):
        prepare(Memory(rows()), out, split=AllTrain())
    logs = tuple(replace(f, scale="log") if f.name == "hour" else f for f in SCHEMA.features)
    other = replace(SCHEMA, features=logs)
    with pytest.raises(DataError, match=r'\+scale = "log"'):
        prepare(Memory(rows(1), schema=other), out, append=True)
    with pytest.raises(DataError, match="found none: prepare it first"):
        prepare(Memory(rows()), tmp_path / "new", append=True)
    with pytest.raises(DataError, match="Expected a split, got none"):
        prepare(Memory(rows()), tmp_path / "new")
    with pytest.raises(NotPrepared, match="is not prepared"):
        PreparedData.open(tmp_path / "new")


def test_a_broken_promise_of_order_is_found_between_chunks(tmp_path: Path) -> None:
    table = rows().sort_by("ts")
    schema = replace(SCHEMA, time_sorted=True)
    prepared(tmp_path, Memory(table, schema=schema))
    broken = pa.concat_tables([table.slice(50, 50), table.slice(0, 50)])
    with pytest.raises(DataError, match=r"memory.parquet: row 51, column 'ts': expected a time not before"):
        prepare(Memory(broken, schema=schema), tmp_path / "broken", split=BY_TIME)


def test_no_rows_and_no_training_rows_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected rows in memory, got none"):
        prepare(Memory(rows().slice(0, 0)), tmp_path / "none", split=BY_TIME)
    with pytest.raises(DataError, match="Expected training rows, got none"):
        prepare(Memory(rows()), tmp_path / "none", split=ByTime(valid="1970-01-01", test="1970-01-01"))
    assert [path.name for path in (tmp_path / "none").iterdir()] == [LOCK]


def test_a_bad_record_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(Memory(rows()), out, split=BY_TIME)
    before = folder_hash(out)
    bad = rows(1, start=1_005_000)
    labels = bad["clicked"].cast(pa.int64()).to_pylist()
    labels[77] = 7
    bad = bad.set_column(bad.schema.get_field_index("clicked"), "clicked", pa.array(labels))
    with pytest.raises(DataError, match=r"memory\.parquet: row 78, column 'clicked'"):
        prepare(Memory(bad), out, append=True)
    assert folder_hash(out) == before


def test_hashed_keys_leave_no_raw_key_and_need_the_same_secret(tmp_path: Path) -> None:
    out, secret = tmp_path / "data", b"0123456789abcdef"
    table = rows()
    users = pa.array([f"someone-{u}@example.org" if u else None for u in table["user_id"].to_pylist()])
    table = table.set_column(0, "user_id", users)
    prepare(Memory(table), out, split=BY_TIME, hash_key=secret)
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"example.org" not in everything and b"someone-" not in everything and secret not in everything
    day2 = Memory(rows(1, start=1_005_000))
    with pytest.raises(DataError, match="got none: its keys are hashed"):
        prepare(day2, out, append=True)
    with pytest.raises(DataError, match="got another"):
        prepare(day2, out, append=True, hash_key=b"0123456789abcdeX")
    assert prepare(day2, out, append=True, hash_key=secret).is_new
    prepare(Memory(rows()), tmp_path / "plain", split=BY_TIME)
    with pytest.raises(DataError, match="not hashed"):
        prepare(day2, tmp_path / "plain", append=True, hash_key=secret)


def test_a_folder_of_someone_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "partitions").mkdir()
    (tmp_path / "partitions" / "mine.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="it holds partitions"):
        prepare(Memory(rows()), tmp_path, split=BY_TIME)
    assert (tmp_path / "partitions" / "mine.npy").read_bytes() == b"x"


def test_garbage_of_ours_goes_and_a_note_of_yours_stays(tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(Memory(rows()), out, split=BY_TIME)
    before = folder_hash(out)
    for name in (
        "partitions/0001-deadbeef/train/rows.arrow",
        "ids/user/001-1.arrow",
        "items/.001.arrow.7",
        ".work/x",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"half")
    (out / "notes.txt").write_text("mine")
    prepare(Memory(rows()), out, split=BY_TIME)
    (out / "notes.txt").unlink()
    assert folder_hash(out) == before and not (out / "partitions" / "0001-deadbeef").exists()


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    with undertaking(tmp_path / "data"), pytest.raises(DataError, match="Someone else is writing"):
        prepare(Memory(rows()), tmp_path / "data", split=BY_TIME)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    data = prepared(tmp_path, Memory(rows()))
    path = next((data.folder / "partitions").rglob("train/rows.arrow"))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"train/rows\.arrow to have \d+ bytes, it has"):
        PreparedData.open(data.folder)
    path.unlink()
    with pytest.raises(DataError, match="it is missing"):
        PreparedData.open(data.folder)
    manifest = (data.folder / MANIFEST).read_text()
    (data.folder / MANIFEST).write_text(manifest.replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(DataError, match=f"format 99; this version of fullrank reads format {FORMAT}"):
        Manifest.load(data.folder)
    (data.folder / MANIFEST).write_text(manifest[: len(manifest) // 2])
    with pytest.raises(DataError, match="is not a manifest"):
        Manifest.load(data.folder)


@pytest.fixture
def small_files() -> Iterator[None]:
    """A limit on the size of a file stands in for a full disk: writes fail the same way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [64, 1_000, 9_000, 30_000])
@pytest.mark.usefixtures("small_files")
def test_a_full_disk_leaves_nothing_half_made_and_says_so(tmp_path: Path, limit: int) -> None:
    out = tmp_path / "data"
    prepare(Memory(rows()), out, split=BY_TIME)
    before = folder_hash(out)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DataError, match="No space left while writing to"):
            prepare(Memory(rows(1, requests=1000, start=1_005_000)), out, append=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert folder_hash(out) == before


def test_reports_say_what_happened() -> None:
    report = PrepareReport(
        folder=Path("data"),
        partition="0000-ab",
        is_new=True,
        rows={"train": 3},
        requests={"train": 2},
        events={"clicks": 5},
        new_keys={"user": 7},
    )
    assert "train: 3 rows in 2 requests" in str(report) and "history clicks: 5 events" in str(report)
    assert "key space user: 7 new keys" in str(report)


def test_progress_names_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(Memory(rows()), tmp_path / "quiet", split=BY_TIME)
    assert capsys.readouterr().err == ""
    prepare(Memory(rows()), tmp_path / "data", split=BY_TIME, progress=True)
    shown = capsys.readouterr().err
    assert all(stage in shown for stage in ("read:", "group by user: 100%", "fit:", "encode: 100%"))
