"""Pooling of a history by DIN's own unit: a small network a (candidate, event) pair, and no softmax.

Legend: B rows · E events · P (row, event) pairs · M width that candidate and event have in common · W width of an
event (W >= M) · A hidden width. `din_pooling.py` is another thing: bilinear attention with a softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.layers.activation import Activation, make_activation
from fullrank.layers.jagged import row_event_pairs, segment_sum
from fullrank.layers.mlp import MLP


class ActivationUnitPooling(nn.Module):
    """`w_e = MLP([k, q - k, q * k, q, o])`, `out = Σ_e w_e e`: what the candidate makes of its request's history.

    An event is `e = [k ; o]`: its first M coordinates k are comparable with the candidate's q, the others (o: what
    was done, when) have no counterpart there; feeding o to the unit is our choice, the paper has none. The weights are
    not normalised, so that a long history of one interest speaks louder than a short one. An empty history is zeros.

    The first Linear is applied in parts, so that only `q * k` is multiplied out pair by pair:
    `k (W_k - W_d) + o W_o` once an event, `q (W_q + W_d)` once a row. Parameters: `A_1 (4M + (W - M) + 1)`, the later
    layers `A_i A_{i+1} + A_{i+1}`, a Linear to 1, and those of the activations.

    Not for thousands of events a request: P · (W + A) floats are alive at once.

    Reference: Zhou et al., "Deep Interest Network", 2018, arXiv:1706.06978, eq. 2 and figure 2 (its figure has an outer
    product where its published code, as this, has `q * k` and `q - k`).
    """

    def __init__(
        self, common_width: int, event_width: int, hidden: tuple[int, ...], activation: Activation = "dice"
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("Expected at least one hidden width for the activation unit, got ().")
        self.common_width = common_width
        self.first = nn.Linear(3 * common_width + event_width, hidden[0])
        nn.init.xavier_normal_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        self.activation = make_activation(activation, hidden[0])
        self.rest = MLP(hidden[0], hidden[1:], 1, activation=activation)

    def forward(self, query_BM: Tensor, events_EW: Tensor, offsets: Tensor, request_of_row_B: Tensor) -> Tensor:
        """`[B, W]`; request r holds events `offsets[r]:offsets[r + 1]`, row b is of request `request_of_row_B[b]`."""
        row_P, event_P = row_event_pairs(request_of_row_B, offsets)
        events_PW = events_EW.index_select(0, event_P)
        weight_P = self.weights(query_BM, events_EW, events_PW, row_P, event_P)
        return segment_sum(weight_P.unsqueeze(-1) * events_PW, row_P, query_BM.shape[0])

    def weights(
        self, query_BM: Tensor, events_EW: Tensor, events_PW: Tensor, row_P: Tensor, event_P: Tensor
    ) -> Tensor:
        """w of every pair."""
        M = self.common_width
        key_AM, difference_AM, product_AM, query_AM, other_AO = self.first.weight.split(
            (M, M, M, M, events_EW.shape[1] - M), dim=1
        )
        of_event_EA = events_EW @ torch.cat([key_AM - difference_AM, other_AO], dim=1).T
        of_row_BA = torch.addmm(self.first.bias, query_BM, (query_AM + difference_AM).T)
        hidden_PA = of_event_EA.index_select(0, event_P) + of_row_BA.index_select(0, row_P)
        hidden_PA = torch.addmm(hidden_PA, query_BM.index_select(0, row_P) * events_PW[:, :M], product_AM.T)
        return self.rest(self.activation(hidden_PA)).squeeze(-1)
