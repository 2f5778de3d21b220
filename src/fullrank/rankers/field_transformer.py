"""FieldTransformer: one plain Transformer over task, field and event tokens.

Legend: R requests · B rows · K tasks · T field tokens · L events of the longest history · D token width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.layers.jagged import events_from_the_end, pad_segments
from fullrank.layers.transformer_block import TransformerBlock
from fullrank.rankers.base import Output, Ranker, Taps, by_task, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState


class EventTokens(nn.Module):
    """`token_e = W e + b + p_{place}`, padded: `[E, W] -> ([R, L, D], [R, L] bool: an event is there)`.

    b tells the tokens of one history from those of another; places are counted from the newest event back.
    Parameters `W D + D + S D`, S the longest history there may be.
    """

    def __init__(self, event_width: int, width: int, max_events: int) -> None:
        super().__init__()
        self.linear = nn.Linear(event_width, width)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.places_SD = nn.Parameter(torch.randn(max_events, width) * 0.01)

    def forward(self, events_EW: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        x_ED = self.linear(events_EW) + self.places_SD[events_from_the_end(offsets, events_EW.shape[0])]
        x_RLD = pad_segments(x_ED, offsets)
        places_L = torch.arange(x_RLD.shape[1], device=offsets.device)
        return x_RLD, places_L < offsets.diff().unsqueeze(1)


@dataclass(frozen=True)
class FieldTransformerState:
    """`front`: the request's embedded fields. `events_RLD`, `mask_RL`: the event tokens of all histories, padded."""

    front: FieldState
    events_RLD: Tensor
    mask_RL: Tensor


class FieldTransformer(Ranker):
    """Tokens [task_1 … task_K ; fields ; events], pre-LN Transformer blocks in which every token sees every other one,
    LN, and a Linear on each task's own token: `z_k = <u_k, LN(x_k)> + c_k`.

    The baseline that token mixers are measured against; no paper's model as a whole, so all sizes are our choices.
    Fields are made tokens by `tokenizer` (one each by default), events by a Linear a history with learned places. A
    history is padded to the longest of the batch, and what pads it is masked.

    Cost: candidates are among the tokens, so nothing of the stack is shared by the rows of a request. With
    N = K + T + ΣL tokens, a row and block take `N (8 + 4 expansion) D² + 4 N² D` FLOPs: for long histories use
    `SASRecPool` (once per request) or DIN.

    Dense parameters of the stack: `num_layers (4 D² + 2 expansion D² + expansion D + D + 4 D) + 2 D`, then `K D` task
    tokens, `K (D + 1)` outputs, the tokenizer's and the event tokens'.

    Taps: `fields` [B, F, E] (embeddings) · `tokens`, `layers.L` [B, N, D] · `pooled` [B, K, D] (task tokens after LN).

    References: Vaswani et al. 2017, arXiv:1706.03762; attention among fields is AutoInt's (Song et al. 2019,
    arXiv:1810.11921), candidate and events in one Transformer BST's (Chen et al. 2019, arXiv:1905.06874).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`expansion`: width of a block's network over the token width. `dropout` acts on each branch of a block."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(mode="field", token_width=64))
        num_layers: int = 2
        heads: int = 4
        expansion: int = 4
        dropout: float = 0.0

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> FieldTransformer:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return FieldTransformer(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, width, num_tasks = config.embedding.width, config.tokenizer.token_width, len(inputs.tasks)
        self.front = FieldFront(inputs, tables, embedding_width, None)
        self.tokenizer = config.tokenizer.build((embedding_width,) * self.front.num_fields, self.front.field_names)
        self.events = nn.ModuleList(
            EventTokens(len(history.fields) * embedding_width, width, history.last_n) for history in inputs.histories
        )
        self.tasks_KD = nn.Parameter(torch.randn(num_tasks, width) * 0.01)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                config.heads,
                config.expansion * width,
                activation="gelu",
                project_out=True,
                dropout=config.dropout,
            )
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.out_KD = nn.Parameter(torch.empty(num_tasks, width))
        self.out_bias_K = nn.Parameter(torch.zeros(num_tasks))
        nn.init.xavier_normal_(self.out_KD)

    def encode_request(self, requests: Requests) -> FieldTransformerState:
        front = self.front.encode_request(requests)
        made = [
            tokens(events_EW, offsets)
            for tokens, events_EW, offsets in zip(self.events, front.events_EW, front.offsets, strict=True)
        ]
        no_events_R0D = front.fields_RFD.new_zeros(requests.num_requests, 0, self.tasks_KD.shape[1])
        events_RLD = torch.cat([no_events_R0D, *(x_RLD for x_RLD, _ in made)], dim=1)
        mask_RL = torch.cat([no_events_R0D[:, :, 0].bool(), *(mask_RL for _, mask_RL in made)], dim=1)
        return FieldTransformerState(FieldState(front.fields_RFD), events_RLD, mask_RL)

    def score(self, state: FieldTransformerState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        request_of_row_B = candidates.request_of_row_B
        num_rows, num_tasks = candidates.num_rows, len(self.inputs.tasks)
        fields_BFE = tap(taps, "fields", self.front(state.front, candidates))
        x_BTD = self.tokenizer(fields_BFE.flatten(1)).x_BTD
        events_BLD = state.events_RLD.index_select(0, request_of_row_B)
        x_BND = torch.cat([self.tasks_KD.expand(num_rows, -1, -1), x_BTD, events_BLD], dim=1)
        x_BND = tap(taps, "tokens", x_BND)
        mask_BL = state.mask_RL.index_select(0, request_of_row_B)
        mask_BN = torch.cat([mask_BL.new_ones(num_rows, num_tasks + x_BTD.shape[1]), mask_BL], dim=1)
        for index, block in enumerate(self.blocks):
            x_BND = tap(taps, f"layers.{index}", block(x_BND, mask_BN))
        pooled_BKD = tap(taps, "pooled", self.norm(x_BND[:, :num_tasks]))
        logits_BK = (pooled_BKD * self.out_KD).sum(-1) + self.out_bias_K
        return Output(by_task(self.inputs, logits_BK), {}, taps if taps is not None else {})
