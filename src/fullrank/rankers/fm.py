"""FM: factorization machine of second order. Legend: R requests · B rows · K tasks · D factor width."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables, TablePlan
from fullrank.layers.factorization import pair_products
from fullrank.rankers.base import Output, Ranker, Taps, by_task, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront
from fullrank.rankers.linear_part import LinearConfig, LinearPart


@dataclass(frozen=True)
class FMState:
    """`linear_RK`: what the request adds to the linear part. `sum_RD`, `squares_RD`: Σ v and Σ v² of its fields."""

    linear_RK: Tensor
    sum_RD: Tensor
    squares_RD: Tensor


class FM(Ranker):
    """`z_k = b_k + Σ_f w_fk + s_k Σ_{i<j} <v_i, v_j>`, over the fields of the request, its histories, the candidate.

    Weights w come of the tables `linear`, factors v of the tables `main`. Both halves of the pair sum are kept per
    request, so a row costs its candidate fields alone. With one task s is 1 and this is Rendle's model on one-hot
    fields; with more, factors are shared and every task has a weight w of its own and a learned scale s, which starts
    at 1. That scale, and that a multi-valued field or a history field is one vector (the mean of its values: no pairs
    among them), are our choices; so is what a missing number is (see `LinearPart`, `NumericEmbedding`).

    Dense parameters: those of `LinearPart`, `3 D` a numeric field, `(dim + 2) D` a vector field, K if K > 1.
    Not for effects of three fields: those need DCNv2 or a network.

    Taps: `linear` [B, K] · `sum`, `squares`, `pooled` [B, D] (`pooled`: the pair sum before it is summed over D).

    Reference: Rendle, "Factorization Machines", ICDM 2010, eq. 1 and lemma 3.1.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        linear: LinearConfig = field(default_factory=LinearConfig)

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> FM:
            specs = self.embedding.specs(inputs, num_rows) + self.linear.specs(inputs, num_rows)
            tables = EmbeddingTables(TablePlan(specs), seed)
            with seeded(seed):
                return FM(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        self.linear = LinearPart(inputs, tables)
        self.front = FieldFront(inputs, tables, config.embedding.width, "mean")
        self.scale_K = task_scale(inputs)

    def encode_request(self, requests: Requests) -> FMState:
        fields_RFD = self.front.encode_request(requests).fields_RFD
        return FMState(self.linear.encode_request(requests), fields_RFD.sum(1), fields_RFD.square().sum(1))

    def score(self, state: FMState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        request_of_row_B = candidates.request_of_row_B
        candidate_BFD = self.front.candidate_fields(candidates)
        sum_BD = tap(taps, "sum", state.sum_RD.index_select(0, request_of_row_B) + candidate_BFD.sum(1))
        squares_BD = state.squares_RD.index_select(0, request_of_row_B) + candidate_BFD.square().sum(1)
        pairs_BD = tap(taps, "pooled", pair_products(sum_BD, tap(taps, "squares", squares_BD)))
        linear_BK = tap(taps, "linear", self.linear(state.linear_RK, candidates))
        logits_BK = linear_BK + scaled(pairs_BD.sum(1, keepdim=True), self.scale_K)
        return Output(by_task(self.inputs, logits_BK), {}, taps if taps is not None else {})


def task_scale(inputs: Inputs) -> nn.Parameter | None:
    """s_K: what each task makes of the shared pair sum; None with one task, whose factors have their own scale."""
    num_tasks = len(inputs.task_names)
    return nn.Parameter(torch.ones(num_tasks)) if num_tasks > 1 else None


def scaled(pairs_B1: Tensor, scale_K: Tensor | None) -> Tensor:
    """`[B, K]`."""
    return pairs_B1 if scale_K is None else pairs_B1 * scale_K
