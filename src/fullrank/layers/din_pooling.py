"""Pooling of a history by attention of the candidate. Legend: B rows · E events · P (row, event) pairs ·
Q width of a candidate · W width of an event · A attention width."""

from __future__ import annotations

import math

from torch import Tensor, nn

from fullrank.layers.jagged import row_event_pairs, segment_softmax, segment_sum


class DINPooling(nn.Module):
    """What the candidate attends to in its request's history, a vector as wide as an event.

    `a = softmax over events of <W_q c, W_k e> / sqrt(A)`, `out = W_o W_v Σ_e a_e e`; one head, no biases;
    parameters `A * (Q + 3 * W)`, which is `4 * W * A` when candidate and events have the same fields. An empty
    history gives zeros.

    The keys are never formed: `<W_q c, W_k e> = <W_k' W_q c, e>`, and values are projected after the sum, so the
    cost is two passes over P · W numbers and four small products of B rows, whatever A is. Events stay jagged.

    Not for thousands of events a request: the pairs are materialised (P · W floats).

    Reference: the activation of history by the candidate is DIN's (Zhou et al. 2018, arXiv:1706.06978), whose own
    weights come from an MLP without softmax; this bilinear softmax form is the one UniRank (arXiv:2607.19987) puts
    in front of RankMixer.
    """

    def __init__(self, candidate_width: int, event_width: int, attention_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(candidate_width, attention_width, bias=False)
        self.key = nn.Linear(event_width, attention_width, bias=False)
        self.value = nn.Linear(event_width, attention_width, bias=False)
        self.out = nn.Linear(attention_width, event_width, bias=False)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.xavier_normal_(linear.weight)

    def forward(self, candidate_BQ: Tensor, events_EW: Tensor, offsets: Tensor, request_of_row_B: Tensor) -> Tensor:
        """`[B, W]`; request r holds events `offsets[r]:offsets[r + 1]`, row b is of request `request_of_row_B[b]`."""
        B = candidate_BQ.shape[0]
        row_P, event_P = row_event_pairs(request_of_row_B, offsets)
        events_PW = events_EW.index_select(0, event_P)
        scale = 1.0 / math.sqrt(self.key.out_features)
        folded_BW = self.query(candidate_BQ) @ self.key.weight * scale
        logits_P = (folded_BW.index_select(0, row_P) * events_PW).sum(-1)
        attention_P = segment_softmax(logits_P, row_P, B)
        pooled_BW = segment_sum(attention_P.unsqueeze(-1) * events_PW, row_P, B)
        return self.out(self.value(pooled_BW))
