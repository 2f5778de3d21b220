"""Probes while training: what they write, that they change no bit, and what they say."""

from __future__ import annotations

import json

import pytest
import torch

from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByHash
from fullrank.diagnostics import effective_rank
from fullrank.diagnostics.live import Probe
from fullrank.diagnostics.table_rows import TableRows, trained_rows
from fullrank.features.table_plan import TablePlan, TableSpec
from fullrank.features.tables import EmbeddingTables
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import RankMixer
from fullrank.recipes.train import train_ranker
from fullrank.training.config import TrainConfig

CONFIG = RankMixer.Config(tokenizer=TokenizerConfig(num_tokens=4, token_width=8), num_layers=1, dropout=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe") / "data"
    prepare(SimulatedLog(SimulatorConfig(rows=3_000, users=200)), folder, split=ByHash(valid=0.1, test=0.1))
    return PreparedData.open(folder)


def trained(data, path, probe_every):
    training = TrainConfig(batch_size=100, checkpoint_every_steps=None)
    return train_ranker(CONFIG, data, path, training, probe_every=probe_every)


def lines_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_probe_writes_ranks_and_changes_no_bit(data, tmp_path):
    plain, probed = trained(data, tmp_path / "plain", 0), trained(data, tmp_path / "probed", 5)
    assert not any("ranks" in line for line in lines_of(plain.run))
    found = [line for line in lines_of(probed.run) if "ranks" in line]
    assert [line["step"] for line in found] == [1, *range(5, probed.result.step + 1, 5)]
    assert set(found[0]["ranks"]) == {"tokens", "layers.0.mix", "layers.0.ffn", "pooled"}
    assert 1 <= found[0]["ranks"]["tokens"]["sample"] <= 4
    assert set(found[0]["tables"]) == set(probed.ranker.tables.logical_tables())
    before, after = plain.ranker.state_dict(), probed.ranker.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert probed.result.step % 5 == 0  # so that the last probe saw the final weights
    sampled = trained_rows(probed.ranker.tables)
    newest = {name: float(effective_rank(rows, "abundance")) for name, (_, rows) in sampled.items()}
    assert found[-1]["tables"] == pytest.approx(newest)


def test_what_falls_low_is_named_once(data, tmp_path, capsys):
    ranker = trained(data, tmp_path / "run", 0).ranker
    batch = next(iter(Loader(data, ranker.inputs, "valid", batch_size=32).epoch(0)))
    probe = Probe(batch, every=1, warn_below=0.99)

    class Report:
        step = 7

    for _ in range(2):
        line = probe.on_step(ranker, Report())  # pyright: ignore[reportArgumentType]  # its step is all that is read
        assert line is not None and "layer layers.0.ffn" in line["low"]
    said = capsys.readouterr().err
    assert said.count("Rank: layer layers.0.ffn: entropy rank of a token over rows ") == 1
    assert "% of the way from 1 (under 99%) at step 7." in said and "Rank: table user.main: abundance " in said
    assert ranker.training  # as it was


def test_what_is_no_number_is_named_and_null(data, tmp_path, capsys):
    ranker = trained(data, tmp_path / "run", 0).ranker
    batch = next(iter(Loader(data, ranker.inputs, "valid", batch_size=32).epoch(0)))

    class Report:
        step = 3

    with torch.no_grad():
        for name, parameter in ranker.named_parameters():
            if name.startswith("blocks.0."):
                parameter.fill_(torch.nan)
    line = Probe(batch, every=3).on_step(ranker, Report())  # pyright: ignore[reportArgumentType]
    assert line is not None and line["ranks"]["pooled"] is None and line["ranks"]["tokens"]["flat"] > 1
    assert "layer pooled" in line["low"]
    assert "Rank: layer pooled: holds what is no number at step 3." in capsys.readouterr().err
    json.dumps(line, allow_nan=False)


@pytest.mark.parametrize(("num", "most"), [(5, 10), (11, 10), (6_000, 4_096), (8_193, 4_096)])
def test_rows_are_spread_over_the_whole_table_without_its_padding(num, most):
    spec = TableSpec(key_space="t", num_rows=num, width=4)
    tables = EmbeddingTables(TablePlan((spec,)), seed=3)
    tables.arenas[0].data += 1
    row_U, rows_UD = TableRows.of(tables, "t.main", most).trained(tables)
    assert (row_U[0], row_U[-1], len(row_U)) == (1, num - 1, min(most, num - 1))
    assert row_U.diff().float().std() < 1 and len(row_U.unique()) == len(row_U)
    assert torch.equal(rows_UD, tables.logical_tables()["t.main"][row_U])


def test_rows_that_training_has_not_moved_are_left_out():
    tables = EmbeddingTables(TablePlan((TableSpec(key_space="t", num_rows=2_000, width=8),)), seed=3)
    assert not len(trained_rows(tables)["t.main"][0])
    moved = torch.arange(5, 2_000, 100)
    with torch.no_grad():
        tables.arenas[0][moved] = torch.ones(8)
    row_U, rows_UD = trained_rows(tables)["t.main"]
    assert torch.equal(row_U, moved) and float(effective_rank(rows_UD)) == pytest.approx(1)  # not that of noise


def test_what_is_refused(data, tmp_path):
    ranker = trained(data, tmp_path / "run", 0).ranker
    batch = next(iter(Loader(data, ranker.inputs, "valid", batch_size=1).epoch(0)))
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        Probe(batch)
    with pytest.raises(ValueError, match="every 1 step or more, got 0"):
        Probe(batch, every=0)
    two = next(iter(Loader(data, ranker.inputs, "valid", batch_size=2).epoch(0)))
    for wrong, said in (
        ({"warn_below": 7}, "a share, 0 to 1, got 7"),
        ({"forms": ("flatt",)}, "got 'flatt'. Did you mean 'flat'"),
        ({"kind": "entrop"}, "got 'entrop'. Did you mean 'entropy'"),
    ):
        with pytest.raises(ValueError, match=said):
            Probe(two, **wrong)
    with pytest.raises(ValueError, match="probe_every to be a number of steps, or 0 for none, got -5"):
        trained(data, tmp_path / "none", -5)
    assert not (tmp_path / "none").exists()
