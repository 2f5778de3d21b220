"""All items as candidates: scored a piece at a time, for requests that are encoded once."""

from __future__ import annotations

import numpy as np
import torch

from fullrank.data.ask import candidates_of
from fullrank.data.batch import Candidates, to_device
from fullrank.data.columns import Columns, DataError
from fullrank.data.encode_columns import encode_feature, take_rows
from fullrank.data.inputs import Inputs
from fullrank.data.item_table import ItemTable
from fullrank.rankers import Ranker
from fullrank.recipes.asker import Asked, Asker

PIECE_ROWS = 32_768  # rows scored at once: their activations are what takes memory


class Catalogue:
    """The n items of the data's newest version, as candidates for a run. Items that came after the run was trained
    are among them: the run knows their attributes and shares an unknown row between their keys."""

    def __init__(self, asker: Asker) -> None:
        data, self._inputs, self._views = asker.data, asker.inputs, asker.views
        found = data.transform.items
        if found is None:
            raise DataError(f"{data.folder} has no items: recommending needs a log with the role `item`.")
        self.items: ItemTable = found
        self.columns: Columns = dict(found.columns)
        item = next(feature for feature in data.schema.all_features() if feature.name == "item")
        maps, scalers = data.transform.id_maps, data.transform.scalers
        self.columns |= encode_feature(item, {"item": found.code}, None, maps, scalers)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def inputs(self) -> Inputs:
        return self._inputs

    def candidates(self, asked: Asked, rows: np.ndarray) -> Candidates:
        """The items `rows`, once for every one of R requests: R · len(rows) candidates, request by request."""
        num_requests = asked.requests.num_requests
        request_of_row = np.repeat(np.arange(num_requests), len(rows))
        item_of_row = np.tile(rows, num_requests)
        columns: Columns = {}
        for field in self._inputs.candidate:
            for name in (field.name, f"{field.name}@weights"):
                if field.of == "pair" and name in asked.pairs:
                    columns[name] = take_rows(asked.pairs[name], request_of_row)
                elif field.of == "item" and name in self.columns:
                    columns[name] = take_rows(self.columns[name], item_of_row)
        return candidates_of(columns, request_of_row, self._inputs, views=self._views)

    def logits(self, ranker: Ranker, asked: Asked) -> np.ndarray:
        """float32 [K, R, n]: the logits of every task, request and item. Not for catalogues so large that R · n logits
        do not fit: put a retriever in front."""
        device = next((parameter.device for parameter in ranker.parameters()), torch.device("cpu"))
        tasks, num_requests = self._inputs.task_names, asked.requests.num_requests
        found = np.empty((len(tasks), num_requests, len(self)), np.float32)
        step = max(1, PIECE_ROWS // max(1, num_requests))
        with torch.inference_mode():
            state = ranker.encode_request(to_device(asked.requests, device))
            for start in range(0, len(self), step):
                rows = np.arange(start, min(start + step, len(self)))
                output = ranker.score(state, to_device(self.candidates(asked, rows), device))
                for place, task in enumerate(tasks):
                    piece = output.logits[task].float().cpu().numpy()
                    found[place, :, start : start + step] = piece.reshape(num_requests, len(rows))
        return found


def best(score_n: np.ndarray, k: int) -> np.ndarray:
    """The places of the k highest scores, highest first, of equal ones the earlier; -inf is never among them."""
    there = np.flatnonzero(score_n > -np.inf)
    if k < len(there):
        least = np.partition(score_n[there], len(there) - k)[len(there) - k]
        there = there[score_n[there] >= least]
    return there[np.argsort(-score_n[there], kind="stable")[:k]]
