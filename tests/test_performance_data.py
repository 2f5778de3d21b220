"""The benchmarks of DIN, of loaders and of preparing: their quick forms run, and what they draw is what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "performance")]

import din  # noqa: E402
import loader  # noqa: E402
import measured  # noqa: E402
import prepare  # noqa: E402
import prepare_log  # noqa: E402
import prepare_peak  # noqa: E402


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the quick form of a benchmark here, and its contenders where they run: in processes of their own."""

    def run(benchmark: ModuleType, *words: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [benchmark.__file__, "--quick", "--out", str(tmp_path), *words])
        with pytest.raises(SystemExit) as ended:
            benchmark.main()
        assert ended.value.code == 0
        return json.loads((tmp_path / f"{benchmark.__name__}.json").read_text(encoding="utf-8"))

    return run


def test_quick_din_is_held_against_padding_in_each_dtype(quick: Callable[..., dict[str, Any]]) -> None:
    stored = quick(din, "--without-peers")
    figures = {figure["label"]: figure for figure in stored["figures"]}
    names = ["DIN, fp32: torch by hand", "DIN, bf16: torch by hand", "DIN, fp32: our kernels in plain torch"]
    assert list(figures) == names
    for figure in figures.values():
        assert figure["ratio"] == pytest.approx(figure["ours"] / figure["theirs"], rel=1e-2)
    (lines,) = stored["tables"].values()
    assert [(line["dtype"], line["ours, rows/s"]) for line in lines] == [
        (dtype, figures[f"DIN, {dtype}: torch by hand"]["ours"]) for dtype in ("fp32", "bf16")
    ]


def test_histories_are_ragged_and_within_their_limit(tmp_path: Path) -> None:
    histories = din.Histories(rows=2000, steps=2, longest=200)
    folder = din.write(histories, tmp_path / "work")
    lengths_SB, events_E = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("lengths", "events"))
    assert lengths_SB.shape == (2, 2000) and lengths_SB.max() == 200
    assert np.median(lengths_SB) == pytest.approx(histories.median, abs=2)
    assert len(events_E) == lengths_SB.sum() and events_E.min() >= 1 and events_E.max() < histories.items
    assert events_E.dtype == np.int64  # as a loader gives them


def test_the_quick_loader_meets_pyarrow_in_both_orders(quick: Callable[..., dict[str, Any]]) -> None:
    stored = quick(loader, "--without-peers")
    labels = [figure["label"] for figure in stored["figures"]]
    assert labels == ["loader, in order: pyarrow, Parquet", "loader, shuffled: pyarrow, Parquet, in order"]
    in_order, shuffled = stored["figures"]
    assert in_order["theirs"] == shuffled["theirs"] and in_order["runs"]["ours"] != shuffled["runs"]["ours"]
    (delivered,) = stored["checks"]
    assert delivered["value"] == shuffled["ours"] and delivered["threshold"] == ">= 2e+06"
    ((line,),) = stored["tables"].values()
    assert line["same block"] == 1  # 3,000 rows are one block
    assert line["displacement"] == pytest.approx(1 / 3, abs=0.02)


def run_of(value: float) -> measured.Run:
    return measured.run_of([value])


def test_like_is_held_against_like() -> None:
    modes = [*loader.PYARROW, *(mode for modes in loader.LIBRARIES for mode in modes)]
    runs = {mode: run_of(1.0) for mode in modes} | {"in order": run_of(3.0), "shuffled": run_of(2.0)}
    figures = loader.figures({**runs, "histories": run_of(5.0)}, {})
    for figure in figures:
        shuffled = figure.label.startswith("loader, shuffled")
        assert figure.ratio == (2.0 if shuffled else 3.0), figure.label
        assert figure.target == (1.5 if "pyarrow" in figure.label else 20.0), figure.label
        assert "pyarrow" in figure.label or not figure.label.endswith(("shuffled", "in order")), figure.label
    assert len(figures) == len(modes) + 1


def test_a_step_that_is_not_a_whole_epoch_counts_its_own_rows() -> None:
    sizes = loader.Sizes(rows=10_000, batch=100, part=3)
    assert sizes.rows_of("shuffled") == sizes.rows_of("fuxictr, Parquet, shuffled") == 10_000
    assert sizes.rows_of("torch-rechub, arrays, shuffled") == 300
    assert sizes.rows_of("histories") == 5_000


def test_quick_preparing_says_what_it_took(quick: Callable[..., dict[str, Any]]) -> None:
    stored = quick(prepare, "--without-peers")
    assert stored["figures"] == []
    ((line,),) = stored["tables"].values()
    assert line["who"] == "ours" and line["rows"] == 5_000
    assert line["seconds"] > 0 and line["peak MiB"] > 50


def test_the_log_is_written_in_parts_and_is_as_its_schema_says(tmp_path: Path) -> None:
    counts = prepare_log.write(tmp_path, rows=1_000, part_rows=300)
    assert counts == {"train": 800, "valid": 100, "test": 100}
    parts = sorted(tmp_path.rglob("*.parquet"))
    assert [part.stem for part in parts] == ["test-000", "train-000", "train-001", "train-002", "valid-000"]
    assert [pq.read_metadata(part).num_rows for part in parts] == [100, 300, 300, 200, 100]
    table = pa.concat_tables(pq.read_table(tmp_path / split) for split in counts)
    table.validate(full=True)
    schema = prepare_log.schema(min_count=10)
    wanted = {feature.column for feature in schema.all_features()} | {"click", schema.roles.time}
    assert set(table.column_names) == wanted
    assert table["time"].to_pylist() == [1_600_000_000 + row // 100 for row in range(1_000)]
    assert {len(text) for text in table["C3"].drop_null().to_pylist()} == {8}


def test_texts_of_a_column_are_as_many_as_its_ranks() -> None:
    ranks = np.arange(1, 100_001, dtype=np.uint32)
    there = ranks % 7 > 0
    texts = prepare_log.texts(ranks, 3, there)
    assert texts.null_count == (~there).sum() and len(texts.unique().drop_null()) == there.sum()
    number = int.from_bytes(bytes.fromhex(texts[0].as_py()), sys.byteorder)
    assert number == (2_654_435_761 + 3) % 2**32


def test_ranks_follow_their_law() -> None:
    ranks = prepare_log.zipf(50, 400_000, np.random.default_rng(0))
    assert ranks.min() == 1 and ranks.max() == 50
    edges = np.arange(1, 52.0) ** (1 - prepare_log.ZIPF)
    law = np.diff(edges) / (edges[-1] - edges[0])
    assert np.abs(np.bincount(ranks, minlength=51)[1:] / len(ranks) - law).max() < 0.004


def test_who_admits_other_keys_is_told_apart(tmp_path: Path) -> None:
    of_all = dict.fromkeys(prepare_log.CATEGORIES, 5)
    (tmp_path / "ours.json").write_text(json.dumps({"new_keys": of_all}))
    (tmp_path / "fuxictr").mkdir()
    described: list[dict[str, Any]] = [{name: {"vocab_size": 7}} for name in of_all]
    described.append({"I1": {"type": "numeric"}})
    path = tmp_path / "fuxictr" / "feature_map.json"
    path.write_text(json.dumps({"features": described}))
    prepare.check_keys(tmp_path, "fuxictr")
    described[2]["C3"]["vocab_size"] = 8
    path.write_text(json.dumps({"features": described}))
    with pytest.raises(SystemExit, match=r"fuxictr, got \(ours, theirs\) \{'C3': \(5, 6\)\}"):
        prepare.check_keys(tmp_path, "fuxictr")


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells what a process holds")
def test_the_memory_of_a_process_counts_what_it_started() -> None:
    hold = "x = bytearray(b'1') * (100 << 20); print(flush=True); input()"
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    process = subprocess.Popen(
        [sys.executable, "-c", start, hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    with prepare_peak.peak_of_tree(process.pid) as peak:
        process.stdout.readline()  # it holds them
    process.communicate("\n")
    assert peak.mib is not None and 100 < peak.mib < 200
