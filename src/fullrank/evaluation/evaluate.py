"""A ranker over a split: predictions as arrays, and the metrics of every task from them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import nn

from fullrank.data.batch import Batch, to_device
from fullrank.evaluation.metrics import auc, auc_per_user, log_loss, pcoc


class Batches(Protocol):
    """What is asked of a loader: `num_rows` a pass, and the batches of a pass (each with labels)."""

    num_rows: int

    def epoch(self, epoch: int, start_row: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One task on one split. Ranking metrics count every row once; `log_loss` (nats) and `pcoc` undo `sample_rate`.

    `rows` have a known label, `unknown` have not (and enter nothing). `user_auc` is weighted by impressions, over the
    `users` with both classes; `users_skipped` have one class alone. It is nan where the log has no user.
    """

    rows: int
    unknown: int
    positives: int
    auc: float
    user_auc: float
    users: int
    users_skipped: int
    log_loss: float
    pcoc: float


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """N rows in the loader's order, K tasks in the order of `tasks`.

    `logits_NK` float32 · `labels_NK` float32, 0 where not `known_NK` · `user_N` int64 key codes (0: none) · `time_N`
    int64 µs or position of the row's request · `sample_rate_N` float32.
    """

    tasks: tuple[str, ...]
    logits_NK: np.ndarray
    labels_NK: np.ndarray
    known_NK: np.ndarray
    user_N: np.ndarray
    time_N: np.ndarray
    sample_rate_N: np.ndarray

    def rows(self, index: np.ndarray) -> Predictions:
        """The rows `index` (positions, or a bool mask) alone: a slice to look at."""
        columns = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "tasks"}
        return Predictions(tasks=self.tasks, **columns)

    def metrics(self, task: str) -> Metrics:
        """The metrics of one task over the rows whose label is known."""
        column = self.tasks.index(task)
        known = self.known_NK[:, column]
        labels, logits = self.labels_NK[known, column], self.logits_NK[known, column]
        user, rate = self.user_N[known], self.sample_rate_N[known]
        try:
            whole = auc(labels, logits)
            per_user = auc_per_user(labels[user != 0], logits[user != 0], user[user != 0])
            loss, ratio = log_loss(labels, logits, rate), pcoc(labels, logits, rate)
        except ValueError as error:
            raise ValueError(f"Task {task!r}: {error}") from error
        return Metrics(
            rows=len(labels),
            unknown=int((~known).sum()),
            positives=int(labels.sum(dtype=np.float64)),
            auc=whole,
            user_auc=per_user.value,
            users=per_user.users,
            users_skipped=per_user.skipped,
            log_loss=loss,
            pcoc=ratio,
        )


def evaluate(
    ranker: nn.Module, loader: Batches, tasks: Sequence[str], *, progress: str = ""
) -> dict[str, Metrics]:
    """The metrics of every task over one pass. See `predict_split`."""
    predictions = predict_split(ranker, loader, tasks, progress=progress)
    return {task: predictions.metrics(task) for task in predictions.tasks}


def predict_split(
    ranker: nn.Module, loader: Batches, tasks: Sequence[str], *, progress: str = ""
) -> Predictions:
    """Logits and labels of every row of one pass, in eval mode and without gradients; the mode is restored after.

    Args:
        ranker: gives an output with `logits[task]` of shape [B] for every task, on the device of its parameters.
        loader: any pass will do; with `shuffle=False` the rows come in the order of the data.
        tasks: the names of the label columns, in their order (`Inputs.task_names`).
        progress: the words in front of a progress bar on a terminal; none if empty.

    Keeps 4 bytes a row and logit, and about 30 more a row: a split of 10⁸ rows and 2 tasks takes 4.6 GB.
    """
    tasks = tuple(tasks)
    device = next((parameter.device for parameter in ranker.parameters()), torch.device("cpu"))
    parts: list[tuple[np.ndarray, ...]] = []
    training = ranker.training
    ranker.eval()
    try:
        with torch.inference_mode():
            for batch in _shown(loader, progress):
                parts.append(_predict(ranker, to_device(batch, device), tasks))
    finally:
        ranker.train(training)
    empty = (
        *(np.zeros((0, len(tasks)), kind) for kind in (np.float32, np.float32, np.bool_)),
        *(np.zeros(0, kind) for kind in (np.int64, np.int64, np.float32)),
    )
    logits, labels, known, user, time, rate = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    return Predictions(
        tasks=tasks, logits_NK=logits, labels_NK=labels, known_NK=known, user_N=user, time_N=time, sample_rate_N=rate
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
