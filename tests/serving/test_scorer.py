"""The scorer against the ranker it froze: the same logits, in pieces, rounded no more than allowed, on many threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.data.batch import Batch, Candidates, map_tensors
from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByTime
from fullrank.evaluation.auc import auc
from fullrank.features.table_updates.updater import TableUpdater
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import DIN, RANKERS, DCNv2, DeepFM, FieldTransformer, Ranker, RankMixer, SASRecPool, ranker_name
from fullrank.recipes.train import train_ranker
from fullrank.serving.scorer import Scorer
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import ObjectiveConfig

LOG = SimulatedLog(SimulatorConfig(rows=8_000, users=200, ads=160, campaigns=20, days=3, seed=5))
CATALOGUE = 160  # candidates of the requests whose best ten are compared
CONFIGS: dict[str, Any] = {ranker_name(cls): cls.Config() for cls in RANKERS}  # type: ignore[attr-defined]  # every ranker nests one
CONFIGS["fieldtransformer"] = FieldTransformer.Config(
    tokenizer=TokenizerConfig(mode="field", token_width=32), num_layers=1, expansion=2
)
# no large products at these sizes, or whole in float32
UNROUNDED = ("lr", "fm", "din", "rankelastor", "tokenformer", "hstu", "onetrans", "hyformer")
WIDE = {
    "din": DIN.Config(hidden=(512, 64), attention_activation="dice"),
    "rankmixer with din": RankMixer.Config(history="din", norm="pre"),
    "sasrecpool": SASRecPool.Config(width=192, num_blocks=1),
    "fieldtransformer": FieldTransformer.Config(
        tokenizer=TokenizerConfig(mode="auto", num_tokens=4, token_width=160), num_layers=1
    ),
    "deepfm with batch norm": DeepFM.Config(hidden=(512,), batch_norm=True),
}


class World:
    """A simulated log, its rows that nobody trains on, and every ranker after some steps on the others."""

    def __init__(self, folder: Path) -> None:
        prepare(LOG, folder / "data", split=ByTime(valid=0.0, test=0.3))
        self.data = PreparedData.open(folder / "data")
        self.inputs = Inputs.of(self.data.schema, last_n=8)
        self.num_rows = {name: id_map.num_rows for name, id_map in self.data.transform.id_maps.items()}
        self.batch = next(iter(Loader(self.data, self.inputs, "test", batch_size=10_000).epoch(0)))
        self._trained: dict[str, Ranker] = {}

    def ranker(self, name: str) -> Ranker:
        if name not in self._trained:
            ranker: Ranker = CONFIGS[name].build(self.inputs, self.num_rows, 0)
            objective = ObjectiveConfig().build(self.inputs.tasks)
            dense, tables = torch.optim.Adam(ranker.dense_parameters(), lr=3e-3), TableUpdater(ranker.tables)
            loader = Loader(self.data, self.inputs, "train", batch_size=128, seed=0, shuffle=True)
            for batch in islice(loader.epoch(0), 40):
                dense.zero_grad()
                torch.stack(list(objective(ranker(batch), batch).values())).sum().backward()
                dense.step()
                tables.step()
            self._trained[name] = ranker.eval()
        return self._trained[name]

    def eager(self, name: str, batch: Batch) -> dict[str, torch.Tensor]:
        ranker = self.ranker(name)
        with torch.inference_mode():
            return ranker(batch).logits

    def catalogues(self, num_requests: int) -> Batch:
        """The first rows, as candidates of each of some requests spread over the split."""
        at = torch.arange(num_requests) * (self.batch.requests.num_requests // num_requests)
        one = rows_of(self.batch.candidates, torch.arange(CATALOGUE).repeat(num_requests))
        return Batch(self.batch.requests, replace(one, request_of_row_B=at.repeat_interleave(CATALOGUE)))


def rows_of(candidates: Candidates, index: torch.Tensor) -> Candidates:
    """The rows `index`, in that order: an oracle for cuts. The log's candidates have no bags."""
    assert not candidates.features.bags
    return map_tensors(candidates, lambda tensor: tensor[index])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("scored"))


every_ranker = pytest.mark.parametrize("name", list(CONFIGS))


@every_ranker
def test_float32_is_the_ranker_itself(world, name):
    expected = world.eager(name, world.batch)
    found = Scorer(world.ranker(name), piece_rows=200)(world.batch)
    assert list(found) == list(expected) and world.batch.num_rows > 5 * 200
    for task, logits_B in found.items():
        assert logits_B.dtype == torch.float32 and expected[task].std() > 1e-3
        torch.testing.assert_close(logits_B, expected[task], rtol=0, atol=1e-5)


@every_ranker
def test_bfloat16_changes_neither_logits_nor_their_order_much(world, name):
    scorer = Scorer(world.ranker(name), precision="bfloat16", piece_rows=700)
    expected, found = world.eager(name, world.batch), scorer(world.batch)
    labels = world.batch.labels
    for column, task in enumerate(world.inputs.task_names):
        assert found[task].dtype == torch.float32
        change_B = (found[task] - expected[task]).abs()
        assert change_B.max() <= 1e-2
        assert (change_B.max() > 1e-5) == (name not in UNROUNDED)  # else nothing was rounded, and this tests nothing
        known_B = labels.known_BK[:, column].numpy()
        label_B = labels.values_BK[:, column].numpy()[known_B]
        if min(label_B.sum(), (1 - label_B).sum()) > 100:  # of fewer, one pair that changes places is too much
            before, after = (auc(label_B, logits[task].numpy()[known_B]) for logits in (expected, found))
            assert abs(after - before) <= 1e-4
    many = world.catalogues(50)
    expected, found = world.eager(name, many), scorer(many)
    best, again = (
        logits["click"].view(50, CATALOGUE).topk(10).indices.tolist() for logits in (expected, found)
    )
    assert np.mean([len({*one} & {*other}) / 10 for one, other in zip(best, again, strict=True)]) >= 0.99


@pytest.mark.parametrize("name", list(WIDE))
def test_wide_models_are_rounded_where_they_are_wide(world, name):
    """What small models keep in float32 meets bfloat16 here: types fit, and first logits are nearly alike."""
    ranker = WIDE[name].build(world.inputs, world.num_rows, 0).eval()
    batch = replace(world.batch, candidates=rows_of(world.batch.candidates, torch.arange(100)), labels=None)
    expected, found = Scorer(ranker)(batch), Scorer(ranker, precision="bfloat16")(batch)
    for task, logits_B in found.items():
        assert 0 < (logits_B - expected[task]).abs().max() < 0.05 * expected[task].std()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("piece_rows", [1, 7])
def test_pieces_do_not_matter(world, precision, piece_rows):
    whole = world.batch.num_rows
    rows = rows_of(world.batch.candidates, torch.randperm(whole, generator=torch.Generator().manual_seed(0))[:64])
    batch = replace(world.batch, candidates=rows, labels=None)
    expected = Scorer(world.ranker("din"), precision=precision, piece_rows=64)(batch)
    found = Scorer(world.ranker("din"), precision=precision, piece_rows=piece_rows)(batch)
    for task in expected:
        torch.testing.assert_close(found[task], expected[task], rtol=0, atol=1e-5 if precision == "float32" else 1e-2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_request_is_encoded_once(world, precision, monkeypatch):
    scorer = Scorer(world.ranker("sasrecpool"), precision=precision, piece_rows=100)
    expected = scorer(world.batch)
    state = scorer.encode(world.batch.requests)
    monkeypatch.setattr(type(world.ranker("sasrecpool")), "encode_request", None)
    half = world.batch.num_rows // 2
    halves = torch.arange(world.batch.num_rows).split([half, world.batch.num_rows - half])
    parts = [scorer.score(state, rows_of(world.batch.candidates, index)) for index in halves]
    for task in expected:
        torch.testing.assert_close(torch.cat([p[task] for p in parts]), expected[task], rtol=0, atol=1e-5)


@every_ranker
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_candidates_have_no_logits(world, name, precision):
    scorer = Scorer(world.ranker(name), precision=precision)
    found = scorer.score(scorer.encode(world.batch.requests), rows_of(world.batch.candidates, torch.arange(0)))
    assert {task: tuple(logits.shape) for task, logits in found.items()} == {"click": (0,), "conversion": (0,)}


@every_ranker
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_missing_everywhere_scores_finite(world, name, precision):
    def missing(tensor: torch.Tensor) -> torch.Tensor:
        return torch.full_like(tensor, torch.nan) if tensor.is_floating_point() and tensor.dim() == 2 else tensor

    rows = rows_of(world.batch.candidates, torch.arange(50))
    batch = replace(world.batch, candidates=rows, labels=None)
    found = Scorer(world.ranker(name), precision=precision)(map_tensors(batch, missing))
    assert all(logits.isfinite().all() for logits in found.values())


def test_threads_do_not_see_each_other(world):
    """Both precisions at once: the rounding of one is not that of another thread."""
    rows = rows_of(world.batch.candidates, torch.arange(200))
    ranker, batch = world.ranker("rankmixer"), replace(world.batch, candidates=rows, labels=None)
    scorers = [Scorer(ranker, precision=precision, piece_rows=50) for precision in ("float32", "bfloat16")]
    expected = [scorer(batch) for scorer in scorers]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda at: scorers[at % 2](batch), range(12)))
    for at, logits in enumerate(found):
        assert all(torch.equal(logits[task], expected[at % 2][task]) for task in logits)
    assert not torch.equal(expected[0]["click"], expected[1]["click"])


def test_the_ranker_is_left_as_it_was_and_no_longer_read(world):
    ranker = DCNv2.Config().build(world.inputs, world.num_rows, 0).train()
    before = {name: tensor.clone() for name, tensor in ranker.state_dict().items()}
    scorer = Scorer(ranker, precision="bfloat16")
    assert ranker.training and all(p.requires_grad for p in ranker.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ranker.state_dict().items())
    expected = scorer(world.batch)
    with torch.no_grad():
        for parameter in ranker.dense_parameters():
            parameter.add_(1.0)
    assert all(torch.equal(logits, expected[task]) for task, logits in scorer(world.batch).items())
    assert not any(logits.requires_grad for logits in expected.values())


def test_a_run_is_scored_as_it_was_trained(world, tmp_path):
    training = TrainConfig(epochs=1, batch_size=1024)
    trained = train_ranker(RankMixer.Config(num_layers=1), world.data, tmp_path / "run", training, last_n=8)
    with torch.inference_mode():
        expected = trained.ranker.eval()(world.batch).logits
    for task, logits in Scorer.of(trained.run)(world.batch).items():
        torch.testing.assert_close(logits, expected[task], rtol=0, atol=1e-5)


def test_weights_that_are_not_finite_are_refused_by_name(world):
    ranker = DCNv2.Config().build(world.inputs, world.num_rows, 0)
    with torch.no_grad():
        ranker.tables.logical_tables()["item.main"][7, 3] = torch.nan
    with pytest.raises(ValueError, match=r"finite weights to serve, got nan in table 'item.main', row 7\."):
        Scorer(ranker)
    with torch.no_grad():
        ranker.tables.logical_tables()["item.main"][7, 3] = 0.0
        ranker.get_parameter("cross.1.linear.bias")[5] = -torch.inf
    with pytest.raises(ValueError, match=r"got -inf in dense weight 'cross.1.linear.bias' at \(5,\)\."):
        Scorer(ranker)


def test_bad_settings_are_named(world):
    with pytest.raises(ValueError, match=r"precision to be one of .*got 'bfloat'\. Did you mean 'bfloat16'"):
        Scorer(world.ranker("lr"), precision="bfloat")  # type: ignore[arg-type]  # the error is the test
    with pytest.raises(ValueError, match=r"piece_rows >= 1, the candidates scored at once, got 0"):
        Scorer(world.ranker("lr"), piece_rows=0)
