"""A ranker over a split: predictions as arrays, and the metrics of every task from them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import nn

from fullrank.data.batch import Batch, to_device
from fullrank.data.inputs import TaskInput
from fullrank.evaluation.metrics import (
    auc,
    auc_per_user,
    brier,
    ece,
    log_loss,
    mae,
    mse,
    normalised_entropy,
    pcoc,
    r2,
)
from fullrank.evaluation.ranking import RankingMetrics, ranking_metrics
from fullrank.schema import TaskKind, did_you_mean


class Batches(Protocol):
    """What is asked of a loader: `num_rows` a pass, and the batches of a pass (each with labels)."""

    num_rows: int

    def epoch(self, epoch: int, start_row: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """A binary task on one split. Ranking metrics count every row once; the others undo `sample_rate`.

    `rows` have a known label, `unknown` have not (and enter nothing). `user_auc` is weighted by impressions, over the
    `users` with both classes; `users_skipped` have one class alone. It is nan where the log has no user. `log_loss` is
    in nats, `pcoc` is mean prediction / mean label, `ece` has 20 bins of equal row count.
    """

    rows: int
    unknown: int
    positives: int
    auc: float
    user_auc: float
    users: int
    users_skipped: int
    log_loss: float
    normalised_entropy: float
    pcoc: float
    ece: float
    brier: float


@dataclass(frozen=True, kw_only=True)
class RegressionMetrics:
    """A regression task on one split: every row counts 1 / `sample_rate`. `mse` is in the label's unit squared."""

    rows: int
    unknown: int
    mse: float
    mae: float
    r2: float


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """N rows in the loader's order, K tasks in the order of `tasks`; `kinds` says what each of them is.

    `logits_NK` float32 (of a regression task: the predicted number) · `labels_NK` float32, 0 where not `known_NK` ·
    `user_N` int64 key codes (0: none) · `time_N` int64 µs or position of the row's request · `sample_rate_N` float32 ·
    `request_N` int64: the number of the row's request, where that is known (`row_columns`; a batch may cut a request,
    so batches do not tell).
    """

    tasks: tuple[str, ...]
    kinds: tuple[TaskKind, ...]
    logits_NK: np.ndarray
    labels_NK: np.ndarray
    known_NK: np.ndarray
    user_N: np.ndarray
    time_N: np.ndarray
    sample_rate_N: np.ndarray
    request_N: np.ndarray | None = None

    def rows(self, index: np.ndarray) -> Predictions:
        """The rows `index` (positions, or a bool mask) alone: a slice to look at."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("tasks", "kinds")}
        columns = {name: None if column is None else column[index] for name, column in columns.items()}
        return replace(self, **columns)

    def column(self, task: str) -> int:
        """The place of a task; an error names the nearest one."""
        if task not in self.tasks:
            raise ValueError(f"Expected a task of {list(self.tasks)}, got {task!r}.{did_you_mean(task, self.tasks)}")
        return self.tasks.index(task)

    def kind(self, task: str) -> TaskKind:
        return self.kinds[self.column(task)]

    def metrics(self, task: str) -> Metrics:
        """The metrics of one binary task over the rows whose label is known."""
        labels, logits, rate, known = self._known(task, "binary")
        user = self.user_N[known]
        try:
            per_user = auc_per_user(labels[user != 0], logits[user != 0], user[user != 0])
            return Metrics(
                rows=len(labels),
                unknown=int((~known).sum()),
                positives=int(labels.sum(dtype=np.float64)),
                auc=auc(labels, logits),
                user_auc=per_user.value,
                users=per_user.users,
                users_skipped=per_user.skipped,
                log_loss=log_loss(labels, logits, rate),
                normalised_entropy=normalised_entropy(labels, logits, rate),
                pcoc=pcoc(labels, logits, rate),
                ece=ece(labels, logits, rate),
                brier=brier(labels, logits, rate),
            )
        except ValueError as error:
            raise ValueError(f"Task {task!r}: {error}") from error

    def regression_metrics(self, task: str) -> RegressionMetrics:
        """The metrics of one regression task over the rows whose label is known."""
        labels, values, rate, known = self._known(task, "regression")
        weights = 1.0 / rate.astype(np.float64)
        try:
            return RegressionMetrics(
                rows=len(labels),
                unknown=int((~known).sum()),
                mse=mse(labels, values, weights),
                mae=mae(labels, values, weights),
                r2=r2(labels, values, weights),
            )
        except ValueError as error:
            raise ValueError(f"Task {task!r}: {error}") from error

    def ranking(self, task: str, ks: Sequence[int] = (1, 5, 10)) -> RankingMetrics | None:
        """How a binary task orders the rows within each request; None where no request has several rows.

        Requests of one row of known label are left out (our choice): any model orders them rightly.
        """
        labels, logits, _, known = self._known(task, "binary")
        if self.request_N is None or not len(labels):
            return None
        _, number_N, rows_R = np.unique(self.request_N[known], return_inverse=True, return_counts=True)
        several = rows_R[number_N] > 1
        return ranking_metrics(labels[several], logits[several], number_N[several], ks) if several.any() else None

    def task_metrics(self, task: str) -> Metrics | RegressionMetrics:
        """`metrics` or `regression_metrics`, whichever the task's kind asks for."""
        return self.metrics(task) if self.kind(task) == "binary" else self.regression_metrics(task)

    def _known(self, task: str, kind: TaskKind) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        column = self.column(task)
        if self.kinds[column] != kind:
            raise ValueError(f"Expected a {kind} task, got {self.kinds[column]} task {task!r}.")
        known = self.known_NK[:, column]
        return self.labels_NK[known, column], self.logits_NK[known, column], self.sample_rate_N[known], known


def evaluate(
    ranker: nn.Module, loader: Batches, tasks: Sequence[str | TaskInput], *, progress: str = ""
) -> dict[str, Metrics | RegressionMetrics]:
    """The metrics of every task over one pass. See `predict_split`."""
    predictions = predict_split(ranker, loader, tasks, progress=progress)
    return {task: predictions.task_metrics(task) for task in predictions.tasks}


def predict_split(
    ranker: nn.Module, loader: Batches, tasks: Sequence[str | TaskInput], *, progress: str = ""
) -> Predictions:
    """Logits and labels of every row of one pass, in eval mode and without gradients; the mode is restored after.

    Args:
        ranker: gives an output with `logits[task]` of shape [B] for every task, on the device of its parameters.
        loader: any pass will do; with `shuffle=False` the rows come in the order of the data.
        tasks: the label columns, in their order (`Inputs.tasks`); a name stands for a binary task.
        progress: the words in front of a progress bar on a terminal; none if empty.

    Keeps 4 bytes a row and logit, and about 30 more a row: a split of 10⁸ rows and 2 tasks takes 4.6 GB.
    """
    wanted = tuple(TaskInput(name=task) if isinstance(task, str) else task for task in tasks)
    several = [task for task in wanted if task.kind == "multiclass"]
    if several:
        raise ValueError(
            f"Expected binary and regression tasks, got multiclass task {several[0].name!r}: no metric here reads "
            f"several classes. Leave it out (exclude={several[0].name!r})."
        )
    names = tuple(task.name for task in wanted)
    device = next((parameter.device for parameter in ranker.parameters()), torch.device("cpu"))
    parts: list[tuple[np.ndarray, ...]] = []
    training = ranker.training
    ranker.eval()
    try:
        with torch.inference_mode():
            for batch in _shown(loader, progress):
                parts.append(_predict(ranker, to_device(batch, device), names))
    finally:
        ranker.train(training)
    empty = (
        *(np.zeros((0, len(names)), kind) for kind in (np.float32, np.float32, np.bool_)),
        *(np.zeros(0, kind) for kind in (np.int64, np.int64, np.float32)),
    )
    logits, labels, known, user, time, rate = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    return Predictions(
        tasks=names,
        kinds=tuple(task.kind for task in wanted),
        logits_NK=logits,
        labels_NK=labels,
        known_NK=known,
        user_N=user,
        time_N=time,
        sample_rate_N=rate,
    )


def _predict(ranker: nn.Module, batch: Batch, tasks: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    labels = batch.labels
    if labels is None:
        raise ValueError("Expected batches with labels, got one without: evaluation reads prepared splits.")
    if labels.values_BK.shape[1] != len(tasks):
        got = f"{labels.values_BK.shape[1]} label columns"
        raise ValueError(f"Expected one label column for each task of {tasks}, got {got}: name the loader's tasks.")
    logits = ranker(batch).logits
    for task in tasks:
        if task not in logits:
            raise ValueError(f"Expected logits of task {task!r}, got those of {list(logits)}.")
    row_of = batch.candidates.request_of_row_B
    columns = (
        torch.stack([logits[task].float() for task in tasks], dim=1),
        labels.values_BK,
        labels.known_BK,
        batch.requests.user_R[row_of],
        batch.requests.time_R[row_of],
        labels.sample_rate_B,
    )
    return tuple(column.cpu().numpy() for column in columns)


def _shown(loader: Batches, words: str) -> Iterable[Batch]:
    if not words:
        yield from loader.epoch(0)
        return
    from tqdm import tqdm

    # disable=None: silent where standard error is not a terminal
    with tqdm(total=loader.num_rows, desc=words, unit="row", unit_scale=True, disable=None, file=sys.stderr) as bar:
        for batch in loader.epoch(0):
            yield batch
            bar.update(batch.num_rows)
