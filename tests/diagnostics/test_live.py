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
from fullrank.diagnostics.live import Probe, sampled_tables
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
    assert [line["step"] for line in found] == list(range(5, probed.result.step + 1, 5))
    assert set(found[0]["ranks"]) == {"tokens", "layers.0.mix", "layers.0.ffn", "pooled"}
    assert 1 <= found[0]["ranks"]["tokens"]["sample"] <= 4
    assert set(found[0]["tables"]) == set(probed.ranker.tables.logical_tables())
    before, after = plain.ranker.state_dict(), probed.ranker.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert probed.result.step % 5 == 0  # so that the last probe saw the final weights
    sampled = sampled_tables(probed.ranker.tables)
    newest = {name: float(effective_rank(rows, "abundance")) for name, rows in sampled.items()}
    assert found[-1]["tables"] == pytest.approx(newest)


def test_what_falls_low_is_named_once(data, tmp_path, capsys):
    ranker = trained(data, tmp_path / "run", 0).ranker
    batch = next(iter(Loader(data, ranker.inputs, "valid", batch_size=32).epoch(0)))
    probe = Probe(batch, every=1, warn_below=0.99)

    class Report:
        step = 7

    for _ in range(2):
        line = probe.on_step(ranker, Report())  # pyright: ignore[reportArgumentType]  # its step is all that is read
        assert line is not None and "layers.0.ffn" in line["low"]
    said = capsys.readouterr().err
    assert said.count("Rank: layers.0.ffn uses") == 1 and "at step 7 (under 99%)" in said
    assert ranker.training  # as it was


def test_sampled_rows_are_spread_over_the_table_without_its_padding(data, tmp_path):
    ranker = trained(data, tmp_path / "run", 0).ranker
    whole = ranker.tables.logical_tables()
    for name, rows in sampled_tables(ranker.tables, most=10).items():
        step = max(1, (len(whole[name]) - 1) // 10)
        assert torch.equal(rows, whole[name][1::step][:10])


def test_what_is_refused(data, tmp_path):
    ranker = trained(data, tmp_path / "run", 0).ranker
    batch = next(iter(Loader(data, ranker.inputs, "valid", batch_size=1).epoch(0)))
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        Probe(batch)
    with pytest.raises(ValueError, match="every 1 step or more, got 0"):
        Probe(batch, every=0)
