"""What is not finite is not served."""

from __future__ import annotations

import torch
from torch import Tensor


def check_finite(what: str, weight: Tensor, *, first_row: int | None = None) -> None:
    """An error that names `what` and the first place of a number that is not finite.

    Args:
        first_row: of a piece of a table: the table's row that it begins with; the error then names the row alone.
    """
    # NaN comes out of either bound: one pass, and no mask as large as the table.
    if not weight.numel() or torch.stack(torch.aminmax(weight)).isfinite().all():
        return
    place = (~weight.isfinite()).nonzero()[0]
    where = f" at {tuple(place.tolist())}" if first_row is None else f", row {first_row + int(place[0])}"
    raise ValueError(
        f"Expected a ranker with finite weights to serve, got {float(weight[tuple(place)])} in {what}{where}. "
        "Its training has failed: take an earlier checkpoint, or train it again at a lower rate."
    )
