"""A new run whose first weights are another's, where keys and names match: kept in its record, and resumed alike."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_daily import LOG, SPLIT, TRAINING, append, assert_same, hashes, ranker, tensors

from fullrank.config_json import loads
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.recipes.train import WARM_START, train_ranker
from fullrank.training.callbacks import Callback
from fullrank.training.run import Run, RunError
from fullrank.training.warm_start import WarmStart


class Broken(Callback):
    def on_step(self, ranker, report) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_no_waiting_for_the_disk():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    torch.set_num_threads(before)


def test_a_new_run_begins_with_anothers_rows_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(LOG.day(0), tmp_path / "data", split=SPLIT)
    first = train_ranker(ranker(), PreparedData.open(tmp_path / "data"), tmp_path / "first", TRAINING).run
    append(tmp_path / "data", 1)
    data, before = PreparedData.open(tmp_path / "data"), hashes(first.path)
    other = replace(TRAINING, seed=5)
    warm = train_ranker(ranker(), data, tmp_path / "warm", other, warm_from=first)
    cold = train_ranker(ranker(), data, tmp_path / "cold", other)
    assert hashes(first.path) == before and cold.warm is None and cold.run.record.warm_from is None
    report, origin = warm.warm, Run.open(warm.run.path).record.warm_from
    assert report is not None and origin is not None
    newest = first.latest_checkpoint()
    assert newest is not None and (origin.run, origin.step) == (str(first.path), newest.position.step)
    assert origin.checkpoint == newest.sha256
    assert loads(WarmStart, (warm.run.path / WARM_START).read_text()) == report
    known, new = (r.transform().id_maps["user"] for r in (first, warm.run))
    own = known.num_rows - known.first_key_id
    assert (report.tables["user.main"].matched, report.tables["user.main"].new) == (own, new.num_rows - known.num_rows)
    one, two = tensors(warm.run), tensors(cold.run)
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert int(one["optimizer:tables/step"]) == int(two["optimizer:tables/step"])  # the optimizer begins anew

    # stopped before there is a checkpoint, it begins with the same weights again; by another path to the same run
    with pytest.raises(KeyboardInterrupt):
        train_ranker(ranker(), data, tmp_path / "again", other, warm_from=first, callbacks=[Broken()])
    assert Run.open(tmp_path / "again").latest_checkpoint() is None
    monkeypatch.chdir(tmp_path)
    again = train_ranker(ranker(), data, tmp_path / "again", other, warm_from=Run.open("first"))
    assert_same(warm.run, again.run)
    with pytest.raises(RunError, match=r"again holds another run: its warm_from.* is .*, not None"):
        train_ranker(ranker(), data, tmp_path / "again", other)
    with pytest.raises(RunError, match=r"again holds another run: its warm_from"):
        train_ranker(ranker(), data, tmp_path / "again", other, warm_from=cold.run)
