"""A run goes on with what was appended: all at once or day by day, killed or not, to the same bits; every day is
measured before it is learned; what the run came from stays as it was."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from fullrank.data.corrections import append_labels
from fullrank.data.forget import forget
from fullrank.data.lineage import LineageError
from fullrank.data.loader import Loader
from fullrank.data.manifest import Manifest
from fullrank.data.partitions import DataState, PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import LogChunk
from fullrank.data.splits import ByHash
from fullrank.data.states import states, transform_at
from fullrank.evaluation.evaluate import predict_split
from fullrank.features.tables import TableOptimizer
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.daily import PROGRESSIVE, Daily, continue_run
from fullrank.recipes.train import load_ranker, train_ranker
from fullrank.training import loop
from fullrank.training.callbacks import Callback
from fullrank.training.config import TrainConfig
from fullrank.training.progress import Progress
from fullrank.training.run import Run, RunError

DAY = 86_400
LOG = SimulatedLog(
    SimulatorConfig(
        rows=1_600, users=60, ads=80, campaigns=20, days=4, seed=4, attribution_window=DAY, new_keys_per_day=0.2
    )
)
SPLIT = ByHash(key="user", valid=0.1, test=0.1)
TRAINING = TrainConfig(batch_size=64, lr=0.01, checkpoint_every_steps=3, log_every_steps=2, keep_checkpoints=1)


def ranker(**optimizer) -> DCNv2.Config:
    rule = TableOptimizer(**({"semantics": "lazy", "lr": 0.01, "weight_decay": 0.1} | optimizer))
    embedding = EmbeddingConfig(width=4, optimizer=rule)
    return DCNv2.Config(embedding=embedding, num_cross_layers=1, hidden=(8,), dropout=0.1)


class Came:
    """The late labels that came on one day."""

    def __init__(self, day: int) -> None:
        self.name, self.schema, self.events, self.day = f"came on day {day}", LOG.schema, {}, day

    def chunks(self):
        end = LOG.end_of(self.day)
        for source in (LOG.late_labels(day) for day in range(self.day)):
            for chunk in source.chunks():
                time = chunk.records.column("time").to_numpy()
                here = (time >= end - DAY) & (time < end)
                yield LogChunk(chunk.records.filter(pa.array(here)), self.name, 0)

    def fingerprint(self) -> str:
        return self.name


def append(folder: Path, day: int) -> None:
    append_labels(Came(day), folder)
    prepare(LOG.day(day), folder, append=True)


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def tensors(run: Run) -> dict[str, torch.Tensor]:
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    parts = [part for part in ("dense", "tables", "optimizer", "average") if checkpoint.has(part)]
    return {f"{part}:{name}": t for part in parts for name, t in checkpoint.tensors(part).items()}


def assert_same(one: Run, two: Run) -> None:
    a, b = tensors(one), tensors(two)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def lines(run: Run) -> list[dict]:
    read = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read]


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_no_waiting_for_the_disk():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """Four days, prepared one by one, and a run of the first."""
    folder = tmp_path_factory.mktemp("daily")
    prepare(LOG.day(0), folder / "data", split=SPLIT)
    training = replace(TRAINING, epochs=2)
    run = train_ranker(ranker(), PreparedData.open(folder / "data"), folder / "first", training).run
    for day in (1, 2, 3):
        append(folder / "data", day)
    return folder / "data", run


def until(data: PreparedData, count: int) -> PreparedData:
    """The data as they were after `count` partitions."""
    manifest = data.manifest
    version = manifest.partitions[count - 1].lineage_version
    lineage = {**manifest.lineage, "versions": manifest.lineage["versions"][: version + 1]}
    files = {n: s for n, s in manifest.files.items() if not n.startswith("items/") or int(Path(n).stem) < count}
    as_of = states(data)[count - 1].as_of
    then = replace(manifest, partitions=manifest.partitions[:count], lineage=lineage, files=files, as_of=as_of)
    return PreparedData(data.folder, Manifest.from_json(then.to_json()))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory: pytest.TempPathFactory) -> Daily:
    """Gone on with all days at once."""
    folder, run = world
    before = hashes(run.path)
    done = continue_run(run, PreparedData.open(folder), tmp_path_factory.mktemp("whole") / "run")
    assert hashes(run.path) == before
    return done


@pytest.fixture(scope="module")
def chain(world, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Gone on with each day as it came, after its late labels: the run after each."""
    folder, run = world
    data, runs = PreparedData.open(folder), [run]
    for count in (3, 5, 7):
        at = tmp_path_factory.mktemp("chain") / str(count)
        runs.append(continue_run(runs[-1], until(data, count), at).run)
    return runs


def test_day_by_day_is_all_at_once(world, whole: Daily, chain: list[Run]) -> None:
    folder, run = world
    assert_same(whole.run, chain[-1])
    began, ended = (r.latest_checkpoint().position for r in (run, whole.run))
    assert ended.step > began.step and ended.epoch == began.epoch + 3 and whole.result.step == ended.step
    record, newest = whole.run.record, PreparedData.open(folder)
    assert record.lineage == newest.lineage.pin and record.data == newest.state
    assert record.num_rows == {name: m.num_rows for name, m in newest.transform.id_maps.items()}
    assert record.num_rows["user"] > run.record.num_rows["user"]
    names = [entry.name for entry in newest.manifest.partitions]
    stages = record.continues.stages
    assert [stage.partitions for stage in stages] == [tuple(names[i : i + 2]) for i in (1, 3, 5)]
    assert [stage.day for stage in stages] == names[2::2]
    assert record.continues.origin.run == str(run.path) and record.continues.origin.step == began.step
    loaded = load_ranker(Run.open(whole.run.path))
    assert loaded.tables.plan.places["user.main"][2].num_rows == record.num_rows["user"]


@pytest.mark.parametrize("semantics", ["dense", "rowwise_adagrad"])
def test_so_it_is_with_other_tables_and_averaged_weights(world, tmp_path: Path, semantics: str) -> None:
    data = PreparedData.open(world[0])
    config = ranker(semantics=semantics, weight_decay=0.01 if semantics == "dense" else 0.0)
    run = train_ranker(config, until(data, 1), tmp_path / "first", replace(TRAINING, ema_decay=0.9)).run
    at_once = continue_run(run, until(data, 5), tmp_path / "whole").run
    half = continue_run(run, until(data, 3), tmp_path / "half").run
    assert_same(at_once, continue_run(half, until(data, 5), tmp_path / "rest").run)


def test_every_label_is_learned_once(world, whole: Daily) -> None:
    """Rows of all stages together, against the labels that count at the end and did not at the beginning."""
    folder, run = world
    data = PreparedData.open(folder)
    continues = whole.run.record.continues
    inputs = run.record.inputs
    total = Loader(data, inputs, "train", batch_size=64, since=continues.since)
    labels = sum(int(batch.labels.known_BK.sum()) for batch in total.epoch(0))
    learned, rows = 0, 0
    since = continues.since
    for stage in continues.stages:
        now = DataState(partitions=(*since.partitions, *stage.partitions), as_of=stage.as_of)
        loader = Loader(data.at(now), inputs, "train", batch_size=64, since=since)
        learned += sum(int(batch.labels.known_BK.sum()) for batch in loader.epoch(0))
        rows, since = rows + loader.num_rows, now
    assert learned == labels > total.num_rows
    position = whole.run.latest_checkpoint().position
    assert position.rows - run.latest_checkpoint().position.rows == rows > total.num_rows  # some rows came twice


def test_days_are_measured_before_they_are_learned(world, whole: Daily, chain: list[Run]) -> None:
    """By another route: predict each day with the run of the days before, in its ids, with labels of the end."""
    data, inputs = PreparedData.open(world[0]), world[1].record.inputs
    found = []
    for before, index in zip(chain, (2, 4, 6), strict=False):
        seen = data.pinned(before.transform())
        batches = [
            batch
            for split in ("train", "valid", "test")
            for batch in Loader(seen, inputs, split, batch_size=256, partitions=(index,)).epoch(0)
        ]
        predictions = predict_split(load_ranker(before), Listed(batches), inputs.tasks)
        for task in inputs.task_names:
            metrics = asdict(predictions.metrics(task))
            total = metrics["rows"] + metrics.pop("unknown")
            own = {"partition": data.partitions[index].entry.name, "task": task, "rows": total}
            found.append({**own, "known": metrics.pop("rows"), **metrics})
    shown = [{key: value for key, value in day.items() if key != "day"} for day in whole.days]
    assert [list(day) for day in shown] == [list(day) for day in found]
    for mine, theirs in zip(shown, found, strict=True):
        for key, value in theirs.items():
            assert mine[key] == pytest.approx(value, nan_ok=True) or (mine[key] is None and value != value), key
    assert [day["day"] for day in whole.days[::2]] == ["2025-01-02", "2025-01-03", "2025-01-04"]
    assert all(day["rows"] == 400 for day in whole.days)
    conversions = [day["known"] for day in whole.days if day["task"] == "conversion"]
    assert conversions[0] == 400 and conversions[-1] < 100  # the window of the last day is still open
    stored = json.loads((whole.run.path / PROGRESSIVE).read_text())
    assert stored == list(whole.days) == [line["progressive"] for line in lines(whole.run) if "progressive" in line]


class Listed(list):
    """Batches as a loader."""

    @property
    def num_rows(self) -> int:
        return sum(batch.num_rows for batch in self)

    def epoch(self, epoch: int):
        return iter(self)


class _Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, ranker, report) -> None:
        if report.step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_a_stopped_one_goes_on_with_the_days_it_began_with(world, tmp_path: Path) -> None:
    folder, run = world
    data = PreparedData.open(folder)
    whole = continue_run(run, until(data, 5), tmp_path / "whole")
    began = run.latest_checkpoint().position.step
    scheduled = began + 8 + (-began - 8) % 3  # elsewhere the stop's own checkpoint would round deferred decay once more
    stopped = continue_run(run, until(data, 5), tmp_path / "half", callbacks=[_Interrupt(scheduled)])
    assert not stopped.result.finished and stopped.run.result() is None
    with pytest.raises(RunError, match="half has not gone through all its stages yet: run the same command again"):
        load_ranker(stopped.run)
    resumed = continue_run(run, data, tmp_path / "half")
    assert resumed.result.finished
    assert resumed.days == whole.days
    assert_same(whole.run, resumed.run)
    assert lines(whole.run) == lines(resumed.run)
    again = continue_run(run, data, tmp_path / "half")
    assert again.result == resumed.result and again.days == whole.days


def test_a_partition_with_nothing_to_learn_grows_the_tables_all_the_same(tmp_path: Path) -> None:
    """A day of which no label is known yet, at the end and in the middle."""
    schema = replace(LOG.schema, tasks=(replace(LOG.schema.tasks[1], parent="", window=10 * DAY),))

    class Late:
        name, events = "late", {}

        def __init__(self, day: int) -> None:
            self.schema, self.day = schema, day

        def chunks(self):
            yield from LOG.day(self.day).chunks()

        def fingerprint(self) -> str:
            return f"late {self.day}"

    end = lambda day: LOG.end_of(day) * 1_000_000  # noqa: E731
    out = tmp_path / "data"
    prepare(Late(0), out, split=SPLIT, as_of=end(10))
    run = train_ranker(ranker(), PreparedData.open(out), tmp_path / "first", TRAINING).run
    prepare(Late(1), out, append=True)
    first = continue_run(run, PreparedData.open(out), tmp_path / "one")
    before, after = tensors(run), tensors(first.run)
    for name, tensor in before.items():
        assert torch.equal(after[name][: len(tensor)] if tensor.ndim else after[name], tensor), name
    assert len(after["tables:user.main"]) > len(before["tables:user.main"])
    assert first.run.latest_checkpoint().position.step == run.latest_checkpoint().position.step
    assert first.days[0]["known"] == 0 and first.days[0]["rows"] == 400
    load_ranker(first.run)
    prepare(Late(2), out, append=True, as_of=end(13))
    day_by_day = continue_run(first.run, PreparedData.open(out), tmp_path / "two")
    at_once = continue_run(run, PreparedData.open(out), tmp_path / "whole")
    assert_same(day_by_day.run, at_once.run)
    assert at_once.result.step > run.latest_checkpoint().position.step


def test_it_goes_on_after_a_user_was_forgotten(tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(LOG.day(0), out, split=SPLIT)
    run = train_ranker(ranker(), PreparedData.open(out), tmp_path / "first", TRAINING).run
    id_map = PreparedData.open(out).transform.id_maps["user"]
    forget(out, id_map.key_of_id(id_map.first_key_id), runs=[run.path])
    append(out, 1)
    data = PreparedData.open(out)
    done = continue_run(Run.open(run.path), data, tmp_path / "run")
    assert done.run.record.continues.since.partitions == tuple(data.state.partitions[:1])
    assert done.run.record.continues.since.partitions != run.record.data.partitions
    assert done.result.finished and done.result.rows > run.result().rows
    user = transform_at(data, 2).id_maps["user"]
    assert len(tensors(done.run)["tables:user.main"]) == user.num_rows > id_map.num_rows


def test_the_best_weights_are_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(LOG.day(0), out, split=SPLIT)
    training = replace(TRAINING, epochs=6, early_stop="click.log_loss", patience=1, lr=0.3)
    trained = train_ranker(ranker(lr=0.3), PreparedData.open(out), tmp_path / "first", training)
    assert trained.result.best is not None and trained.result.best.step < trained.result.step
    append(out, 1)
    data = PreparedData.open(out)
    done = continue_run(trained.run, data, tmp_path / "run")
    view, inputs = data.pinned(trained.run.transform()), trained.run.record.inputs
    best, splits = load_ranker(trained.run), ("train", "valid", "test")
    rows = [Loader(view, inputs, split, batch_size=512, partitions=(2,)) for split in splits]
    known = [predict_split(best, loader, inputs.tasks).metrics("click") for loader in rows]
    mean = sum(m.log_loss * m.rows for m in known) / sum(m.rows for m in known)
    assert done.days[0]["log_loss"] == pytest.approx(mean)


@pytest.mark.parametrize("chosen", [slice(0, 1), slice(2, 3)], ids=["the first day", "the second day alone"])
def test_a_run_of_some_of_the_days_goes_on_with_those_after_them(world, tmp_path: Path, chosen: slice) -> None:
    data = PreparedData.open(world[0])
    state = states(data)[chosen.stop - 1]
    then = data.at(replace(state, partitions=state.partitions[chosen]))
    run = train_ranker(ranker(), then, tmp_path / "first", TRAINING).run
    done = continue_run(run, data, tmp_path / "run")
    rows = [entry.name for entry in data.manifest.partitions[chosen.stop :] if entry.kind == "rows"]
    assert [day["partition"] for day in done.days] == [name for name in rows for _ in range(2)]
    assert {day["rows"] for day in done.days} == {400}
    assert done.result.finished and load_ranker(done.run)


def test_the_bar_counts_the_rows_of_its_stage(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    def counted(**options) -> Progress:
        bars.append((options["total"], options["done"]))
        return Progress(**options)

    monkeypatch.setattr(loop, "Progress", counted)
    done = continue_run(world[1], PreparedData.open(world[0]), tmp_path / "run")
    assert [total for total, _ in bars] == [*(begun for _, begun in bars[1:]), done.result.rows]


def test_what_cannot_go_on_says_why(world, tmp_path: Path) -> None:
    folder, run = world
    data = PreparedData.open(folder)
    with pytest.raises(RunError, match=r"to have a partition that .*first has not seen, it has none. Append the next"):
        continue_run(run, until(data, 1), tmp_path / "run")
    half = train_ranker(ranker(), until(data, 1), tmp_path / "half", TRAINING, callbacks=[_Interrupt(2)]).run
    with pytest.raises(RunError, match="half to be finished, it is not"):
        continue_run(half, data, tmp_path / "run")
    prepare(SimulatedLog(replace(LOG.config, seed=9)).day(0), tmp_path / "other", split=SPLIT)
    with pytest.raises(LineageError, match="first"):
        continue_run(run, PreparedData.open(tmp_path / "other"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match=r"first to continue .*first, it continues no run. Give the new run a folder"):
        continue_run(run, data, run.path)
    done = continue_run(run, until(data, 2), tmp_path / "run").run
    with pytest.raises(RunError, match=r"run to continue .*run, it continues .*first at step \d+"):
        continue_run(done, data, done.path)


def test_late_labels_after_the_last_day_are_a_stage_of_their_own(world, tmp_path: Path) -> None:
    folder, run = world
    data = until(PreparedData.open(folder), 4)
    done = continue_run(run, data, tmp_path / "run")
    names = [entry.name for entry in data.manifest.partitions]
    stages = done.run.record.continues.stages
    assert [(stage.partitions, stage.day) for stage in stages] == [
        (tuple(names[1:3]), names[2]),
        ((names[3],), ""),
    ]
    assert [day["partition"] for day in done.days] == [names[2]] * 2  # nothing to measure in the second
    shorter = continue_run(run, until(data, 3), tmp_path / "shorter")
    assert done.result.rows > shorter.result.rows  # but windows that closed by then are learned
    assert_same(done.run, continue_run(shorter.run, data, tmp_path / "then").run)
