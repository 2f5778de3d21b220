"""Occlusion on cases whose answer is known: a hand-made ranker that counts, and a log in which one field decides."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from fullrank.cli import main
from fullrank.data.batch import Batch, Candidates, Requests
from fullrank.data.columns import DataError
from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.splits import ByTime
from fullrank.features.tables import TableOptimizer
from fullrank.rankers import DCNv2
from fullrank.rankers.base import Output
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.explain import NOTE, Explanation, explain, plot_explanation
from fullrank.recipes.occlusion import Hidden, occluded
from fullrank.recipes.train import Trained, train_ranker
from fullrank.schema import EventFeature, Feature, History, Roles, Schema, Task
from fullrank.training.config import TrainConfig

SCHEMA = Schema(
    roles=Roles(user="user", item="item", time="time"),
    features=(
        Feature(name="device", kind="categorical"),
        Feature(name="colour", kind="categorical"),
        Feature(name="noise", kind="numeric"),
        Feature(name="tags", kind="multi", key_space="tag", weights="tag_weights"),
        Feature(name="place", kind="vector", dim=2),
        Feature(name="category", kind="categorical", of="item"),
    ),
    histories=(
        History(name="past", where="click", max_length=6, features=(EventFeature(name="stars", kind="numeric"),)),
    ),
    tasks=(Task(name="click"),),
)


def log(rows: int = 1_200) -> pa.Table:
    """The device decides, and nothing else does: 9 of 10 rows are clicked on a phone, 1 of 10 elsewhere."""
    rng = np.random.default_rng(3)
    item = rng.integers(0, 150, rows)
    device = rng.choice(["phone", "desktop"], rows)
    return pa.table(
        {
            "user": rng.integers(0, 15, rows),
            "item": item,
            "time": 1_700_000_000 + np.arange(rows) * 60,
            "device": device,
            "colour": rng.choice(["red", "green", "blue"], rows),
            "noise": rng.normal(size=rows),
            "tags": [[f"t{t}" for t in rng.integers(0, 4, 2)] for _ in range(rows)],
            "tag_weights": [[1.0, 0.5]] * rows,
            "place": rng.normal(size=(rows, 2)).tolist(),
            "category": [f"c{i % 3}" for i in item],
            "stars": rng.integers(1, 6, rows),
            "click": (rng.random(rows) < np.where(device == "phone", 0.9, 0.1)).astype(int),
        }
    )


@dataclass(frozen=True)
class World:
    folder: Path
    data: PreparedData
    trained: Trained


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("explain")
    pq.write_table(log(), folder / "log.parquet")
    prepare(TabularSource([folder / "log.parquet"], SCHEMA), folder / "data", split=ByTime(valid=0.1, test=0.1))
    data = PreparedData.open(folder / "data")
    embedding = EmbeddingConfig(width=4, optimizer=TableOptimizer(semantics="lazy", lr=0.02))
    training = TrainConfig(epochs=2, batch_size=32, lr=0.005, checkpoint_every_steps=None)
    ranker = DCNv2.Config(embedding=embedding, num_cross_layers=1, hidden=(8,))
    return World(folder, data, train_ranker(ranker, data, folder / "run", training))


class Counts(nn.Module):
    """logit = 2 · (events of the candidate's category) + events + noise, missing noise being 0: what hiding anything
    does can be said without running it."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs

    def encode_request(self, requests: Requests) -> Requests:
        return requests

    def score(self, state: Requests, candidates: Candidates) -> Output:
        (history,) = state.histories
        fields = [field.name for field in self.inputs.histories[0].fields if field.kind == "categorical"]
        candidate = [field.name for field in self.inputs.candidate if field.kind == "categorical"]
        category_B = candidates.features.ids_nF[:, candidate.index("category")]
        event_E = history.events.ids_nF[:, fields.index("item.category")]
        logit_B: list[Tensor] = []
        for row, request in enumerate(candidates.request_of_row_B.tolist()):
            mine_E = event_E[history.offsets[request] : history.offsets[request + 1]]
            same = (mine_E == category_B[row]) & (mine_E > 1)
            noise = state.features.numbers_nF[request, 0].nan_to_num(0.0)
            logit_B.append(2.0 * same.sum() + len(mine_E) + noise)
        return Output({"click": torch.stack(logit_B)}, {}, {})

    def forward(self, batch: Batch) -> Output:
        return self.score(self.encode_request(batch.requests), batch.candidates)


def user_with_past(world: World) -> tuple[int, list[int]]:
    """A user with six clicks, and their items, oldest first."""
    clicked = log().filter(pa.compute.equal(log()["click"], 1))
    for user in range(15):
        items = clicked.filter(pa.compute.equal(clicked["user"], user))["item"].to_pylist()[-6:]
        if len(items) == 6 and len({i % 3 for i in items}) > 1:
            return user, items
    raise AssertionError("no such user")


def effects(found: Explanation) -> dict[str, float]:
    return {effect.hidden: effect.logit_change for effect in found.effects}


def test_what_hiding_does_to_a_ranker_that_counts(world: World) -> None:
    user, items = user_with_past(world)
    item = items[0]
    ranker = Counts(world.trained.run.record.inputs)
    found = explain(world.trained.run, ranker, world.data, user, item, context={"noise": "0"})  # type: ignore[arg-type]
    got = effects(found)
    same = [other % 3 == item % 3 for other in items]
    noise = found.logit - 2 * sum(same) - 6
    for number, (other, is_same) in enumerate(zip(items, same, strict=True)):
        assert got[f"past[-{6 - number}]: {other}"] == pytest.approx(-3 if is_same else -1)
    assert got["past"] == pytest.approx(-2 * sum(same) - 6)
    for hidden in ("category", "past: item.category of its events", "all of category"):
        assert got[hidden] == pytest.approx(-2 * sum(same))
    assert got["noise"] == pytest.approx(-noise, abs=1e-5) and abs(noise) < 0.2
    for hidden in ("device", "colour", "tags", "place", "user", "item", "past: stars of its events", "all of item"):
        assert got[hidden] == 0.0
    sizes = [abs(effect.logit_change) for effect in found.effects]
    assert sizes == sorted(sizes, reverse=True)
    first = found.effects[0]
    answer = 1 / (1 + np.exp(-found.logit - first.logit_change)) - 1 / (1 + np.exp(-found.logit))
    assert first.answer_change == pytest.approx(answer, abs=1e-6) and found.answer < 1


def test_the_field_that_decides_matters_most(world: World) -> None:
    for device, click in (("phone", True), ("desktop", False)):
        found = explain(world.trained.run, world.trained.ranker, world.data, 3, 5, context={"device": device})
        assert (found.answer > 0.5) == click
        got = effects(found)
        assert found.effects[0].hidden == "device" and (got["device"] < 0) == click
        assert abs(found.effects[0].answer_change) > 0.2
        for other in ("colour", "noise", "place", "category"):
            assert abs(got[other]) < 0.3 * abs(got["device"]), got


def test_without_an_item_it_is_the_best_one(world: World) -> None:
    from fullrank.recipes.recommend import recommend

    found = explain(world.trained.run, world.trained.ranker, world.data, 3)
    (top,) = recommend(world.trained.run, world.trained.ranker, world.data, 3, k=1).items
    assert found.item == top.key and found.answer == pytest.approx(top.probability["click"], abs=1e-6)


def test_what_is_missing_is_not_hidden_again(world: World) -> None:
    found = explain(world.trained.run, world.trained.ranker, world.data, "nobody", 5, context={"device": "phone"})
    assert set(effects(found)) == {"user", "device", "item", "category"}


def test_hiding_nothing_changes_no_bit(world: World) -> None:
    from fullrank.data.loader import Loader

    inputs = world.trained.run.record.inputs
    batch = next(iter(Loader(world.data, inputs, "test", batch_size=1).epoch(0)))
    ranker = world.trained.ranker.eval()
    with torch.inference_mode():
        one = ranker(batch).logits["click"]
        many = ranker(occluded(batch, inputs, [Hidden()] * 3)).logits["click"]
    assert many.tolist() == pytest.approx(one.tolist() * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--item 9999", "Expected an item of the catalogue (150 items), got '9999'"),
        ("--task clik", "Expected a task of the run, one of ['click'], got 'clik'. Did you mean 'click'?"),
        ("--context devise=a", "Did you mean 'device'?"),
        ("--out a.gif", "Expected --out to end in one of .png, .svg, .pdf"),
    ],
)
def test_what_cannot_be_explained_is_said(
    world: World, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["explain", str(world.folder / "run"), "--data", str(world.folder / "data"), "--user", "3"]
    assert main([*common, *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_the_verb_prints_draws_and_writes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["explain", str(world.folder / "run"), "--data", str(world.folder / "data"), "--user", "3", "--item", "5"]
    out, written = world.folder / "figures" / "why.svg", world.folder / "why.json"
    assert main([*common, "--most", "4", "--out", str(out), "--json", str(written)]) == 0
    text = capsys.readouterr().out
    read = json.loads(written.read_text())
    assert text.startswith("User 3, item 5: click ") and NOTE in text and "do not add up" in NOTE
    assert f"and {len(read['effects']) - 4} smaller changes" in text
    assert [line.split("  ")[0] for line in text.splitlines()[2:6]] == [e["hidden"] for e in read["effects"][:4]]
    assert set(read) == {"user", "item", "task", "kind", "logit", "answer", "effects", "note"}
    assert os.path.getsize(out) > 1_000


def test_the_figure_shows_the_largest_on_top(world: World) -> None:
    found = explain(world.trained.run, world.trained.ranker, world.data, 3, 5)
    axes = plot_explanation(found, most=3)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [effect.hidden for effect in found.effects[:3]][::-1]
    assert plot_explanation(found, axes) is axes


def test_a_log_without_users_has_nobody_to_explain_for(tmp_path: Path) -> None:
    schema = Schema(roles=Roles(item="item", time="time"), tasks=(Task(name="click"),))
    pq.write_table(log(200).select(["item", "time", "click"]), tmp_path / "log.parquet")
    prepare(TabularSource([tmp_path / "log.parquet"], schema), tmp_path / "data", split=ByTime(valid=0.1, test=0.1))
    config = DCNv2.Config(embedding=EmbeddingConfig(width=2), num_cross_layers=1, hidden=(4,))
    data = PreparedData.open(tmp_path / "data")
    trained = train_ranker(config, data, tmp_path / "run", TrainConfig(batch_size=100))
    with pytest.raises(DataError, match="no role `user`"):
        explain(trained.run, trained.ranker, data, 3)
