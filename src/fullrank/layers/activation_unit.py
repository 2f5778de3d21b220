"""Pooling of a history by DIN's own unit: a small network a (candidate, event) pair, and no softmax.

Legend: B rows · E events · P (row, event) pairs · M width that candidate and event have in common · W width of an
event (W >= M) · A hidden width. `din_pooling.py` is another thing: bilinear attention with a softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.kernels.target_attention import Unit, runs_here, target_attention
from fullrank.layers.activation import Activation, gate_of, make_activation
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

    With two hidden layers of float32 on a CPU, thousands of pairs go through the kernel `target_attention`, which keeps
    `P (A_2 + 1)` floats, and is float32 under autocast too. Otherwise the pairs are written out, in training a dozen
    arrays of P · A_1: not for thousands of events a request.

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
        query_BM = query_BM.to(events_EW.dtype)  # a Linear under autocast made it
        if len(self.rest.steps) == 3:
            parts = (query_BM, events_EW, self.first.bias, *self.rest.parameters())
            if runs_here(offsets, request_of_row_B, *parts):
                with torch.autocast(query_BM.device.type, enabled=False):
                    return self._fused(query_BM, events_EW, offsets, request_of_row_B)
        row_P, event_P = row_event_pairs(request_of_row_B, offsets)
        events_PW = events_EW.index_select(0, event_P)
        weight_P = self.weights(query_BM, events_EW, events_PW, row_P, event_P)
        return segment_sum(weight_P.unsqueeze(-1) * events_PW, row_P, query_BM.shape[0])

    def weights(
        self, query_BM: Tensor, events_EW: Tensor, events_PW: Tensor, row_P: Tensor, event_P: Tensor
    ) -> Tensor:
        """w of every pair."""
        of_event_WA, of_row_MA, product_MA = self._first(events_EW.shape[1])
        of_event_EA = events_EW @ of_event_WA
        of_row_BA = torch.addmm(self.first.bias, query_BM, of_row_MA)
        hidden_PA = of_event_EA.index_select(0, event_P) + of_row_BA.index_select(0, row_P)
        common_PM = query_BM.index_select(0, row_P) * events_PW[:, : self.common_width]
        hidden_PA = torch.addmm(hidden_PA, common_PM, product_MA)
        return self.rest(self.activation(hidden_PA)).squeeze(-1)

    def _first(self, event_width: int) -> tuple[Tensor, Tensor, Tensor]:
        """What the first Linear makes of an event, of a query, and of their product."""
        M = self.common_width
        widths = (M, M, M, M, event_width - M)
        key_AM, difference_AM, product_AM, query_AM, other_AO = self.first.weight.split(widths, dim=1)
        of_event_WA = torch.cat([key_AM - difference_AM, other_AO], dim=1).T
        return of_event_WA, (query_AM + difference_AM).T, product_AM.T

    def _fused(self, query_BM: Tensor, events_EW: Tensor, offsets: Tensor, request_of_row_B: Tensor) -> Tensor:
        of_event_WA, of_row_MA, product_MA = self._first(events_EW.shape[1])
        second, activation2, third = self.rest.steps
        assert isinstance(second, nn.Linear) and isinstance(third, nn.Linear)
        unit = Unit(
            base_WA=of_event_WA,
            product_MA=product_MA,
            gate1=gate_of(self.activation, self.first.out_features),
            weight2_HA=second.weight,
            bias2_H=second.bias,
            gate2=gate_of(activation2, second.out_features),
            weight3_1H=third.weight,
            bias3_1=third.bias,
        )
        of_row_BA = torch.addmm(self.first.bias, query_BM, of_row_MA)
        return target_attention(query_BM, events_EW, of_row_BA, offsets, request_of_row_B, unit)
