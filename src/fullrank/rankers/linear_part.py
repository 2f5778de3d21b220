"""The linear part of a ranker: a weight per id and task. Legend: R requests · B rows · F fields · K tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import DiskTables, EmbeddingTables, TableOptimizer, TableSpec
from fullrank.rankers.field_front import FieldFront, table_specs

LINEAR = "linear"  # the set of the tables: a checkpoint of LR names them as one of FM does


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """One table of the set `linear` per key space, as wide as there are tasks: how its rows start and learn, and which
    tables live on disk."""

    init_std: float = 0.01
    optimizer: TableOptimizer = field(default_factory=TableOptimizer)
    disk: DiskTables = field(default_factory=DiskTables)

    def specs(self, inputs: Inputs, num_rows: dict[str, int]) -> tuple[TableSpec, ...]:
        return table_specs(inputs, num_rows, LINEAR, len(inputs.task_names), self.init_std, self.optimizer, self.disk)


class LinearPart(nn.Module):
    """`z_k = b_k + Σ_f x_fk` with, for each field f and task k,

        categorical: w_k[id]                          multi: the (weighted) mean of w_k over its values
        numeric: value w_fk + c_fk, or m_fk where it is missing
        vector: <w_fk, v> + c_fk, or m_fk where it is missing        pooled history field: the mean over events

    so every field is a `FieldFront` field of width K. Means, the weight m of a missing value, the histories, and tables
    as wide as there are tasks (one gather for all of them) are our choices: the models' papers have one-hot inputs and
    one task. The request's fields are summed once per request.

    Dense parameters: `K (1 + 3 numeric + Σ_vector (dim + 2))`; b and the c's are not separately identified, as usual.
    """

    def __init__(self, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        num_tasks = len(inputs.task_names)
        self.front = FieldFront(inputs, tables, num_tasks, "mean", set=LINEAR)
        self.bias_K = nn.Parameter(torch.zeros(num_tasks))

    def encode_request(self, requests: Requests) -> Tensor:
        """`[R, K]`: what the request's fields and pooled histories add."""
        return self.front.encode_request(requests).fields_RFD.sum(1)

    def forward(self, linear_RK: Tensor, candidates: Candidates) -> Tensor:
        """`z_BK`."""
        of_request_BK = linear_RK.index_select(0, candidates.request_of_row_B)
        return of_request_BK + self.front.candidate_fields(candidates).sum(1) + self.bias_K
