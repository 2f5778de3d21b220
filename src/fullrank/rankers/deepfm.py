"""DeepFM: a factorization machine and an MLP on the same embeddings.

Legend: R requests · B rows · F fields · K tasks · D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables, TablePlan
from fullrank.layers.factorization import pair_products
from fullrank.layers.mlp import MLP
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, added, by_task, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState
from fullrank.rankers.fm import scaled, task_scale
from fullrank.rankers.linear_part import LinearConfig, LinearPart


@dataclass(frozen=True)
class DeepFMState:
    """`linear_RK`: what the request adds to the linear part. `front`: its embedded fields."""

    linear_RK: Tensor
    front: FieldState


class DeepFM(Ranker):
    """`z_k = b_k + Σ_f w_fk + s_k Σ_{i<j} <v_i, v_j> + <u_k, MLP([v_1 ; … ; v_F])> + c_k`.

    FM and MLP read one set of field vectors (tables `main`), the linear part the tables `linear`; see `FM` for s_k and
    for what fields are. One MLP for all tasks with a Linear (u, c) a task, as in `DCNv2`, is our choice: the paper has
    one task.

    Taps: `fields` [B, F, D] · `linear` [B, K] · `pairs` [B, D] · `pooled` [B, hidden[-1]] (the MLP's).

    Reference: Guo et al., "DeepFM", IJCAI 2017, arXiv:1703.04247, eq. 1 to 4.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`hidden`: widths of the MLP, with `dropout` and, if `batch_norm`, BatchNorm after every Linear."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        linear: LinearConfig = field(default_factory=LinearConfig)
        hidden: tuple[int, ...] = (256, 128)
        dropout: float = 0.0
        batch_norm: bool = False

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> DeepFM:
            specs = self.embedding.specs(inputs, num_rows) + self.linear.specs(inputs, num_rows)
            tables = EmbeddingTables(TablePlan(specs), seed)
            with seeded(seed):
                return DeepFM(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        width = config.embedding.width
        self.linear = LinearPart(inputs, tables)
        self.front = FieldFront(inputs, tables, width, "mean")
        self.scale_K = task_scale(inputs)
        self.mlp = MLP(
            self.front.num_fields * width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
        )
        self.towers = TaskTowers(inputs.task_names, self.mlp.width, hidden=())

    def encode_request(self, requests: Requests) -> DeepFMState:
        return DeepFMState(self.linear.encode_request(requests), self.front.encode_request(requests))

    def score(self, state: DeepFMState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        x_BFD = tap(taps, "fields", self.front(state.front, candidates))
        linear_BK = tap(taps, "linear", self.linear(state.linear_RK, candidates))
        pairs_BD = tap(taps, "pairs", pair_products(x_BFD.sum(1), x_BFD.square().sum(1)))
        shallow_BK = linear_BK + scaled(pairs_BD.sum(1, keepdim=True), self.scale_K)
        deep = self.towers(tap(taps, "pooled", self.mlp(x_BFD.flatten(1))))
        return Output(added(by_task(self.inputs, shallow_BK), deep), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
