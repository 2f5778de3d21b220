"""Encoded columns → batch. The only maker of batches: the loader and `Transform.apply` both end here.

Two steps, so that a loader pays the first once a window and the second once a batch: `pack` writes the columns a model
asked for side by side, in the order they will be read; `take` makes tensors of a piece of that and reads its histories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.columns import EncodedBlock
from fullrank.data.history import HistorySource, Spans
from fullrank.data.inputs import Inputs
from fullrank.data.pack import LABEL_COLUMNS, Unpacked, Views, Windows, pack
from fullrank.data.packed import Packed, PackedBlock
from fullrank.data.read_history import ItemAttributes, bag_tensors, read_history

if TYPE_CHECKING:
    from fullrank.data.batch import Batch, FeatureBlock


def take(
    packed: Packed,
    inputs: Inputs,
    *,
    sources: tuple[tuple[HistorySource, ...], ...],
    items: ItemAttributes | None,
    views: Views,
    labels: bool = True,
) -> Batch:
    """What is packed as one batch. `sources[h]` are the event stores of history h that `packed.store_R` points into."""
    import torch

    from fullrank.data.batch import Batch, Candidates, Labels, Requests

    requests, rows = packed.requests, packed.rows
    column = requests.column
    time_R = column("time", 0, np.int64)
    histories = tuple(
        read_history(
            history,
            stores,
            column("store", 0, np.int32),
            Spans(column(f"end{place}", 0, np.int64), column(f"length{place}", 0, np.int32)),
            time_R,
            items,
            views,
        )
        for place, (history, stores) in enumerate(zip(inputs.histories, sources, strict=True))
    )
    return Batch(
        Requests(
            features=_tensors(requests),
            histories=histories,
            user_R=torch.from_numpy(column("user", 0, np.uint64).view(np.int64)),
            time_R=torch.from_numpy(time_R),
        ),
        Candidates(_tensors(rows), torch.from_numpy(packed.request_of_row.astype(np.int64))),
        Labels(
            torch.from_numpy(rows.matrix("values", np.float32)),
            torch.from_numpy(rows.matrix("known", np.bool_)),
            *(torch.from_numpy(rows.column(name, 1.0, np.float32)) for name in LABEL_COLUMNS),
        )
        if labels
        else None,
    )


def _tensors(packed: PackedBlock) -> FeatureBlock:
    import torch

    from fullrank.data.batch import FeatureBlock

    vectors = [name for name in packed.names if name.startswith("vector")]
    return FeatureBlock(
        ids_nF=torch.from_numpy(packed.matrix("ids", np.int64)),
        numbers_nF=torch.from_numpy(packed.matrix("numbers", np.float32)),
        bags=tuple(bag_tensors(bag.ids, bag.weights) for bag in packed.bags),
        vectors_nD=tuple(torch.from_numpy(packed.matrix(name, np.float32)) for name in vectors),
    )


def assemble(
    block: EncodedBlock,
    inputs: Inputs,
    *,
    sources: tuple[HistorySource, ...],
    items: ItemAttributes | None,
    views: Views,
    as_of: int,
    windows: Windows,
    labels: bool = True,
) -> Batch:
    """The whole block as one batch, rows in their order. `sources`: one event store per history of `inputs`."""
    packed = pack([Unpacked(block)], inputs, views=views, as_of=as_of, windows=windows)
    stores = tuple((source,) for source in sources)
    return take(packed, inputs, sources=stores, items=items, views=views, labels=labels)
