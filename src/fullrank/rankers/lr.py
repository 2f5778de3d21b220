"""LR: logistic regression, a weight per id."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables, TablePlan
from fullrank.rankers.base import Output, Ranker, Taps, by_task, seeded, tap
from fullrank.rankers.linear_part import LinearConfig, LinearPart


@dataclass(frozen=True)
class LRState:
    """`fields_RFK`: what every field of the request, and every pooled history field, adds to each task's logit."""

    fields_RFK: Tensor


class LR(Ranker):
    """`z_k = b_k + Σ_f x_fk`: every field adds its weight (see `LinearPart`), one weight a task, no products.

    One gather and a sum. The yardstick for what interactions bring: it ranks the candidates of a request without
    regard to whose request it is, since what the request adds is the same for all of them. Not for anything personal.

    Taps: `fields` [B, F, K] (what each field adds) · `request`, `candidate` [B, K] (their sums) · `pooled` [B, K].

    Reference: Richardson, Dominowska & Ragno, "Predicting Clicks", WWW 2007, section 5 (the logistic model; features
    here are ids).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`linear`: how the weights start and learn."""

        linear: LinearConfig = field(default_factory=LinearConfig)

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> LR:
            tables = EmbeddingTables(TablePlan(self.linear.specs(inputs, num_rows)), seed)
            with seeded(seed):
                return LR(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        self.linear = LinearPart(inputs, tables)

    def encode_request(self, requests: Requests) -> LRState:
        return LRState(self.linear.front.encode_request(requests).fields_RFD)

    def score(self, state: LRState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        request_of_row_B = candidates.request_of_row_B
        candidate_BFK = self.linear.front.candidate_fields(candidates)
        if taps is not None:
            taps["fields"] = torch.cat([state.fields_RFK.index_select(0, request_of_row_B), candidate_BFK], dim=1)
        request_BK = tap(taps, "request", state.fields_RFK.sum(1).index_select(0, request_of_row_B))
        candidate_BK = tap(taps, "candidate", candidate_BFK.sum(1))
        logits_BK = tap(taps, "pooled", request_BK + candidate_BK) + self.linear.bias_K
        return Output(by_task(self.inputs, logits_BK), {}, taps if taps is not None else {})
