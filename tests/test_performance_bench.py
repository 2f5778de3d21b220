"""The performance suite: its quick forms run, its arithmetic is right, and its page is that of the stored runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "benchmarks" / "performance"
sys.path[:0] = [str(ROOT / "benchmarks"), str(SUITE)]

import beyond_memory  # noqa: E402
import contenders  # noqa: E402
import dcnv2_training  # noqa: E402
import measured  # noqa: E402
import plot_curves  # noqa: E402
import render  # noqa: E402
import table_step  # noqa: E402
import workload  # noqa: E402

from fullrank.cli import main  # noqa: E402
from fullrank.commands import bench  # noqa: E402


def test_the_page_is_that_of_the_stored_figures() -> None:
    assert render.PERFORMANCE_PAGE.read_text(encoding="utf-8") == render.performance(), (
        "run: python benchmarks/render.py"
    )


def test_every_figure_can_be_judged() -> None:
    for path in render.PERFORMANCE.glob("*.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert stored["label"] == path.stem
        for figure in stored["figures"]:
            assert set(figure) >= {"label", "ours", "theirs", "ratio", "threshold", "ok", "runs", "versions", "command"}
            assert figure["ours"] == figure["runs"]["ours"]["median"], figure["label"]
            sign, _, target = figure["threshold"].partition(" ")
            better = figure["ratio"] <= float(target) if sign == "<=" else figure["ratio"] >= float(target)
            assert figure["ok"] == better, figure["label"]
            assert set(figure["machine"]) >= {"cpu", "flags", "threads", "load", "huge_pages"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the quick form of a benchmark here, and its contenders where they run: in processes of their own."""

    def run(benchmark: ModuleType, *words: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [benchmark.__file__, "--quick", "--out", str(tmp_path), *words])
        with pytest.raises(SystemExit) as ended:
            benchmark.main()
        assert ended.value.code == 0
        stored = json.loads((tmp_path / f"{benchmark.__name__}.json").read_text(encoding="utf-8"))
        assert stored["label"] == benchmark.__name__
        return stored

    return run


def test_the_quick_table_step_times_ours_torchs_and_the_bytes(quick: Callable[..., dict[str, Any]]) -> None:
    figures = {figure["label"]: figure for figure in quick(table_step, "--without-peers")["figures"]}
    assert len(figures) == 2 * 3
    for kind in ("zipf", "uniform"):
        adam = figures[f"table step, {kind}: SparseAdam"]
        assert adam["runs"]["ours"]["n"] == 1
        assert min(adam["runs"][part]["low"] for part in ("our look-up", "our merge", "our apply")) > 0
        assert adam["ratio"] == pytest.approx(adam["theirs"] / adam["ours"], rel=1e-2)
        least = figures[f"table step, {kind}: counted bytes by the bandwidth of a copy"]
        assert least["ratio"] == pytest.approx(least["ours"] / least["theirs"], rel=1e-2)


def test_the_quick_tables_on_disk_are_written_as_they_change(quick: Callable[..., dict[str, Any]]) -> None:
    stored = quick(beyond_memory)
    assert [figure["label"].split(",")[1] for figure in stored["figures"]] == [" fp32", " bf16"]
    (rows,) = stored["tables"].values()
    for row in rows:
        assert row["steps"] == 4 and 1 <= row["checkpoints"] <= 4  # the first round's steps are counted too
        assert row["written_mib a step"] > 0
    assert not list(beyond_memory.GROUPS.rglob(f"fullrank-{os.getpid()}"))


def test_the_quick_training_profiles_our_step(quick: Callable[..., dict[str, Any]]) -> None:
    stored = quick(dcnv2_training, "--against")
    (profiles,) = [found for key, found in stored.items() if key.startswith("profile of")]
    assert list(profiles) == ["fp32", "bf16"]
    products = ("aten::mm", "aten::addmm", "aten::mkldnn_linear")  # which is used depends on the machine's torch
    assert any(line["operation"].startswith(products) for line in profiles["bf16"])


def test_who_works_meanwhile_is_counted() -> None:
    timed = contenders.Timed(
        cast(Any, SimpleNamespace(others=[0.1, 0.9, 0.2], peak_mib=100.4)), "fp32", [0.5, 0.25, 1.0]
    )
    run = measured.per_second(100, timed)
    assert run == measured.Run(median=200.0, low=100.0, high=400.0, n=3, peak_mib=100, others=0.2)


def run_of(value: float) -> measured.Run:
    return measured.Run(median=value, low=value, high=value, n=1)


@pytest.mark.parametrize(
    ("unit", "at_most", "ours", "theirs", "ratio", "ok"),
    [
        ("ms", False, 2.0, 10.0, 5.0, True),
        ("ms", False, 10.0, 2.0, 0.2, False),
        ("rows/s", False, 10.0, 2.0, 5.0, True),
        ("rows/s", False, 2.0, 10.0, 0.2, False),
        ("ms", True, 2.0, 10.0, 0.2, True),
        ("ms", True, 10.0, 2.0, 5.0, False),
    ],
)
def test_a_ratio_says_how_much_better_or_how_much_it_costs(
    unit: Literal["ms", "rows/s"], at_most: bool, ours: float, theirs: float, ratio: float, ok: bool
) -> None:
    figure = measured.Figure(
        label="x",
        unit=unit,
        ours=run_of(ours),
        theirs=run_of(theirs),
        target=3.0,
        at_most=at_most,
    )
    assert (figure.ratio, figure.ratio_of_best, figure.ok) == (ratio, ratio, ok)


def test_a_figure_measured_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    def figure(label: str, ours: float) -> measured.Figure:
        return measured.Figure(label=label, unit="ms", ours=run_of(ours), theirs=run_of(1.0), target=1.0)

    on = {"cpu": "x"}
    measured.keep("name", [figure("a", 1.0), figure("b", 2.0)], on, tmp_path)
    path = measured.keep("name", [figure("a", 3.0), figure("c", 4.0)], on, tmp_path)
    stored = json.loads(path.read_text(encoding="utf-8"))["figures"]
    assert [(one["label"], one["ours"]) for one in stored] == [("a", 3.0), ("b", 2.0), ("c", 4.0)]


def test_ids_follow_their_law() -> None:
    sizes = workload.Sizes(features=2, rows_of_a_feature=1000, batch=5000, steps=4)
    for kind in ("zipf", "uniform"):
        ids_SBF = workload.ids(sizes, kind, np.random.default_rng(1))
        assert ids_SBF.shape == (4, 5000, 2) and ids_SBF.min() >= 1 and ids_SBF.max() <= 999
        share = np.bincount(ids_SBF.ravel(), minlength=1000)[1:] / ids_SBF.size
        law = np.arange(1, 1000.0) ** (-1.05 if kind == "zipf" else 0)
        assert np.abs(share - law / law.sum()).max() < 0.005


def test_least_bytes_counts_a_row_once_a_step() -> None:
    ids_SBF = np.array([[[1, 1], [1, 2], [3, 2]]], dtype=np.int32)  # rows {1, 3} of one table, {1, 2} of the other
    assert table_step.least_bytes(ids_SBF, width=4) == 6 * (8 + 16) + 4 * 2 * 4 * 5


def test_lines_are_in_the_order_of_what_changes() -> None:
    points = [
        {"name": name, "value": value, "median": value * 2.0, "low": 1.0, "high": 9.0, "peak_mib": 5.0}
        for value in (4, 2)
        for name in ("ours, fp32", "by hand, fp32")
    ]
    first, second = plot_curves.compute_lines(points)
    assert (first.name, first.x, first.median) == ("ours, fp32", [2, 4], [4.0, 8.0])
    assert second.name == "by hand, fp32"


def test_bench_says_that_it_needs_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench.find_suite() == SUITE / "suite.py"
    monkeypatch.setattr(bench.fullrank, "__file__", str(tmp_path / "a" / "b" / "fullrank" / "__init__.py"))
    assert main(["bench", "--quick"]) == 2
    assert "Expected a checkout with benchmarks/performance/suite.py" in capsys.readouterr().err


def test_bench_refuses_what_it_does_not_know(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "tabel_step"]) == 2
    assert "got 'tabel_step'" in capfd.readouterr().err
