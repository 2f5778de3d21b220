"""A run's diagnosis: numbers by another route, and the page from the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import matplotlib
import pytest
import torch

from fullrank.cli import main
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash
from fullrank.diagnostics import collapse, collapse_report, effective_rank, linear_cka
from fullrank.diagnostics.plots import plot_spectra
from fullrank.features.tables import EmbeddingTables
from fullrank.rankers import RankUp, TokenFormer
from fullrank.rankers.load import load_ranker
from fullrank.recipes.train import train_ranker
from fullrank.training.config import TrainConfig
from fullrank.training.run import Run

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Prepared data and two runs, one of them probed."""
    home = tmp_path_factory.mktemp("diagnose")
    prepare(SimulatedLog(SimulatorConfig(rows=3_000, users=150)), home / "data", split=ByHash(valid=0.2, test=0.1))
    data = PreparedData.open(home / "data")
    training = TrainConfig(batch_size=200, checkpoint_every_steps=None)
    stream = TokenFormer.Config(width=16, heads=2, expansion=1, full_layers=1, windows=(4,), towers=())
    train_ranker(stream, data, home / "tokenformer", training, probe_every=5)
    train_ranker(RankUp.Config(width=16, num_layers=1, towers=()), data, home / "rankup", training)
    return home


def test_spectra_and_ranks_are_those_of_the_rankers_tables_and_taps(world):
    run = Run.open(world / "rankup")
    found = collapse_report(run, PreparedData.open(world / "data"), rows=100)
    tables = load_ranker(run).tables.logical_tables()
    assert {one.name for one in found.tables} == {name for name, rows in tables.items() if len(rows) > 1}
    assert not found.untrained and not found.on_disk
    began = EmbeddingTables(load_ranker(run).tables.plan, run.record.seed).logical_tables()
    for one in found.tables:
        rows = tables[one.name][(tables[one.name] != began[one.name]).any(1)]
        assert one.rows == len(rows) and one.values[0] == 1 and one.most == min(rows.shape)
        assert one.abundance == pytest.approx(float(effective_rank(rows, "abundance")))
        assert one.entropy == pytest.approx(float(effective_rank(rows)))
        assert sum(one.values) == pytest.approx(one.abundance)
    assert [one.name for one in found.points] == ["tokens", "layers.0.mix", "layers.0.ffn", "pooled"]
    flat = {one.point: one.mean for one in found.ranks if one.form == "flat"}
    assert {one.name: one.entropy for one in found.points} == pytest.approx(flat)
    assert found.rows == 100 and not found.histories and not found.training


def test_tables_of_one_key_space_are_compared(world):
    found = collapse_report(Run.open(world / "rankup"), PreparedData.open(world / "data"))
    assert found.similar and all(one.one.endswith(".main") and one.other.endswith(".set1") for one in found.similar)
    assert all(0 <= one.cosine <= 1 and 0 <= one.cka <= 1 + 1e-9 for one in found.similar)
    x = torch.randn(50, 4)
    turned, _ = torch.linalg.qr(torch.randn(4, 4))
    assert linear_cka(x, 3 * x @ turned) == pytest.approx(1, abs=1e-5)
    assert linear_cka(x, torch.ones(50, 2)) == 0


def test_events_have_a_rank_with_and_without_the_fields_of_their_stream(world):
    found = collapse_report(Run.open(world / "tokenformer"), PreparedData.open(world / "data"), rows=200)
    first, *others = found.histories
    assert [one.point for one in found.histories] == ["events", "events.0"]
    assert first.with_fields == pytest.approx(first.without_fields)  # before the first layer nothing has been mixed
    assert all(one.with_fields != one.without_fields for one in others)
    assert all(1 <= one.with_fields <= one.most for one in found.histories)
    assert [line["step"] for line in found.training] == [1, *range(5, found.training[-1]["step"] + 1, 5)]
    assert all(0 < one.rows <= 200 for one in found.histories)


@pytest.mark.parametrize("name", ["tokenformer", "rankup"])
def test_the_page_shows_every_picture_with_a_sentence(world, name, tmp_path, capsys):
    page, told = tmp_path / "page.html", tmp_path / "told.json"
    words = ["diagnose", str(world / name), "--data", str(world / "data"), "--out", str(page), "--json", str(told)]
    assert main(words) == 0
    assert f"Diagnosis: {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure") == text.count("<figcaption>") == (5 if name == "tokenformer" else 3)
    assert ("No probes were written" in text) == (name == "rankup")
    found = json.loads(told.read_text(encoding="utf-8"))
    assert found["split"] == "valid" and found["tables"] and found["ranks"] and isinstance(found["low"], list)
    assert bool(found["similar"]) == (name == "rankup")


def test_without_valid_rows_it_looks_at_training_rows(tmp_path):
    prepare(SimulatedLog(SimulatorConfig(rows=1_000, users=80)), tmp_path / "data", split=ByHash(valid=0.0, test=0.2))
    data = PreparedData.open(tmp_path / "data")
    training = TrainConfig(batch_size=200, checkpoint_every_steps=None)
    train_ranker(RankUp.Config(width=8, num_layers=1, towers=()), data, tmp_path / "run", training)
    assert collapse_report(Run.open(tmp_path / "run"), data).split == "train"


def test_who_uses_little_is_named_on_the_console_the_page_and_for_programs(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(collapse, "LOW", 0.999)
    page, told = tmp_path / "page.html", tmp_path / "told.json"
    words = ["diagnose", str(world / "rankup"), "--data", str(world / "data"), "--out", str(page), "--json", str(told)]
    assert main(words) == 0
    low = json.loads(told.read_text(encoding="utf-8"))["low"]
    assert "layer pooled" in low and any(name.startswith("table ") for name in low)
    assert f"little of its space uses: {', '.join(low)}" in capsys.readouterr().out
    assert all(f">{name}<" in page.read_text(encoding="utf-8") for name in low)


def test_what_it_can_not_measure_it_refuses(world, tmp_path):
    run, data = Run.open(world / "rankup"), PreparedData.open(world / "data")
    with pytest.raises(ValueError, match=r"a split of .* got 'vald'. Did you mean 'valid'"):
        collapse_report(run, data, "vald")
    with pytest.raises(ValueError, match="at least 2 rows to look at, got 0"):
        collapse_report(run, data, rows=0)
    prepare(SimulatedLog(SimulatorConfig(rows=500, users=50, seed=9)), tmp_path / "other", split=ByHash(valid=0.2))
    with pytest.raises(ValueError, match="ids descend from"):
        collapse_report(run, PreparedData.open(tmp_path / "other"))


def test_a_damaged_log_is_named_and_a_missing_one_has_no_lines(world, tmp_path):
    data = PreparedData.open(world / "data")
    shutil.copytree(world / "tokenformer", tmp_path / "run")
    log = tmp_path / "run" / "metrics.jsonl"
    whole = log.read_text(encoding="utf-8")
    log.write_text(whole + "{half\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line \d+, got '\{half'"):
        collapse_report(Run.open(tmp_path / "run"), data, rows=50)
    log.unlink()
    assert not collapse_report(Run.open(tmp_path / "run"), data, rows=50).training


def test_pictures_beside_each_other_show_the_lowest_line_of_all(world):
    found = collapse_report(Run.open(world / "rankup"), PreparedData.open(world / "data"), rows=50)
    narrow = replace(found.tables[0], values=(1.0, 1e-4))
    for order in ((narrow, *found.tables[1:]), (*found.tables[1:], narrow)):
        _, axes = plt.subplots(1, len(order), sharey=True)
        for one, ax in zip(order, axes, strict=True):
            plot_spectra([one], ax)
        assert all(ax.get_ylim() == pytest.approx((5e-5, 1.5)) for ax in axes)
        plt.close("all")
