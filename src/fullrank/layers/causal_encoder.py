"""SASRec's encoder of a history.

Legend: R requests · E events · L events of the longest history · W width of an event · D width inside · S places (the
longest history there may be).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.layers.jagged import events_from_the_end, pad_segments
from fullrank.layers.transformer_block import TransformerBlock


class CausalEncoder(nn.Module):
    """`x_e = W_in e + p_{place}`, then causal pre-LN blocks, then LN; the newest event's state stands for the history.

    Places are counted from the newest event back, as in a list padded on the left, so that "the last one" is one place
    however long the list is. No state depends on a later event. Blocks are the paper's: attention without W_O, a ReLU
    network of width D. W_in (no bias; the paper's events are one item vector of width D), the LN at the end (the
    authors' code has it) and first places N(0, 0.01²) are our choices. An empty history gives zeros.

    Parameters: `W D + S D + 2 D + blocks (3 D² + 2 D² + 2 D + 4 D)`. Histories are padded to the longest of the batch;
    cost a request and block: about `10 L D² + 4 L² D` FLOPs.

    Reference: Kang & McAuley, "Self-Attentive Sequential Recommendation", 2018, arXiv:1808.09781, section III.
    """

    def __init__(
        self, event_width: int, width: int, max_events: int, blocks: int, heads: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.project = nn.Linear(event_width, width, bias=False)
        nn.init.xavier_normal_(self.project.weight)
        self.places_SD = nn.Parameter(torch.randn(max_events, width) * 0.01)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, width, activation="relu", project_out=False, dropout=dropout)
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def states(self, events_EW: Tensor, offsets: Tensor) -> Tensor:
        """`[R, L, D]`: state i of request r is that of its event i, oldest first; nothing beyond its length."""
        x_ED = self.project(events_EW) + self.places_SD[events_from_the_end(offsets, events_EW.shape[0])]
        x_RLD = pad_segments(self.dropout(x_ED), offsets)
        for block in self.blocks:
            x_RLD = block(x_RLD, causal=True)  # what pads a list stands behind its events: they never see it
        return self.norm(x_RLD)

    def forward(self, events_EW: Tensor, offsets: Tensor) -> Tensor:
        """`[R, D]`: the state of each request's newest event, zeros where there is none."""
        lengths_R = offsets.diff()
        if not events_EW.shape[0]:
            return events_EW.new_zeros(lengths_R.shape[0], self.norm.normalized_shape[0])
        newest_R = (lengths_R - 1).clamp(min=0)
        states_RLD = self.states(events_EW, offsets)
        last_RD = states_RLD[torch.arange(len(newest_R), device=newest_R.device), newest_R]
        return torch.where((lengths_R > 0).unsqueeze(-1), last_RD, 0)
