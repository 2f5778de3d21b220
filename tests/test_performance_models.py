"""The benchmarks of dense steps, scoring, finding the best, learning and growth: their quick forms run, their sums are
right."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "performance")]

import backbones  # noqa: E402
import curves  # noqa: E402
import dense_step  # noqa: E402
import measured  # noqa: E402
import plot_curves  # noqa: E402
import render  # noqa: E402
import same_quality  # noqa: E402
import scoring  # noqa: E402
import simulated_rows  # noqa: E402
import streams  # noqa: E402
import suite  # noqa: E402
import time_to_auc  # noqa: E402
import top_k  # noqa: E402

from fullrank.evaluation.paired import PairedDifference  # noqa: E402

Quick = Callable[..., dict[str, Any]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quick:
    """Runs the quick form of a benchmark here, and its contenders where they run: in processes of their own."""

    def run(benchmark: ModuleType, *words: str) -> dict[str, Any]:
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # who waits in a circle takes the cores of other tests
        monkeypatch.setattr(sys, "argv", [benchmark.__file__, "--quick", "--out", str(tmp_path), *words])
        try:
            benchmark.main()
        except SystemExit as ended:
            assert ended.code == 0
        return json.loads((tmp_path / f"{benchmark.__name__}.json").read_text(encoding="utf-8"))

    return run


def labelled(stored: dict[str, Any], kind: str = "figures") -> dict[str, dict[str, Any]]:
    return {one["label"]: one for one in stored[kind]}


def test_the_quick_dense_step_holds_both_dtypes_against_their_products(quick: Quick) -> None:
    stored = quick(dense_step)
    figures = labelled(stored)
    for dtype in ("fp32", "bf16"):
        figure = figures[f"RankMixer step, 64 rows, {dtype}: products"]
        assert figure["threshold"] == "<= 1.6" and figure["ratio"] == pytest.approx(
            figure["ours"] / figure["theirs"], rel=1e-2
        )
    mfu = figures["RankMixer step, 64 rows, bf16: the peak of products (the ratio is the MFU)"]
    # 2 (multiply, add) · 2 products · forward and twice backward: 3 · 4 k L T D² a row
    flops = 3 * 4 * 2 * 2 * 4 * 64**2 * 64
    step = figures["RankMixer step, 64 rows, bf16: products"]
    assert mfu["ours"] == pytest.approx(flops / (step["ours"] * 1e-3) / 1e9, rel=1e-3)
    assert mfu["ratio"] == pytest.approx(mfu["ours"] / mfu["theirs"], rel=1e-2)
    steps, ways = stored["tables"].values()
    assert [row["what"] for row in steps if row["dtype"] == "bf16"] == ["ours", "eager", "products"]
    assert len(ways) == 6 and all(" ms, " in row[dtype] for row in ways for dtype in ("fp32", "bf16"))
    assert set(stored["profile of 64 rows"]) == {"fp32", "bf16"}


def test_the_fastest_way_of_each_product_is_taken() -> None:
    seconds = {"fp32, x W1, batched": 3.0, "fp32, x W1, a product a token": 2.0, "bf16, x W1, batched": 1.0}
    ways, shown = dense_step.fastest(seconds)
    assert ways == {"fp32": {"x W1": "a product a token"}, "bf16": {"x W1": "batched"}}
    (row,) = shown
    assert row == {"product": "x W1", "fp32": "2000.0 ms, a product a token", "bf16": "1000.0 ms, batched"}


def test_the_quick_scoring_has_its_percentiles_and_compares_every_score(quick: Quick) -> None:
    stored = quick(scoring)
    figures, checks = labelled(stored), labelled(stored, "checks")
    for precision, limit in (("float32", 20.0), ("bfloat16", 5.0)):
        p50 = figures[f"scoring 1 × 40, {precision}: the limit of p50"]
        p99 = figures[f"scoring 1 × 40, {precision}: p99 beside p50"]
        assert p50["theirs"] == limit and set(p50["runs"]) > {"products alone", "the ranker called plainly"}
        assert p99["theirs"] == p50["ours"] and p50["runs"]["ours"]["low"] <= p99["ours"] <= p50["runs"]["ours"]["high"]
    assert checks["first weights, 1 × 40, float32: largest change of a logit"]["ok"]
    assert 0 < checks["trained, 5 × 40, bfloat16: largest change of a logit"]["value"] < 0.1
    assert 0.5 <= checks["trained, bfloat16: overlap of the 10 best"]["value"] <= 1.0
    assert "trained, bfloat16: change of AUC" in checks


def test_the_quick_top_k_finds_what_torch_finds(quick: Quick) -> None:
    stored = quick(top_k)
    assert [figure["label"].partition("queries, ")[2] for figure in stored["figures"]] == [
        "1 thread: torch.topk",
        "2 threads: torch.topk",
    ]
    (check,) = stored["checks"]
    assert check["ok"] and check["value"] < 1e-4


def test_the_quick_time_to_auc_has_ours_beside_by_hand(quick: Quick) -> None:
    stored = quick(time_to_auc, "--against", "by-hand")
    assert [figure["label"].partition(", ")[2] for figure in stored["figures"]] == ["fp32: by hand", "bf16: by hand"]
    spread, looked = stored["tables"].values()
    assert [line["learner"] for line in spread] == ["ours fp32", "ours bf16", "by hand fp32", "by hand bf16"]
    assert len(looked) == 2 and all("row-wise Adagrad, not merged" in line["optimizer"] for line in looked)
    (ways,) = stored["ways"]
    for way in ways.values():
        assert way["seconds"][0] == 0 and (np.diff(way["seconds"]) > 0).all()
        assert len(way["auc"]) == len(way["seconds"]) and all(0.3 < auc < 0.9 for auc in way["auc"])


def test_a_time_lies_between_two_validations_in_proportion() -> None:
    learner = time_to_auc.Learner(cast(Any, SimpleNamespace()), Path("."), [0.0, 4.0, 8.0], [0.5, 0.6, 0.7], 20, True)
    assert learner.time(0.65) == pytest.approx(6.0)
    learner.reached = False
    assert learner.time(0.9) == 8.0


def test_simulated_rows_are_numbered_by_how_often_they_come(tmp_path: Path) -> None:
    rows = simulated_rows.SimulatedRows(train=6_000, valid=2_000, rows_of_a_feature=300, users=400)
    truth = rows.write(tmp_path / "a")
    ids_NF, valid_VF = (np.load(tmp_path / "a" / f"{name}ids.npy", allow_pickle=False) for name in ("", "valid_"))
    assert ids_NF.shape == (6_000, 39) and valid_VF.shape == (2_000, 39)
    assert ids_NF.min() == 1 and ids_NF.max() == 299
    every_NF = np.concatenate([ids_NF, valid_VF])
    segment = list(simulated_rows.KEYS).index("segment")
    counts = np.bincount(every_NF[:, segment])[1:]
    assert (np.diff(counts) <= 0).all() and counts.sum() == 8_000
    # a cross of two features has a value a pair of theirs
    format_, position = (list(simulated_rows.KEYS).index(name) for name in ("format", "position"))
    cross = 13 + simulated_rows.CROSSES.index(("format", "position"))
    pairs = np.unique(every_NF[:, [format_, position, cross]], axis=0)
    assert len(pairs) == len(np.unique(every_NF[:, [format_, position]], axis=0)) == pairs[:, 2].max()
    labels = np.load(tmp_path / "a" / "valid_labels.npy", allow_pickle=False)
    assert truth.rows == 2_000 and truth.positives == labels.sum() and 0.65 < truth.auc < 0.9


def test_the_quick_curves_have_a_point_a_contender_of_dcnv2_and_of_din(quick: Quick) -> None:
    stored = quick(curves, "--by", "features", "history")
    for by in ("features", "history"):
        lines = plot_curves.compute_lines(stored[by]["points"])
        assert [line.name for line in lines] == ["ours, fp32", "ours, bf16", "by hand, fp32", "by hand, bf16"]
        assert all(line.x == [2] and min(line.low + line.peak_mib) > 0 for line in lines)


def test_the_same_curves_are_drawn_into_the_same_files(tmp_path: Path) -> None:
    names = [f"{who}, {dtype}" for who in ("ours", "by hand") for dtype in ("fp32", "bf16")]
    points = [
        {"name": name, "value": value, "median": 3.0 * value, "low": 2.0, "high": 9.0 + value, "peak_mib": 700.0}
        for value in (1, 2)
        for name in names
    ]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        plot_curves.draw({"threads": {"points": points}, "history": {"points": points}}, tmp_path / folder)
    first, second = (sorted((tmp_path / folder).iterdir()) for folder in ("a", "b"))
    assert [path.name for path in first] == ["step_by_history.svg", "step_by_threads.svg"]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first, second, strict=True))
    assert plot_curves.COLOURS["ours"].lower().encode() in first[0].read_bytes()


def test_the_quick_streams_say_the_same_padded(quick: Quick) -> None:
    stored = quick(streams)
    assert [figure["label"].rpartition(", ")[2] for figure in stored["figures"]] == ["fp32: padded", "bf16: padded"]
    (apart,) = stored["checks"]
    assert apart["ok"] and 0 < apart["value"] < 1e-4  # two ways to add, one result


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's counter of FLOPs
def test_the_quick_backbones_have_rates_in_training_and_scoring(quick: Quick) -> None:
    (lines,) = quick(backbones)["tables"].values()
    assert [line["backbone"] for line in lines][:2] == ["dcnv2", "din"] and len(lines) == 11
    for line in lines:
        for what in ("train", "score"):
            speed = line[f"{what}, MFLOP a row"] * line[f"{what}, rows/s"] / 1e3
            assert line[f"{what}, GFLOP/s"] == pytest.approx(speed, rel=1e-2)


def test_the_quick_same_quality_pairs_both_bodies(quick: Quick) -> None:
    stored = quick(same_quality)
    (check,) = stored["checks"]
    assert check["threshold"] == "<= 0.0005" and "n = 2" in check["note"]
    (lines,) = stored["tables"].values()
    assert [line["seed"] for line in lines] == [0, 1]
    assert all(0.3 < float(line[body]) < 0.9 for line in lines for body in same_quality.BODIES)


def test_a_set_that_is_not_there_is_skipped_aloud(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FULLRANK_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nowhere either"))
    assert same_quality.compared(same_quality.CASES, 2, tmp_path) == ([], {})
    told = capsys.readouterr().err
    assert "SKIPPED: Frappe, DCNv2: " in told and "SKIPPED: MovieLens-1M, DIN: " in told


def test_quality_is_judged_by_the_farther_end_of_the_interval() -> None:
    difference = PairedDifference(n=5, mean=-1e-4, sd=1e-4, low=-6e-4, high=4e-4, verdict="inside the noise")
    check = same_quality.judged(same_quality.CASES[0], difference)
    assert check.value == 6e-4 and not check.ok


def test_the_suite_knows_every_benchmark_and_the_page_tells_of_it() -> None:
    assert set(suite.NAMES) == set(render.ABOUT)
    assert set(suite.WITH_PEERS) <= set(suite.NAMES)
    assert all((ROOT / "benchmarks" / "performance" / f"{name}.py").is_file() for name in suite.NAMES)


@pytest.mark.parametrize(("at_least", "value", "ok"), [(False, 2.0, True), (False, 4.0, False), (True, 2.0, False)])
def test_a_check_is_held_against_its_target(at_least: bool, value: float, ok: bool) -> None:
    check = measured.Check(label="x", value=value, target=3.0, at_least=at_least)
    stored = check.stored("command")
    assert stored["ok"] is ok and stored["threshold"] == (">= 3" if at_least else "<= 3")


def test_checks_and_tables_are_kept_beside_figures_and_shown(tmp_path: Path) -> None:
    def check(label: str, value: float) -> measured.Check:
        return measured.Check(label=label, value=value, target=1.0)

    on = measured.machine(1)
    measured.keep("scoring", [], on, tmp_path, checks=[check("a", 5.0), check("b", 0.5)], tables={"T": [{"x": 1}]})
    measured.keep("scoring", [], on, tmp_path, checks=[check("a", 0.25)], tables={"U": [{"y": 2}]})
    page = render.performance(tmp_path)
    assert "| a | 0.25 | <= 1 | yes |" in page and "| b | 0.5 |" in page and "5.0" not in page
    assert "T:\n\n| x |\n| --- |\n| 1 |" in page and "U:" in page
    assert "torch" in page.splitlines()[-1]
