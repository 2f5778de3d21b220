"""The first thing to run: real data, three models, a table, a page and three recommendations, in a minute or two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.data.fetch import NotObtainable, get
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers import READERS, TabularSource, open_public
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import LogSource
from fullrank.data.splits import ByTime, PerUserOrder
from fullrank.evaluation.evaluate import Metrics, Predictions, predict_split
from fullrank.features.tables import TableOptimizer
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import DCNv2, RankMixer
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.popularity import Popularity
from fullrank.recipes.recommend import Recommendations, recommend
from fullrank.recipes.train import EVALUATION_BATCH, Trained, predict, train_ranker
from fullrank.training.config import TrainConfig

SIMULATED = "simulated"


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`data`: a public set by name, `simulated`, or the path of a Parquet or CSV log. `quick`: fewer epochs."""

    data: str = "movielens-100k"
    out: Path = Path("runs/demo")
    quick: bool = False
    seed: int = 0


@dataclass(frozen=True)
class DemoRow:
    """One line of the table: a model on a slice and a task."""

    slice: str
    model: str
    task: str
    metrics: Metrics


@dataclass(frozen=True)
class DemoResult:
    """All that the demo found. `real`: whether the rows were logged by people; `note` says what they are."""

    data: str
    real: bool
    note: str
    rows: dict[str, int]
    users: int
    items: int
    table: tuple[DemoRow, ...]
    predictions: dict[str, Predictions]
    runs: dict[str, Trained]
    user: str
    recommendations: Recommendations
    seconds: float


def rankers_of_demo() -> dict[str, Any]:
    """The two rankers, small enough for a laptop; sizes are our choice, tried on MovieLens-100K."""
    embedding = EmbeddingConfig(width=16, optimizer=TableOptimizer(semantics="rowwise_adagrad", lr=0.02))
    return {
        "DCNv2": DCNv2.Config(embedding=embedding, num_cross_layers=2, hidden=(128, 64), dropout=0.2),
        "RankMixer": RankMixer.Config(
            embedding=embedding,
            tokenizer=TokenizerConfig(mode="chunk", num_tokens=8, token_width=64),
            num_layers=2,
        ),
    }


def open_log(data: str, say: Callable[[str], None]) -> tuple[LogSource, bool, str]:
    """The log to show, whether it is real, and a sentence on what it is. Falls back to the simulator, and says so."""
    names = [reader.NAME for reader in READERS]
    if data in names:
        try:
            obtained = get(data)
            return open_public(data, obtained.path), True, f"{data} ({obtained.how})"
        except NotObtainable as error:
            reason = str(error).splitlines()[0]
            say(f"SIMULATED DATA: {data} could not be had here ({reason})")
            return _simulated(), False, f"simulated, because {data} could not be had"
    if data == SIMULATED:
        return _simulated(), False, "simulated ad log (no real person in it)"
    path = Path(data)
    if not path.exists():
        raise ValueError(f"Expected --data to be one of {[*names, SIMULATED]} or the path of a log, got {data!r}.")
    from fullrank.data.infer import infer_schema

    return TabularSource([path], infer_schema(path).schema), True, f"{path.name}, with the schema that was inferred"


def _simulated() -> LogSource:
    return SimulatedLog(SimulatorConfig(rows=100_000, users=2_000, ads=500, campaigns=40, seed=1))


def run_demo(config: DemoConfig, say: Callable[[str], None] = print) -> DemoResult:
    """Prepare, train, evaluate, recommend. Everything is written below `config.out`; running it again resumes."""
    begun = time.monotonic()
    source, real, note = open_log(config.data, say)
    say(f"Data: {note}")
    for role in ("user", "item"):
        if not getattr(source.schema.roles, role):
            raise ValueError(f"The demo recommends items to users: {source.name} has no role {role!r}. Use `train`.")
    training = TrainConfig(
        epochs=2 if config.quick else 3, batch_size=512, lr=1e-3, seed=config.seed, checkpoint_every_steps=None
    )
    table: list[DemoRow] = []
    predictions: dict[str, Predictions] = {}
    home = config.out / source.name
    closed = prepare_once(source, home / "data-per-user", PerUserOrder(), say)
    runs = {
        name: _train(name, ranker, closed, home / "per-user", training, config.seed, say)
        for name, ranker in rankers_of_demo().items()
    }
    first = next(iter(runs.values())).run.record.inputs.task_names
    for name, predicted in _predict_all(closed, runs, first).items():
        predictions[name] = predicted
        table += [DemoRow("last rows of every user", name, task, predicted.metrics(task)) for task in first]
    table += _new_users(source, home, training, config, say)
    user = _typical_user(closed)
    model = runs["RankMixer"]
    recommended = recommend(model.run, model.ranker.eval(), closed, user)
    return DemoResult(
        data=source.name,
        real=real,
        note=note,
        rows={split: closed.num_rows(split) for split in ("train", "valid", "test")},
        users=_num_keys(closed, "user"),
        items=_num_keys(closed, "item"),
        table=tuple(table),
        predictions=predictions,
        runs=runs,
        user=user,
        recommendations=recommended,
        seconds=time.monotonic() - begun,
    )


def prepare_once(source: LogSource, folder: Path, split: Any, say: Callable[[str], None]) -> PreparedData:
    """Prepare the log, or open it where that was done before."""
    prepare(source, folder, split=split)
    data = PreparedData.open(folder)
    rows = {name: data.num_rows(name) for name in ("train", "valid", "test")}
    say(f"Prepared {folder}: {rows['train']:,} training, {rows['valid']:,} validation, {rows['test']:,} test rows")
    return data


def _train(
    name: str, ranker: Any, data: PreparedData, folder: Path, training: TrainConfig, seed: int, say: Callable
) -> Trained:
    begun = time.monotonic()
    again = "fullrank demo (the same command again)"
    settings = f"{ranker} {training} {seed}"  # another setting, another folder: a run is what it was made with
    path = folder / f"{name.lower()}-{blake2b(settings.encode(), digest_size=4).hexdigest()}"
    trained = train_ranker(ranker, data, path, training, seed=seed, last_n=20, how_to_resume=again)
    if not trained.result.finished:
        raise KeyboardInterrupt
    say(f"Trained {name}: {trained.result.rows:,} rows in {time.monotonic() - begun:.1f} s → {path}")
    return trained


def _predict_all(data: PreparedData, runs: dict[str, Trained], tasks: tuple[str, ...]) -> dict[str, Predictions]:
    """Test-set predictions of popularity and of every run, in one order of rows."""
    loader = Loader(data, Popularity.inputs(data, tasks), "test", batch_size=EVALUATION_BATCH)
    result = {"popularity": predict_split(Popularity.fit(data, tasks), loader, tasks)}
    return result | {name: predict(trained.run, trained.ranker, data, "test") for name, trained in runs.items()}


def _new_users(
    source: LogSource, home: Path, training: TrainConfig, config: DemoConfig, say: Callable[[str], None]
) -> list[DemoRow]:
    """The same models behind one cut in time, on test rows of users that training never saw.

    A log without a clock has no such cut; an empty list then, and one where everybody was seen.
    """
    if source.schema.time_unit == "position" or not source.schema.roles.time:
        return []
    data = prepare_once(source, home / "data-by-time", ByTime(valid=0.1, test=0.1), say)
    short = replace(training, epochs=1 if config.quick else 2)  # whom training never saw, it cannot learn by heart
    runs = {
        name: _train(name, ranker, data, home / "by-time", short, config.seed, say)
        for name, ranker in rankers_of_demo().items()
    }
    tasks = next(iter(runs.values())).run.record.inputs.task_names
    id_map = data.transform.id_maps["user"]
    rows = []
    for name, predicted in _predict_all(data, runs, tasks).items():
        new = id_map.ids(predicted.user_N.view(np.uint64)) < id_map.first_key_id
        if not new.any():
            return []
        share = f"new users ({new.mean():.0%} of test rows)"
        rows += [DemoRow(share, name, task, predicted.rows(new).metrics(task)) for task in tasks]
    return rows


def _typical_user(data: PreparedData) -> str:
    """The user with the median number of training rows: the middle of the id map, since ids go by count."""
    id_map = data.transform.id_maps["user"]
    return id_map.key_of_id((id_map.first_key_id + id_map.num_rows) // 2)


def _num_keys(data: PreparedData, space: str) -> int:
    id_map = data.transform.id_maps[space]
    return id_map.num_rows - id_map.first_key_id
