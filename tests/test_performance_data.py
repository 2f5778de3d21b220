"""The benchmarks of DIN and of loaders: their quick forms run, and what they draw is what they say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "performance")]

import din  # noqa: E402
import loader  # noqa: E402
import measured  # noqa: E402


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
