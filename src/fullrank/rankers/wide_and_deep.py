"""Wide & Deep: a linear model beside an MLP, trained together. Legend: R requests · B rows · K tasks · D width."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables, TablePlan
from fullrank.layers.mlp import MLP
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, added, by_task, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState
from fullrank.rankers.linear_part import LinearConfig, LinearPart


@dataclass(frozen=True)
class WideAndDeepState:
    """`linear_RK`: what the request adds to the wide part. `front`: its embedded fields."""

    linear_RK: Tensor
    front: FieldState


class WideAndDeep(Ranker):
    """`z_k = b_k + Σ_f w_fk + <u_k, MLP([v_1 ; … ; v_F])> + c_k`.

    The wide part reads the tables `linear`, the deep part the tables `main`. Left out: the paper's wide cross-products
    of fields, chosen by hand (a cross that matters can be made a column of the log, a `pair` feature, and is then a
    field of both parts), and its FTRL with L1 on the wide part (tables learn by `LinearConfig.optimizer`). One MLP
    for all tasks with a Linear (u, c) a task is our choice.

    Taps: `fields` [B, F, D] · `flat` [B, F · D] · `wide` [B, K] · `pooled` [B, hidden[-1]] (the MLP's).

    Reference: Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016, arXiv:1606.07792, eq. 3.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`hidden`: widths of the MLP, with `dropout` and, if `batch_norm`, BatchNorm after every Linear."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        linear: LinearConfig = field(default_factory=LinearConfig)
        hidden: tuple[int, ...] = (256, 128)
        dropout: float = 0.0
        batch_norm: bool = False

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> WideAndDeep:
            specs = self.embedding.specs(inputs, num_rows) + self.linear.specs(inputs, num_rows)
            tables = EmbeddingTables(TablePlan(specs), seed)
            with seeded(seed):
                return WideAndDeep(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        width = config.embedding.width
        self.linear = LinearPart(inputs, tables)
        self.front = FieldFront(inputs, tables, width, "mean")
        self.mlp = MLP(
            self.front.num_fields * width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
        )
        self.towers = TaskTowers(inputs.task_names, self.mlp.width, hidden=())

    def encode_request(self, requests: Requests) -> WideAndDeepState:
        return WideAndDeepState(self.linear.encode_request(requests), self.front.encode_request(requests))

    def score(self, state: WideAndDeepState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        x_BFD = tap(taps, "fields", self.front(state.front, candidates))
        wide_BK = tap(taps, "wide", self.linear(state.linear_RK, candidates))
        deep = self.towers(tap(taps, "pooled", self.mlp(tap(taps, "flat", x_BFD.flatten(1)))))
        return Output(added(by_task(self.inputs, wide_BK), deep), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
