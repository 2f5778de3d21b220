"""The ways from the flat concatenation of field vectors to T tokens, a module each.

Shape suffixes: B rows · W flat width · T tokens · d width a token reads · D token width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.features.tokens import Tokens
from fullrank.layers.per_token_linear import PerTokenLinear


class PerTokenNorm(nn.Module):
    """LayerNorm of every token with a gain and a bias of its own: 2TD parameters."""

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.gain_TD = nn.Parameter(torch.ones(num_tokens, width))
        self.bias_TD = nn.Parameter(torch.zeros(num_tokens, width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.layer_norm(x_BTD, x_BTD.shape[-1:]) * self.gain_TD + self.bias_TD


class ChunkTokenizer(nn.Module):
    """token_t = W_t x[d(t-1) : dt] + b_t with d = ceil(W / T): the flat concatenation cut in T equal segments.

    The tail is padded with zeros. `forward(x_BW) -> Tokens`, `T(dD + D)` parameters (+ 2TD with `norm`). Segments
    ignore where fields end, so a field may be split between two tokens, and tokens past the last field (T close to or
    above W) hold only their bias: choose T well below the flat width.
    Zhu et al. 2025, RankMixer, arXiv:2507.15551, section 3.2 (one Linear per segment; norm is not in the paper).
    """

    def __init__(self, flat_width: int, num_tokens: int, token_width: int, norm: bool) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.token_width = token_width
        self.flat_width = flat_width
        self.linear = PerTokenLinear(num_tokens, -(-flat_width // num_tokens), token_width)
        self.norm = PerTokenNorm(num_tokens, token_width) if norm else None

    def forward(self, x_BW: Tensor) -> Tokens:
        _check_flat_width(x_BW, self.flat_width)
        segment = self.linear.weight_TdD.shape[1]
        padded_BW = F.pad(x_BW, (0, self.num_tokens * segment - self.flat_width))
        x_BTD = self.linear(padded_BW.reshape(-1, self.num_tokens, segment))
        return Tokens(self.norm(x_BTD) if self.norm is not None else x_BTD, ("field",) * self.num_tokens)


class FieldTokenizer(nn.Module):
    """token_f = W_f x_f + b_f: one token per field, `forward(x_BW) -> Tokens` with T = the number of fields.

    Fields of one width are one batched product. With hundreds of fields prefer `chunk`: cost grows with T.
    """

    def __init__(self, field_widths: tuple[int, ...], token_width: int, norm: bool) -> None:
        super().__init__()
        self.num_tokens = len(field_widths)
        self.token_width = token_width
        self.field_widths = field_widths
        by_width: dict[int, list[int]] = {}
        for at, width in enumerate(field_widths):
            by_width.setdefault(width, []).append(at)
        self.groups = tuple(by_width.values())
        self.linears = nn.ModuleList(
            PerTokenLinear(len(group), width, token_width) for width, group in by_width.items()
        )
        self.norm = PerTokenNorm(self.num_tokens, token_width) if norm else None

    def forward(self, x_BW: Tensor) -> Tokens:
        _check_flat_width(x_BW, sum(self.field_widths))
        if len(self.groups) == 1:
            x_BTD = self.linears[0](x_BW.reshape(-1, self.num_tokens, self.field_widths[0]))
        else:
            fields = x_BW.split(self.field_widths, dim=1)
            tokens: dict[int, Tensor] = {}
            for linear, group in zip(self.linears, self.groups, strict=True):
                made_BTD = linear(torch.stack([fields[at] for at in group], dim=1))
                tokens.update(zip(group, made_BTD.unbind(1), strict=True))
            x_BTD = torch.stack([tokens[at] for at in range(self.num_tokens)], dim=1)
        return Tokens(self.norm(x_BTD) if self.norm is not None else x_BTD, ("field",) * self.num_tokens)


class GroupTokenizer(nn.Module):
    """token_t = W_t [x_f for f in groups[t]] + b_t: fields put together by hand or by lot, a Linear a group.

    `forward(x_BW) -> Tokens`, T = the number of groups; parameters `Σ_t (d_t D + D)` (+ 2TD with `norm`), d_t the width
    of group t. One gather of columns more than `FieldTokenizer`, whose tokens these are once the columns of a group
    stand together; none if they do already. Groups of one width are one batched product: prefer few widths.
    Zhu et al. 2025, RankMixer, arXiv:2507.15551, section 3.2 (groups by meaning); RankUp, arXiv:2604.17878 (by lot).
    """

    columns_W: Tensor

    def __init__(
        self, field_widths: tuple[int, ...], groups: Sequence[Sequence[int]], token_width: int, norm: bool
    ) -> None:
        super().__init__()
        self.groups = tuple(tuple(group) for group in groups)
        starts = [0, *accumulate(field_widths)]
        columns = [c for group in self.groups for f in group for c in range(starts[f], starts[f + 1])]
        self.flat_width = starts[-1]
        self.in_order = columns == list(range(self.flat_width))
        self.register_buffer("columns_W", torch.tensor(columns), persistent=False)  # the config says it all
        widths = tuple(sum(field_widths[f] for f in group) for group in self.groups)
        self.tokens = FieldTokenizer(widths, token_width, norm)
        self.num_tokens = len(self.groups)
        self.token_width = token_width

    def forward(self, x_BW: Tensor) -> Tokens:
        _check_flat_width(x_BW, self.flat_width)
        return self.tokens(x_BW if self.in_order else x_BW.index_select(1, self.columns_W))


class AutoTokenizer(nn.Module):
    """token_t = W_t x + b_t: every token reads all fields through a Linear of its own, `forward(x_BW) -> Tokens`.

    Parameters `T(WD + D)` (+ 2TD with `norm`): T times those of `chunk`, so not for hundreds of fields. One product for
    all tokens. Xavier-uniform a token, zero biases, as `PerTokenLinear`.
    OneTrans, arXiv:2510.26104, "Auto-Split" (norm is not in the paper).
    """

    def __init__(self, flat_width: int, num_tokens: int, token_width: int, norm: bool) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.token_width = token_width
        self.flat_width = flat_width
        bound = math.sqrt(6 / (flat_width + token_width))
        self.weight_WN = nn.Parameter(torch.empty(flat_width, num_tokens * token_width).uniform_(-bound, bound))
        self.bias_N = nn.Parameter(torch.zeros(num_tokens * token_width))
        self.norm = PerTokenNorm(num_tokens, token_width) if norm else None

    def forward(self, x_BW: Tensor) -> Tokens:
        _check_flat_width(x_BW, self.flat_width)
        x_BTD = torch.addmm(self.bias_N, x_BW, self.weight_WN).unflatten(1, (self.num_tokens, self.token_width))
        return Tokens(self.norm(x_BTD) if self.norm is not None else x_BTD, ("field",) * self.num_tokens)


def _check_flat_width(x_BW: Tensor, flat_width: int) -> None:
    if x_BW.shape[-1] != flat_width:
        raise ValueError(f"Expected field vectors of {flat_width} numbers in all, got shape {tuple(x_BW.shape)}.")
