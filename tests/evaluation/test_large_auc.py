import errno
import io
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.evaluation import large_auc
from fullrank.evaluation.auc import auc, auc_per_user
from fullrank.evaluation.large_auc import auc_of_chunks, auc_per_user_of_chunks, in_chunks

score = st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 0.5, 0.5000001, 3.0, np.inf])
logs = st.lists(st.tuples(st.booleans(), score, st.sampled_from([-4, 0, 1, 2, 2**62])), max_size=60)


def columns(log, dtype=np.float32):
    labels, scores, users = zip(*log, strict=True) if log else ((), (), ())
    return np.array(labels, np.float32), np.array(scores, dtype), np.array(users, np.int64)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=60, deadline=None)
@given(logs, st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 20), st.integers(1, 30))
def test_the_same_number_as_in_memory_whatever_the_cuts(scratch, log, dtype, chunk, segment):
    labels, scores, _ = columns(log, dtype)
    got = auc_of_chunks(in_chunks(labels, scores, rows=chunk), scratch, segment_rows=segment)
    np.testing.assert_equal(got, auc(labels, scores))  # bit-identical


@settings(max_examples=20, deadline=None)
@given(logs, st.integers(1, 20), st.integers(5, 30), st.sampled_from(["impressions", "equal", "positives"]))
def test_the_same_per_user_as_in_memory_whatever_the_cuts(scratch, log, chunk, segment, weighting):
    labels, scores, users = columns(log)
    rows = in_chunks(labels, scores, users, rows=chunk)
    got = auc_per_user_of_chunks(rows, scratch, weighting, segment_rows=segment)
    expected = auc_per_user(labels, scores, users, weighting)
    assert (got.users, got.skipped) == (expected.users, expected.skipped)
    np.testing.assert_allclose(got.value, expected.value, rtol=1e-14)


@pytest.mark.parametrize("case", ["spread", "narrow", "ties", "one_value", "sorted", "rare"])
def test_many_rows_however_scores_are_distributed(tmp_path, case, monkeypatch):
    random = np.random.default_rng(0)
    scores = random.normal(size=60_000)
    if case == "narrow":
        scores = 1 + scores * 1e-5  # almost all bits of the scores agree
    elif case == "ties":
        scores = np.round(scores)
    elif case == "one_value":
        scores[random.random(60_000) < 0.9] = 0.25
    elif case == "sorted":
        scores = np.sort(scores)
    scores = scores.astype(np.float32)
    labels = random.random(60_000) < (0.0005 if case == "rare" else 0.3)
    users = random.integers(0, 3000, 60_000).astype(np.uint64)
    largest, sort_of = [0], large_auc.twice_won

    def watched(positive, negative):
        largest[0] = max(largest[0], len(positive) + len(negative))
        return sort_of(positive, negative)

    monkeypatch.setattr(large_auc, "twice_won", watched)
    rows = in_chunks(labels, scores, rows=777)
    assert auc_of_chunks(rows, tmp_path, segment_rows=4096) == auc(labels, scores)
    assert 0 < largest[0] < 2 * 4096  # the bound on what is in memory at once
    got = auc_per_user_of_chunks(in_chunks(labels, scores, users, rows=777), tmp_path, segment_rows=4096)
    expected = auc_per_user(labels, scores, users)
    assert (got.users, got.skipped) == (expected.users, expected.skipped)
    assert got.value == pytest.approx(expected.value, rel=1e-14)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_rows(tmp_path):
    def rows(count):
        random = np.random.default_rng(0)
        for _ in range(count):
            yield random.random(4096) < 0.3, random.normal(size=4096).astype(np.float32), random.integers(0, 900, 4096)

    def peak(function, count, columns):
        tracemalloc.start()
        function((chunk[:columns] for chunk in rows(count)), tmp_path, segment_rows=16384)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    for function, columns in ((auc_of_chunks, 2), (auc_per_user_of_chunks, 3)):
        peak(function, 1, columns)  # what is allocated once and kept
        few, many = peak(function, 20, columns), peak(function, 60, columns)
        assert many < few + 40 * 4096 * 2, function  # 2 bytes a row more: the scores alone have 4


def test_memory_mapped_files(tmp_path):
    random = np.random.default_rng(2)
    columns = {"labels": random.random(1000) < 0.4, "scores": random.normal(size=1000), "users": np.arange(1000) % 50}
    for name, column in columns.items():
        np.save(tmp_path / f"{name}.npy", column)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in columns]
    assert auc_of_chunks(in_chunks(*mapped[:2], rows=64), tmp_path) == auc(*list(columns.values())[:2])
    got = auc_per_user_of_chunks(in_chunks(*mapped, rows=64), tmp_path)
    assert vars(got) == pytest.approx(vars(auc_per_user(*columns.values())))


def test_users_that_count_up_fill_all_buckets_alike():
    for users in (np.arange(100_000), np.arange(100_000) * 1024, -np.arange(100_000)):
        counts = np.bincount(large_auc._bucket(users), minlength=256)
        assert counts.min() > 0.7 * 100_000 / 256 and counts.max() < 1.4 * 100_000 / 256


def failing(after):
    for _ in range(after):
        yield np.array([0, 1]), np.array([0.0, 1.0]), np.array([1, 1])
    raise KeyError("broken log")


def test_files_are_removed_when_the_rows_fail(tmp_path):
    with pytest.raises(KeyError, match="broken log"):
        auc_per_user_of_chunks(failing(9), tmp_path, segment_rows=4)
    with pytest.raises(KeyError, match="broken log"):
        auc_of_chunks(((labels, scores) for labels, scores, _ in failing(9)), tmp_path, segment_rows=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_named_and_left_clean(tmp_path, monkeypatch, code):
    class Full(io.FileIO):
        written = 0

        def write(self, data):
            Full.written += len(data)
            if Full.written > 50:
                raise OSError(code, "from the file system")
            return super().write(data)

    monkeypatch.setattr(large_auc, "open", Full, raising=False)
    rows = in_chunks(np.tile([0, 1], 100), np.arange(200.0), rows=7)
    message = rf"room for sorted rows in {re.escape(str(tmp_path))}, it was full after .* 4 bytes a row for the AUC"
    with pytest.raises(OSError, match=message if code == errno.ENOSPC else "from the file system") as caught:
        auc_of_chunks(rows, tmp_path, segment_rows=20)
    assert caught.value.errno == code
    assert list(tmp_path.iterdir()) == []


LISTS: Any = [([1, 0], [0.5])]
WRONG: Any = "clicks"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(np.array([0, 1]), np.zeros(2)), (np.array([0]), np.zeros(1, np.float32))], r"float64'\], then \['float32"),
        ([(np.array([0, 1]), np.zeros(3))], r"one length in a chunk, got shapes \[\(2,\), \(3,\)\]"),
        (
            [(np.array([0, 1, 0]), np.zeros(3)), (np.array([0, 5]), np.zeros(2))],
            "Rows counted from row 4 of all chunks: Expected labels 0 or 1, got 5 in row 0",
        ),
        (LISTS, r"got shapes \[\(2,\), \(1,\)\]"),
    ],
)
def test_bad_chunks_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        auc_of_chunks(rows, tmp_path, segment_rows=2)
    assert list(tmp_path.iterdir()) == []


def test_what_else_can_be_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="existing scratch folder, got '"):
        auc_of_chunks([], tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"columns of one length, got \[2, 3\]"):
        list(in_chunks(np.zeros(2), np.zeros(3)))
    with pytest.raises(ValueError, match="Expected integer user codes, got float64"):
        auc_per_user_of_chunks([(np.zeros(2), np.zeros(2), np.zeros(2))], tmp_path)
    with pytest.raises(ValueError, match="'positives', got 'clicks'"):
        auc_per_user_of_chunks([], tmp_path, WRONG)
