"""The rows that can be compared with a row of the other class of their own request."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fullrank.training.objectives.base import LabelColumn


class ComparedRows(NamedTuple):
    """N rows of R requests: `row_N` their places in the batch, `positive_N` their class, `request_N` their request
    among the R, counted from 0."""

    row_N: Tensor
    positive_N: Tensor
    request_N: Tensor
    num_requests: int


def compared_rows(column: LabelColumn) -> ComparedRows:
    """The rows with a known label and a weight, of the requests that have both a positive and a negative one."""
    counted_B = column.known_B & (column.weight_B > 0)
    positive_B = column.value_B > 0
    request_B, num_requests = column.request_of_row_B, column.num_requests

    def has_R(rows_B: Tensor) -> Tensor:
        return rows_B.new_zeros(num_requests).index_fill(0, request_B[rows_B], True)

    both_R = has_R(counted_B & positive_B) & has_R(counted_B & ~positive_B)
    row_N = (counted_B & both_R[request_B]).nonzero().squeeze(-1)
    number_R = both_R.cumsum(0) - 1
    return ComparedRows(row_N, positive_B[row_N], number_R[request_B[row_N]], int(both_R.sum()))
