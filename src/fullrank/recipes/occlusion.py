"""One request and one row, many times over, each time with something hidden: a batch to a batch.

Hidden means what the model reads where the log has nothing: id 1 (missing), NaN, an empty bag; of a history, events
that are not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fullrank.data.batch import Bag, Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.id_map import MISSING_ID
from fullrank.data.inputs import Field, Inputs

REQUEST, CANDIDATE = "request", "candidate"


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What one variant does not see. `fields`: (part, field name), where a part is `request`, `candidate` or a
    history's name; `histories`: those without any event; `events`: (history, event number, 0 the oldest)."""

    fields: frozenset[tuple[str, str]] = frozenset()
    histories: frozenset[str] = frozenset()
    events: frozenset[tuple[str, int]] = frozenset()


def occluded(batch: Batch, inputs: Inputs, variants: Sequence[Hidden]) -> Batch:
    """A batch of one request and one row → a batch of V of each; the v-th does not see `variants[v]`."""
    count = len(variants)
    request = _masked(batch.requests.features, REQUEST, inputs.request, variants)
    candidate = _masked(batch.candidates.features, CANDIDATE, inputs.candidate, variants)
    histories = []
    for history, read in zip(inputs.histories, batch.requests.histories, strict=True):
        kept_VE = np.ones((count, read.num_events), dtype=bool)
        for v, hidden in enumerate(variants):
            if history.name in hidden.histories:
                kept_VE[v] = False
            for name, event in hidden.events:
                if name == history.name:
                    kept_VE[v, event] = False
        variant_N, event_N = np.nonzero(kept_VE)
        offsets = np.concatenate([[0], np.cumsum(kept_VE.sum(1))])
        hides_VF = _hides(history.name, history.fields, variants)
        events = _taken(read.events, event_N, hides_VF[variant_N], history.fields)
        histories.append(HistoryBatch(events, torch.from_numpy(offsets)))
    requests = Requests(
        request, tuple(histories), batch.requests.user_R.repeat(count), batch.requests.time_R.repeat(count)
    )
    return Batch(requests, Candidates(candidate, torch.arange(count)))


def _masked(
    block: FeatureBlock, part: str, fields: tuple[Field, ...], variants: Sequence[Hidden]
) -> FeatureBlock:
    return _taken(block, np.zeros(len(variants), np.int64), _hides(part, fields, variants), fields)


def _hides(part: str, fields: tuple[Field, ...], variants: Sequence[Hidden]) -> np.ndarray:
    return np.array([[(part, field.name) in v.fields for field in fields] for v in variants], dtype=bool).reshape(
        len(variants), len(fields)
    )


def _taken(block: FeatureBlock, index: np.ndarray, hides_nF: np.ndarray, fields: tuple[Field, ...]) -> FeatureBlock:
    """The owners `index` of a block, without the fields where `hides_nF` (by place in `fields`) holds."""

    def hides(kind: str) -> Tensor:
        return torch.from_numpy(hides_nF[:, [field.kind == kind for field in fields]])

    at = torch.from_numpy(index)
    bags_nF, vectors_nF = hides("multi").numpy(), hides("vector")
    return FeatureBlock(
        ids_nF=block.ids_nF[at].masked_fill(hides("categorical"), MISSING_ID),
        numbers_nF=block.numbers_nF[at].masked_fill(hides("numeric"), float("nan")),
        bags=tuple(_bag(bag, index, ~bags_nF[:, place]) for place, bag in enumerate(block.bags)),
        vectors_nD=tuple(
            vector[at].masked_fill(vectors_nF[:, place : place + 1], float("nan"))
            for place, vector in enumerate(block.vectors_nD)
        ),
    )


def _bag(bag: Bag, index: np.ndarray, kept_n: np.ndarray) -> Bag:
    offsets = bag.offsets.numpy()
    start, length = offsets[index], np.where(kept_n, np.diff(offsets)[index], 0)
    ends = np.concatenate([[0], np.cumsum(length)])
    positions = torch.from_numpy(np.repeat(start - ends[:-1], length) + np.arange(ends[-1]))
    weights = None if bag.weights_N is None else bag.weights_N[positions]
    return Bag(bag.ids_N[positions], torch.from_numpy(ends), weights)
