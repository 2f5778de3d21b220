"""The best items for users, scored by a run: the catalogue against one request each, whoever they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from fullrank.data.normalise import Origin
from fullrank.data.partitions import PreparedData
from fullrank.rankers import Ranker
from fullrank.recipes.asker import Asked, Asker
from fullrank.recipes.catalogue import Catalogue, best
from fullrank.recipes.context import context_columns
from fullrank.recipes.popularity import Popularity
from fullrank.recipes.predict_rows import answers
from fullrank.training.run import Run

SCORES = 8_000_000  # logits held at once: how many users are answered together


@dataclass(frozen=True)
class Recommendation:
    """One item: its key, the first text feature of the schema (a title, say; "" without one), and what each task says
    of it: a probability, or the number itself of a regression task."""

    key: str
    text: str
    probability: dict[str, float]


@dataclass(frozen=True)
class Recommendations:
    """`items`, best first by the first task.

    `method`: `model`, or `popularity` where the model knows nothing of the request (the items' rates then, the same for
    everybody). `known`: whether the log ever saw the user. `events`: past events read. `inputs`: what else the model
    knew, by name; `unknown`: what was told but never met in training, which it knows by the shared unknown row alone.
    """

    user: str
    method: Literal["model", "popularity"]
    known: bool
    events: int
    inputs: tuple[str, ...]
    unknown: tuple[str, ...]
    items: tuple[Recommendation, ...]

    def words(self) -> str:
        """How the items were found, for a person."""
        seen = "in the log" if self.known else "never seen in the log"
        unmet = f"; never met in training: {', '.join(self.unknown)}" if self.unknown else ""
        if self.method == "popularity":
            return f"{seen}; nothing to go by is known of the request: by popularity, the same for everybody{unmet}"
        told = f"{self.events} past events read; by the model, from {', '.join(self.inputs) or 'the past alone'}"
        if not self.inputs and not self.events:
            told = "nothing else is known of the request; by the model, with everything missing"
        return f"{seen}; {told}{unmet}"


class Recommender:
    """Recommends from one run and one version of the data; what costs time is read once.

    Users and items that the run never met go through the same model, as unknown rows. Only where nothing at all is
    known of a request (no user, no context, no past) the items' popularity takes the model's place, and the answer says
    so. Scores the whole catalogue: for millions of items put a retriever in front.
    """

    def __init__(self, run: Run, ranker: Ranker, data: PreparedData, *, hash_key: bytes | None = None) -> None:
        self.asker = Asker(run, data, hash_key=hash_key)
        self.catalogue = Catalogue(self.asker)
        self._ranker = ranker.eval()
        binary = tuple(task.name for task in self.asker.inputs.tasks if task.kind == "binary")
        self._rated = binary if self.asker.inputs.tasks[0].kind == "binary" else ()

    def recommend(
        self,
        records: pa.RecordBatch,
        *,
        k: int = 10,
        include_seen: bool = False,
        origin: Origin | None = None,
    ) -> Iterator[Recommendations]:
        """The `k` best items for each record, in their order: some of the log's columns, with or without the user's.

        Args:
            include_seen: also items of the user's past, which are left out otherwise.
        """
        if k < 1:
            raise ValueError(f"Expected k >= 1, the number of items to recommend, got {k}.")
        newest = self.asker.newest(records, origin)
        at_once = max(1, min(256, SCORES // max(1, len(self.catalogue) * len(self.asker.inputs.tasks))))
        user = self.asker.schema.roles.user
        start = origin or Origin("records")
        for first in range(0, records.num_rows, at_once):
            part = records.slice(first, at_once)
            asked = self.asker.ask(part, newest, Origin(start.file, start.first_row + first))
            logits_KRC = self.catalogue.logits(self._ranker, asked)
            names = part.column(user).to_pylist() if user in part.schema.names else [None] * part.num_rows
            for r, name in enumerate(names):
                yield self._answer("" if name is None else str(name), asked, r, logits_KRC[:, r], k, include_seen)

    def _answer(
        self, user: str, asked: Asked, r: int, logits_KC: np.ndarray, k: int, include_seen: bool
    ) -> Recommendations:
        inputs = self.asker.inputs
        asks = bool(inputs.request or inputs.histories)  # a model of items alone always says the same
        by_model = not (asks and self._rated and asked.has_nothing(r))
        tasks = inputs.tasks
        if not by_model:
            tasks = tuple(task for task in tasks if task.name in self._rated)
            logits_KC = self._popularity
        score = logits_KC[0].astype(np.float64)
        items = self.catalogue.items
        if not include_seen:
            score[np.isin(items.code, asked.past[r])] = -np.inf
        rows = best(score, k)
        said = answers(logits_KC[:, rows].T, tasks)
        text = next(iter(items.texts.values()), None)
        keys = items.key.take(pa.array(rows)).to_pylist()
        texts = text.take(pa.array(rows)).to_pylist() if text is not None else [""] * len(rows)
        return Recommendations(
            user=user,
            method="model" if by_model else "popularity",
            known=asked.in_log[r],
            events=asked.events[r],
            inputs=asked.known[r],
            unknown=asked.unknown[r],
            items=tuple(
                Recommendation(key, words or "", {task: float(said[task][place]) for task in said})
                for place, (key, words) in enumerate(zip(keys, texts, strict=True))
            ),
        )

    @cached_property
    def _popularity(self) -> np.ndarray:
        """float32 [K, n]: the popularity logits of the items; one pass over the labels of the train split."""
        fitted = Popularity.fit(self.asker.data, self._rated)
        with torch.inference_mode():
            return fitted.logit_IK[torch.from_numpy(self.catalogue.items.id.astype(np.int64))].T.numpy()


def recommend(
    run: Run,
    ranker: Ranker,
    data: PreparedData,
    user: str | int,
    *,
    k: int = 3,
    context: Mapping[str, str | Sequence[str]] | None = None,
    include_seen: bool = False,
    hash_key: bytes | None = None,
) -> Recommendations:
    """The `k` items of the catalogue with the highest answer to the run's first task, for a request made now: just
    after the newest time the data know. See `Recommender`.

    Args:
        context: values of the log's columns for this request, as text (lists of text for lists): they take the place of
            what the user's newest request says. `pair` features hold for every item.
        include_seen: also items of the user's past.
    """
    recommender = Recommender(run, ranker, data, hash_key=hash_key)
    column = recommender.asker.schema.roles.user
    columns = {column: pa.array([str(user)])} if column else {}
    columns |= context_columns(recommender.asker.schema, data.schema, context or {}, 1)
    (found,) = recommender.recommend(pa.RecordBatch.from_pydict(columns), k=k, include_seen=include_seen)
    return found
