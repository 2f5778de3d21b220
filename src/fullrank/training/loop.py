"""The training loop: micro-batches → losses → one step → what is written down → a place to resume from.

A checkpoint is taken between steps only, so no half of an accumulation is ever stored: a kill inside a step goes back
to the checkpoint before it and does the step again from the same rows and the same random state. On one machine, with
the same number of threads, a resumed run has the losses and weights of an undisturbed one, bit for bit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from shutil import rmtree
from typing import Any, Protocol

import torch
from torch import nn

from fullrank.data.batch import Batch, to_device
from fullrank.kernels.pages import keep_freed_memory
from fullrank.training.average import DenseAverage
from fullrank.training.callbacks import Best, Callback, Result, StepReport, TaskMetrics
from fullrank.training.checkpoint import Position, keep_newest
from fullrank.training.config import TrainConfig
from fullrank.training.increments import Increments
from fullrank.training.metrics_log import MetricsLog, finite
from fullrank.training.objectives import Objective
from fullrank.training.optimizers import RankerOptimizer
from fullrank.training.progress import Progress
from fullrank.training.run import Run
from fullrank.training.seeds import derive_seed
from fullrank.training.stop import StopSignals
from fullrank.training.watch import Better, Watch, check_watched, value_of
from fullrank.training.weights import file_writers, load_weights, read_from, tables_of, weight_tensors

FIRST_ROWS = ".first"  # of checkpoints/: tables that live on disk, until the first checkpoint


class TrainingError(RuntimeError):
    """Training cannot go on. The message says at which step, why, and what to do."""


def warmup_rows(config: TrainConfig, num_rows: int) -> int:
    """The rows of the warm-up of a run on `num_rows` rows; an error where it would not end before the run."""
    total, warmup = config.epochs * num_rows, config.schedule.warmup_steps * config.accumulate * config.batch_size
    if warmup >= total and warmup:
        raise TrainingError(f"Expected a warm-up of less than all {total} rows, got {warmup} rows.")
    return warmup


class Batches(Protocol):
    """What is asked of a training loader: batches whose order is a function of (its seed, epoch), from any row on."""

    num_rows: int
    batch_size: int

    def epoch(self, epoch: int, start_row: int = 0) -> Iterator[Batch]: ...


Validate = Callable[[nn.Module], TaskMetrics]


def train(
    ranker: nn.Module,
    loader: Batches,
    objective: Objective,
    config: TrainConfig,
    run: Run,
    *,
    validate: Validate | None = None,
    scores: Mapping[str, Better] | None = None,
    callbacks: Sequence[Callback] = (),
    how_to_resume: str = "",
) -> Result:
    """Train `ranker` in place, from the run's newest checkpoint if it has one, to the end of the last epoch, or until
    `config.early_stop` says so.

    Args:
        ranker: as built for this run, on its device; the weights of a checkpoint replace its own.
        loader: training rows, `config.batch_size` at a time.
        objective: named losses; their sum is descended.
        run: where metrics and checkpoints go.
        validate: ranker → {task: {metric: value}}, by the clocks of `config`. It may draw random numbers.
        scores: the TASK.METRIC of what `validate` gives that training may go by, and which way each is better.
        callbacks: called in this order.
        how_to_resume: the command that comes here again, printed when the run is stopped.

    Returns how it ended; the ranker then has the run's final weights: those of the best validation with `early_stop`,
    the averaged ones with `ema_decay`. Ctrl-C and SIGTERM finish the step, save, and return with `finished` False; a
    finished run returns its result at once, with the final weights loaded.

    Raises:
        WatchError: `config` goes by a metric that `scores` does not name, or that is not defined.
        TrainingError: a loss or a gradient is not finite (the weights are those of the step before), or the data are
            not those of the checkpoint.
    """
    if loader.batch_size != config.batch_size:
        raise TrainingError(f"Expected a loader of batch_size {config.batch_size}, got {loader.batch_size}.")
    if getattr(objective, "whole_requests", False) and not getattr(loader, "whole_requests", False):
        raise TrainingError("Expected a loader with whole_requests=True, since the objective compares their rows.")
    check_watched(config, scores if validate is not None else None)
    keep_freed_memory()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))  # the caller's random state is left alone
        training = _Training(ranker, loader, objective, config, run, validate, scores or {}, callbacks, stack)
        result = training.run_to_end()
    if result.stopped_by:
        again = how_to_resume or "run the same command again"
        place = f"step {result.step} ({result.epoch} of {config.epochs} epochs done)"
        print(f"Stopped by {result.stopped_by} after {place}; saved in {run.path}. To resume: {again}", file=sys.stderr)
    for callback in callbacks:
        callback.on_end(ranker, result)
    return result


class _Training:
    def __init__(
        self,
        ranker: nn.Module,
        loader: Batches,
        objective: Objective,
        config: TrainConfig,
        run: Run,
        validate: Validate | None,
        scores: Mapping[str, Better],
        callbacks: Sequence[Callback],
        stack: ExitStack,
    ) -> None:
        self.ranker, self.loader, self.objective, self.config = ranker, loader, objective, config
        self.run, self.validate, self.scores, self.callbacks = run, validate, scores, callbacks
        self.total = config.epochs * loader.num_rows
        self.warmup = warmup_rows(config, loader.num_rows)
        self.device = next(ranker.parameters()).device
        self.optimizer = RankerOptimizer(ranker, config)
        self.increments = Increments(self.optimizer, config.full_checkpoint_every)
        self.average = DenseAverage(ranker, config.ema_decay)
        self.result = run.result()
        self.at = run.load_weights(ranker) if self.result is not None else self._restored()
        self.saved_step = self.at.step
        self.started = time.monotonic() - self.at.seconds
        if self.result is None:
            self.stop = stack.enter_context(StopSignals())
            self.log = MetricsLog(run.path / "metrics.jsonl", self.at.metrics_bytes)
            stack.callback(self.log.close)
            ahead = (config.epochs - self.at.epoch) * loader.num_rows - self.at.row  # past epochs may have had others
            self.progress = Progress(total=self.at.rows + ahead, done=self.at.rows, metric=config.early_stop)
            stack.callback(self.progress.close)

    def _restored(self) -> Position:
        torch.default_generator.manual_seed(derive_seed(self.config.seed, "train"))
        checkpoint = self.run.latest_checkpoint()
        if checkpoint is None:
            tables_of(self.ranker).begin_on_disk(self.run.path / "checkpoints" / FIRST_ROWS)
            return Position(epoch_rows=self.loader.num_rows)
        rmtree(self.run.path / "checkpoints" / FIRST_ROWS, ignore_errors=True)  # of a process killed when it began
        if checkpoint.position.epoch_rows != self.loader.num_rows:
            raise TrainingError(
                f"Expected {checkpoint.position.epoch_rows} training rows as at checkpoint {checkpoint.path}, got "
                f"{self.loader.num_rows}: the data changed. Name the partitions the run began with, or start a new run."
            )
        load_weights(self.ranker, checkpoint)
        state = checkpoint.tensors("optimizer")
        torch.set_rng_state(state.pop("random"))
        self.optimizer.load_state_tensors(state)
        if self.config.ema_decay is not None:
            self.average.load(checkpoint.tensors("average"))
        return checkpoint.position

    @property
    def waited_out(self) -> bool:
        return bool(self.config.early_stop) and self.at.early.waited >= self.config.patience

    @property
    def over(self) -> bool:
        return bool(self.stop.received) or self.waited_out

    def run_to_end(self) -> Result:
        if self.result is not None:
            return self.result
        self.ranker.train()
        if self.at.step:
            self._validate_if_due()  # a kill may have come between a checkpoint and its validation
        while self.at.epoch < self.config.epochs and not self.over:
            batches = self.loader.epoch(self.at.epoch, self.at.row)
            epoch = self.at.epoch
            while self.at.epoch == epoch and not self.over:
                self._step(batches)
                self._save_if_due()
                self._validate_if_due()
        if self.saved_step != self.at.step:
            self._save()
        else:  # a kill may have come between the last checkpoint and the removal of older ones
            keep_newest(self.run.path / "checkpoints", self.at.step, self.config.keep_checkpoints)
        result = Result(
            finished=not self.stop.received,
            stopped_by=self.stop.received,
            step=self.at.step,
            epoch=self.at.epoch,
            rows=self.at.rows,
            loss=self.at.loss,
            valid=self.at.valid,
            seconds=self._seconds(),
            ended="signal" if self.stop.received else "early_stop" if self.waited_out else "epochs",
        )
        if result.finished:
            result = self._with_final_weights(result)
            self.log.committed()
            self.run.finish(result)
            self.progress.ended(result)
        return result

    def _with_final_weights(self, result: Result) -> Result:
        """The ranker gets the weights that the run ends with; what is said of them is read with them."""
        if not self.config.early_stop:
            self.average.put()
            return result
        checkpoint = self.run.best_checkpoint()
        load_weights(self.ranker, checkpoint)
        found = checkpoint.position.early
        assert found.best is not None
        best = Best(metric=self.config.early_stop, value=found.best, step=found.step, epoch=found.epoch)
        return replace(result, best=best, valid=checkpoint.position.valid)

    def _step(self, batches: Iterator[Batch]) -> None:
        step, rows, sums = self.at.step + 1, 0, {}
        micro = 0
        for micro, batch in enumerate(islice(batches, self.config.accumulate), start=1):
            if self.device.type != "cpu":
                batch = to_device(batch, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
                output = self.ranker(batch)
            losses = self.objective(output, batch)
            stacked = torch.stack(list(losses.values()))
            values = dict(zip(losses, stacked.tolist(), strict=True))
            for name, value in values.items():
                if value - value != 0:
                    raise self._not_finite(f"loss {name!r} is {value} in micro-batch {micro} of step {step}")
                sums[name] = sums.get(name, 0.0) + value
            stacked.sum().backward()
            self.optimizer.collect()
            rows += batch.num_rows
        if not micro:
            raise TrainingError(
                f"Expected {self.loader.num_rows} rows in epoch {self.at.epoch}, the loader ended at {self.at.row}."
            )
        after = self.at.rows + rows
        factor = self.at.lr_factor * self.config.schedule.at(
            self.at.rows, after, warmup=self.warmup, total=self.total
        )
        self.optimizer.set_lr_factor(factor)
        norm = self.optimizer.apply(self.config.clip_norm)
        if norm - norm != 0:
            raise self._not_finite(f"the norm of the gradient is {norm} in step {step}")
        report = StepReport(
            step=step,
            epoch=self.at.epoch,
            rows=after,
            losses={name: value / micro for name, value in sums.items()},
            loss=sum(sums.values()) / micro,
            grad_norm=norm,
            lr=self.config.lr * factor,
        )
        self.average.update(step)
        self._advance(report, rows)
        self.progress.step(rows, report.loss)
        for callback in self.callbacks:
            with torch.random.fork_rng(devices=[]):
                line = callback.on_step(self.ranker, report)
            if line:
                self._write(epoch=report.epoch, **line)

    def _advance(self, report: StepReport, rows: int) -> None:
        """The position after the step, and a line in the log when one is due."""
        at = self.at
        window = {name: at.window.get(name, 0.0) + value for name, value in report.losses.items()}
        epoch_ends = at.row + rows >= self.loader.num_rows
        self.at = at = replace(
            at,
            step=report.step,
            epoch=at.epoch + epoch_ends,
            row=0 if epoch_ends else at.row + rows,
            rows=report.rows,
            loss=report.loss,
            window=window,
            window_steps=at.window_steps + 1,
            window_norm=at.window_norm + report.grad_norm,
        )
        if epoch_ends or at.step % self.config.log_every_steps == 0:
            losses = {name: value / at.window_steps for name, value in window.items()}
            self._write(
                epoch=report.epoch,
                loss=sum(losses.values()),
                losses=losses,
                grad_norm=at.window_norm / at.window_steps,
                lr=report.lr,
            )
            self.at = replace(at, window={}, window_steps=0, window_norm=0.0)

    def _validate_if_due(self) -> None:
        at, config = self.at, self.config
        by_epoch = config.validate_every_epochs and at.row == 0 and at.epoch % config.validate_every_epochs == 0
        by_step = config.validate_every_steps and at.step % config.validate_every_steps == 0
        by_end = config.early_stop and at.epoch == config.epochs and at.early.best is None  # some weights must be best
        if self.validate is None or at.validated_step == at.step or not (by_epoch or by_step or by_end):
            return
        if self.stop.received:
            return  # the resumed run validates first
        with self.average.in_place():
            with torch.random.fork_rng(devices=[]):
                metrics = self.validate(self.ranker)
            self.ranker.train()
            self.at = self._judged(metrics)
            if config.early_stop and self.at.early.step == at.step:
                self.run.save_best(self.at, weight_tensors(self.ranker), file_writers(self.ranker))
            self._write(epoch=at.epoch - (at.row == 0), valid=metrics)
            self.progress.validated(metrics, self.at.early)
            for callback in self.callbacks:
                with torch.random.fork_rng(devices=[]):
                    callback.on_validate(self.ranker, at.step, metrics)

    def _judged(self, metrics: TaskMetrics) -> Position:
        """The position after a validation: what early stopping and the plateau make of it."""
        at, config, schedule = self.at, self.config, self.config.schedule
        epoch = at.epoch + (at.row > 0)

        def seen(watch: Watch, name: str) -> Watch:
            better, value = self.scores[name], value_of(metrics, name, self.scores)
            return watch.seen(value, better, config.min_improvement, step=at.step, epoch=epoch)

        at = replace(at, validated_step=at.step, valid=finite(metrics))
        if config.early_stop:
            at = replace(at, early=seen(at.early, config.early_stop))
        if schedule.decay == "plateau":
            plateau = seen(at.plateau, schedule.metric)
            if plateau.waited >= schedule.patience:
                at = replace(at, lr_factor=schedule.lowered(at.lr_factor))
                plateau = replace(plateau, waited=0)
            at = replace(at, plateau=plateau)
        return at

    def _write(self, *, epoch: int, **values: Any) -> None:
        at = self.at
        self.log.write({"step": at.step, "epoch": epoch, "rows": at.rows, **values, "seconds": self._seconds()})

    def _save_if_due(self) -> None:
        every = self.config.checkpoint_every_steps
        full = any(disk.full for disk in tables_of(self.ranker).on_disk())
        if self.at.row == 0 or full or (every is not None and self.at.step % every == 0):
            self._save()

    def _save(self) -> None:
        self.at = replace(self.at, metrics_bytes=self.log.committed(), seconds=self._seconds())
        optimizer: Mapping[str, torch.Tensor] = {
            "random": torch.get_rng_state(),
            **self.optimizer.state_tensors(),
        }
        parts = weight_tensors(self.ranker) | {"optimizer": optimizer} | self.average.parts()
        changes = self.increments.changes(parts, whole=self.at.row == 0)
        files = file_writers(self.ranker)
        keep = self.config.keep_checkpoints
        checkpoint = self.run.save(self.at, parts, keep + bool(files), changes, files)
        self.increments.saved(checkpoint, changes)
        if files:  # of the one before, which not every file system lets go while it is read
            read_from(self.ranker, checkpoint)
            keep_newest(self.run.path / "checkpoints", self.at.step, keep)
        self.saved_step = self.at.step

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _not_finite(self, what: str) -> TrainingError:
        checkpoint = self.run.latest_checkpoint()
        saved = f"The last checkpoint is {checkpoint.path}." if checkpoint else "There is no checkpoint yet."
        return TrainingError(
            f"Cannot go on: {what} (epoch {self.at.epoch + 1}). {saved} Resuming would come here again: start a new "
            f"run with a lower lr (now {self.config.lr}), lower table lrs or clip_norm (now {self.config.clip_norm})."
        )
