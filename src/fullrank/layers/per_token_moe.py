"""A sparse mixture of networks per token, routed by ReLU.

Legend: B rows · T tokens · D width · H hidden width · E experts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.layers.per_token_ffn import xavier_normal_slices_

STEP = 1.2  # by which the penalty's weight grows or shrinks at a training step (ReMoE's rule)
FIRST, LEAST, LARGEST = 1e-4, 1e-8, 1e2  # of the penalty's weight


class Router(nn.Module):
    """`G_t = ReLU(x_t W_t + b_t)`, `[T, B, D] -> [T, B, E]`, T (D E + E) parameters.

    Biases begin at 1 over E: every gate begins open, and the gates of a token begin with a sum near 1 (our choice).
    """

    def __init__(self, tokens: int, width: int, experts: int) -> None:
        super().__init__()
        self.weight_TDE = nn.Parameter(torch.empty(tokens, width, experts))
        self.bias_T1E = nn.Parameter(torch.full((tokens, 1, experts), 1.0 / experts))
        with torch.no_grad():
            self.weight_TDE.normal_(0.0, 0.1 / math.sqrt(width))

    def forward(self, x_TBD: Tensor) -> Tensor:
        return F.relu(torch.baddbmm(self.bias_T1E, x_TBD, self.weight_TDE))


class PerTokenMoE(nn.Module):
    """`v_t = Σ_e G_te · FFN_te(x_t)`, E networks (as `PerTokenFFN`) for every token; `[T, B, D] -> [T, B, D]`.

    Dense training, sparse inference: there are two routers. `train` is left alone by the penalty, so that experts go on
    learning; `infer` is drawn to few open gates and alone decides in eval mode. How the second one learns the task the
    paper does not print: here half of the rows of a training batch, drawn anew each time, are routed by it through all
    layers (`by_infer_B`), which is our choice; were it never on the way to a loss of the task, the penalty would close
    all its gates.

    `penalty(gates)` is `λ Σ_t Σ_e G_te` of the infer router, a mean over rows. λ is a buffer, saved with the weights;
    at every training step it is multiplied by 1.2 if more than `active` of the gates are open, else divided (ReMoE's
    rule, arXiv:2412.14711; the paper cites the idea and prints no schedule). In eval mode an expert reads the rows
    alone whose gate is open. A token whose gates are all closed goes by on the skip connection.

    Parameters `T E (2 k D² + k D + D) + 2 T (D E + E)`. Not with a load-balancing loss: the L1 penalty is all there is.

    Reference: RankMixer, arXiv:2507.15551, "Sparse MoE".
    """

    weight_of_penalty: Tensor

    def __init__(self, tokens: int, width: int, expansion: int, experts: int, active: float) -> None:
        super().__init__()
        if experts < 2 or not 0 < active <= 1:
            got = f"{experts} and {active}"
            raise ValueError(f"Expected at least 2 experts and a share of open gates in (0, 1], got {got}.")
        hidden = expansion * width
        self.active = active
        self.weight1_TEDH = nn.Parameter(torch.empty(tokens, experts, width, hidden))
        self.bias1_TE1H = nn.Parameter(torch.zeros(tokens, experts, 1, hidden))
        self.weight2_TEHD = nn.Parameter(torch.empty(tokens, experts, hidden, width))
        self.bias2_TE1D = nn.Parameter(torch.zeros(tokens, experts, 1, width))
        xavier_normal_slices_(self.weight1_TEDH)
        xavier_normal_slices_(self.weight2_TEHD)
        self.train_router = Router(tokens, width, experts)
        self.infer_router = Router(tokens, width, experts)
        self.register_buffer("weight_of_penalty", torch.tensor(FIRST))

    def forward(self, x_TBD: Tensor, by_infer_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What comes out, and the gates `[T, B, E]` of the infer router. `by_infer_B` (bool): rows that it routes in
        training; None: all."""
        gates_TBE = self.infer_router(x_TBD)
        if not self.training:
            return self._sparse(x_TBD, gates_TBE), gates_TBE
        used_TBE = gates_TBE
        if by_infer_B is not None:
            used_TBE = torch.where(by_infer_B[:, None], gates_TBE, self.train_router(x_TBD))
        return self._dense(x_TBD, used_TBE), gates_TBE

    def penalty(self, gates_TBE: Tensor) -> Tensor:
        """`λ Σ G`, and λ moved for the next step."""
        value = self.weight_of_penalty.clone() * gates_TBE.float().sum((0, 2)).mean()
        if self.training:
            with torch.no_grad():
                more = (gates_TBE > 0).float().mean() > self.active
                self.weight_of_penalty.mul_(torch.where(more, STEP, 1 / STEP)).clamp_(LEAST, LARGEST)
        return value

    def _dense(self, x_TBD: Tensor, gates_TBE: Tensor) -> Tensor:
        """Every expert on every row, in one batched product over tokens and experts."""
        T, E = self.weight1_TEDH.shape[:2]
        x_NBD = x_TBD.unsqueeze(1).expand(-1, E, -1, -1).flatten(0, 1)
        hidden_NBH = F.gelu(torch.baddbmm(self.bias1_TE1H.flatten(0, 1), x_NBD, self.weight1_TEDH.flatten(0, 1)))
        y_NBD = torch.baddbmm(self.bias2_TE1D.flatten(0, 1), hidden_NBH, self.weight2_TEHD.flatten(0, 1))
        return (y_NBD.unflatten(0, (T, E)) * gates_TBE.permute(0, 2, 1).unsqueeze(-1)).sum(1)

    def _sparse(self, x_TBD: Tensor, gates_TBE: Tensor) -> Tensor:
        out_TBD = torch.zeros_like(x_TBD, dtype=torch.promote_types(x_TBD.dtype, gates_TBE.dtype))
        for t, gates_BE in enumerate(gates_TBE):
            for e, gate_B in enumerate(gates_BE.unbind(1)):
                (rows,) = gate_B.nonzero(as_tuple=True)
                if not len(rows):
                    continue
                hidden = F.gelu(x_TBD[t, rows] @ self.weight1_TEDH[t, e] + self.bias1_TE1H[t, e])
                y = hidden @ self.weight2_TEHD[t, e] + self.bias2_TE1D[t, e]
                out_TBD[t].index_add_(0, rows, (y * gate_B[rows, None]).to(out_TBD.dtype))
        return out_TBD
