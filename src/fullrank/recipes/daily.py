"""The daily loop: a run goes on with what was appended to its data, and is measured on each day before it learns it.

Every partition of rows that the run has not seen is a stage, with the late labels appended before it; late labels after
the last one are a stage, too. The rows are first predicted, by the ranker as it was in force that day: before the late
labels that came by its end, and by its own id maps, so that new keys are unknown to it. Then tables grow, and one pass
goes over the labels that became known by the stage: those of the new partition that count, and of older ones those
whose window closed or that came late. So every label is learned once, when it is known. Day by day or all in one
command leave the same weights, bit for bit.

Late labels share the day's pass (our choice): where a pass over conversions alone came between two days, it moved what
clicks are predicted from, and clicks were predicted just after it.

When not to use it: after a change of ranker or settings (see `warm_start`), or where old labels were corrected: what
was learned of them stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fullrank.config_json import decode
from fullrank.data.batch import Batch
from fullrank.data.loader import Loader
from fullrank.data.partitions import DataState, PreparedData
from fullrank.data.states import states, transform_at
from fullrank.data.transform import Transform
from fullrank.evaluation.evaluate import predict_split
from fullrank.rankers import Ranker
from fullrank.recipes.stages import PARTS, StageRun, advanced, first_state, grown, one_pass
from fullrank.recipes.train import ranker_config
from fullrank.recipes.validation import EVALUATION_BATCH
from fullrank.training.callbacks import Callback, Result
from fullrank.training.checkpoint import Checkpoint
from fullrank.training.loop import train
from fullrank.training.metrics_log import MetricsLog, finite
from fullrank.training.objectives import MultiTask
from fullrank.training.origins import Continued, Origin, Stage
from fullrank.training.run import Run, RunError
from fullrank.training.weights import file_writers, load_weights

PROGRESSIVE = "progressive.json"


@dataclass(frozen=True)
class Daily:
    """A continued run, how it ended, and what each day said of it before it was learned: one entry a day and task, with
    `day`, `partition`, `task`, `rows`, `known` and the metrics of the task's kind."""

    run: Run
    result: Result
    days: tuple[dict[str, Any], ...]


def continue_run(
    source: Run,
    data: PreparedData,
    path: Path | str,
    *,
    callbacks: Sequence[Callback] = (),
    how_to_resume: str = "",
) -> Daily:
    """Go on with `source` on the partitions of `data` that it has not seen; `source` itself is only read.

    Args:
        source: a finished run of this data, or of an earlier version of it.
        path: the new run's folder. It begins with all that `source` had: weights, optimizer state, step count. The same
            call again resumes it, on the partitions it began with.
        callbacks: called as by `train`, `on_end` at the end of each stage.

    Days are measured over all rows of their partition, whatever their split, with the labels that are known at the end
    of the last stage; training reads the `train` split alone. `metrics.jsonl` has a line with `progressive` for each
    day and task, `progressive.json` all of them.

    Raises `RunError` where `source` is not finished, `path` holds another run, or there is no new partition;
    `LineageError` where the data are not of `source`'s lineage.
    """
    path = Path(path)
    data.lineage.check(source.record.lineage, str(source.path))
    run = _opened(path, source) if (path / "run.json").exists() else _created(path, source, data)
    result = run.result()
    if result is None:
        result = _Stages(source, run, data).go(callbacks, how_to_resume)
    return Daily(run, result, _days(run))


class _Stages:
    """All stages of one continued run, from where it stands."""

    def __init__(self, source: Run, run: Run, data: PreparedData) -> None:
        record = run.record
        assert record.continues is not None
        self.source, self.run, self.data, self.record = source, run, data, record
        self.since, self.stages, self.first_epoch = (
            record.continues.since,
            record.continues.stages,
            record.continues.epoch,
        )
        self.config = ranker_config(run)
        self.objective = decode(MultiTask, record.objective, f"{run.path / 'run.json'}: objective")
        self.index = {entry.name: index for index, entry in enumerate(data.manifest.partitions)}
        assert record.data is not None
        self.end = data.at(record.data)
        pin, versions = source.record.lineage, data.lineage.versions
        self.pinned = pin.version if any(v.hash == pin.hash for v in versions[pin.version : pin.version + 1]) else -1
        self.fitted: dict[int, Transform] = {}

    def go(self, callbacks: Sequence[Callback], how_to_resume: str) -> Result:
        state: Checkpoint = self.run.latest_checkpoint() or first_state(self.source, self.first_epoch)
        while (number := state.position.epoch - self.first_epoch) < len(self.stages):
            within = state.position.row > 0
            ranker = self._built(number if within else number - 1)
            loader = self._loader(number)
            config = one_pass(self.record.train, state.position.epoch)
            if not within:
                state = self._begin(number, ranker, state, loader.num_rows)
            if not loader.num_rows:
                state = advanced(state, replace(state.position, epoch=state.position.epoch + 1))
                continue
            stage = StageRun(self.run.path, self.record, self.run.schema, None if within else state)
            result = train(
                ranker,
                loader,
                self.objective,
                config,
                stage,
                callbacks=callbacks,
                how_to_resume=how_to_resume,
            )
            if not result.finished:
                return result
            newest = self.run.latest_checkpoint()
            assert newest is not None
            state = newest
        return self._finish(state)

    def _begin(self, number: int, ranker: Ranker, state: Checkpoint, num_rows: int) -> Checkpoint:
        """Measure the stage's day, if it has one, then grow: what the stage's pass begins with."""
        stage, position = self.stages[number], state.position
        log = MetricsLog(self.run.path / "metrics.jsonl", position.metrics_bytes)
        try:
            if stage.day:
                load_weights(ranker, state, averaged=True)
                at = {"step": position.step, "epoch": position.epoch, "rows": position.rows}
                for line in self._measured(number, ranker):
                    log.write({**at, "progressive": line, "seconds": position.seconds})
            written = log.committed()
        finally:
            log.close()
        parts = grown(ranker, state, self._transform(number).num_rows, self.record.train)
        return advanced(state, replace(position, epoch_rows=num_rows, metrics_bytes=written), parts)

    def _measured(self, number: int, ranker: Ranker) -> Iterator[dict[str, Any]]:
        """A line a task: the ranker before the stage on all rows of the stage's day."""
        inputs, name = self.record.inputs, self.stages[number].day
        seen = self.end.pinned(self._transform(number - 1))
        index, entry = next((i, e) for i, e in enumerate(self.end.manifest.partitions) if e.name == name)
        rows = _AllSplits(
            [
                Loader(seen, inputs, split, batch_size=EVALUATION_BATCH, partitions=(index,))
                for split in entry.splits
            ]
        )
        day = _day(entry.time_min, bool(self.run.schema.roles.time), name)
        predictions = predict_split(ranker, rows, inputs.tasks, progress=day)
        for task in inputs.task_names:
            metrics = asdict(predictions.task_metrics(task))
            known = metrics.pop("rows")
            total = known + metrics.pop("unknown")
            yield {"day": day, "partition": name, "task": task, "rows": total, "known": known, **metrics}

    def _finish(self, state: Checkpoint) -> Result:
        """The run as it is after the last stage."""
        newest, position = self.run.latest_checkpoint(), state.position
        if newest is None or newest.position.epoch < position.epoch:  # the last stages had nothing to learn, but grew
            parts = {part: state.tensors(part) for part in PARTS if state.has(part)}
            ranker = self._built(len(self.stages) - 1)
            load_weights(ranker, state)
            self.run.save(position, parts, self.record.train.keep_checkpoints, files=file_writers(ranker))
        lines = [json.dumps(line, allow_nan=False) for line in _days(self.run)]
        draft = self.run.path / f".{PROGRESSIVE}"
        draft.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
        draft.replace(self.run.path / PROGRESSIVE)
        result = Result(
            finished=True,
            stopped_by="",
            step=position.step,
            epoch=position.epoch,
            rows=position.rows,
            loss=position.loss,
            valid={},
            seconds=position.seconds,
        )
        self.run.finish(result)
        return result

    def _built(self, number: int) -> Ranker:
        """The ranker with tables of the size they have after stage `number` (-1: the source's)."""
        return self.config.build(self.record.inputs, self._transform(number).num_rows, self.record.seed)

    def _transform(self, number: int) -> Transform:
        """What was fitted by stage `number` (-1: the source's, which may be of a later version, where the source was
        trained on `PreparedData.at`). Two are held: of a stage and of the one before."""
        if number not in self.fitted:
            before = number - 1
            self.fitted = {before: self.fitted[before]} if before in self.fitted else {}
            index = self.index[self.stages[number].partitions[-1]] if number >= 0 else -1
            if number < 0 or self.data.manifest.partitions[index].lineage_version < self.pinned:
                self.fitted[number] = self.source.transform()
            else:
                self.fitted[number] = transform_at(self.data, index)
        return self.fitted[number]

    def _loader(self, number: int) -> Loader:
        """What became known by a stage: the training rows of which some label did."""
        return Loader(
            self.data.at(self._state(number)).pinned(self._transform(number)),
            self.record.inputs,
            "train",
            batch_size=self.record.train.batch_size,
            seed=self.record.train.seed,
            shuffle=True,
            whole_requests=self.objective.whole_requests,
            since=self._state(number - 1),
        )

    def _state(self, number: int) -> DataState:
        if number < 0:
            return self.since
        names = tuple(name for stage in self.stages[: number + 1] for name in stage.partitions)
        return DataState(partitions=(*self.since.partitions, *names), as_of=self.stages[number].as_of)


class _AllSplits:
    """Several loaders one after another."""

    def __init__(self, loaders: list[Loader]) -> None:
        self._loaders = loaders
        self.num_rows = sum(loader.num_rows for loader in loaders)

    def epoch(self, epoch: int, start_row: int = 0) -> Iterator[Batch]:
        assert start_row == 0
        for loader in self._loaders:
            yield from loader.epoch(epoch)


def _created(path: Path, source: Run, data: PreparedData) -> Run:
    record, newest = source.record, source.latest_checkpoint()
    if newest is None or source.result() is None:
        raise RunError(f"Expected {source.path} to be finished, it is not: run its own command again first.")
    if record.data is None:
        raise RunError(f"Expected {source.path} to be a run of prepared data, it names none: there is no next day.")
    since = data.renamed(record.data)
    entries = data.manifest.partitions
    seen = max((number for number, entry in enumerate(entries, start=1) if entry.name in since.partitions), default=0)
    stages, names, as_of = [], [], since.as_of
    for entry, state in list(zip(entries, states(data), strict=True))[seen:]:  # older ones were left out on purpose
        names.append(entry.name)
        as_of = max(as_of, state.as_of)
        if entry.kind == "rows" or entry is entries[-1]:
            day = entry.name if entry.kind == "rows" else ""
            stages.append(Stage(partitions=tuple(names), day=day, as_of=as_of))
            names = []
    if not stages:
        raise RunError(
            f"Expected {data.folder} to have a partition that {source.path} has not seen, it has none. "
            f"Append the next day first: fullrank prepare FILES --append {data.folder}"
        )
    position = newest.position
    return Run.create(
        path,
        type_tag=record.type_tag,
        config=ranker_config(source),
        inputs=record.inputs,
        num_rows=data.transform.num_rows,
        seed=record.seed,
        schema=source.schema,
        transform=data.transform,
        lineage=data.lineage.pin,
        train=record.train,
        objective=decode(MultiTask, record.objective, f"{source.path / 'run.json'}: objective"),
        data=DataState(partitions=(*since.partitions, *(n for stage in stages for n in stage.partitions)), as_of=as_of),
        continues=Continued(
            origin=Origin.of(str(source.path), newest),
            since=since,
            epoch=position.epoch + (position.row > 0),
            stages=tuple(stages),
        ),
    )


def _opened(path: Path, source: Run) -> Run:
    run, newest = Run.open(path), source.latest_checkpoint()
    there = run.record.continues
    if there is None or newest is None or there.origin != Origin.of(there.origin.run, newest):
        what = f"{there.origin.run} at step {there.origin.step}" if there else "no run"
        raise RunError(
            f"Expected {path} to continue {source.path}, it continues {what}. Give the new run a folder of its own."
        )
    return run



def _day(time_min: int | None, has_clock: bool, partition: str) -> str:
    """The date (UTC) of a partition's first row; its number where the log has no clock."""
    if time_min is None or not has_clock:
        return partition.split("-")[0]
    return datetime.fromtimestamp(time_min / 1e6, UTC).date().isoformat()


def _days(run: Run) -> tuple[dict[str, Any], ...]:
    with (run.path / "metrics.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return tuple(finite(line["progressive"]) for line in lines if "progressive" in line)
