"""Causal attention within token streams of unequal length, full or in a sliding window, without padding to the longest.

Legend: R streams · N tokens of all streams, one stream after another · S tokens of the longest in a group · h heads ·
d width of a head · w window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fullrank.kernels.stream_attention import attends_in_place, stream_attention
from fullrank.layers.jagged import segment_ids

SLACK = 1.25  # of a group: its longest stream over its shortest


def stream_mask(tokens: int, static: int, window: int | None = None, device: torch.device | None = None) -> Tensor:
    """`[S, S]` (query, key), True: seen. `None`: causal, `k <= q`. A window of w: `k <= q` and `q - k < w`, and of the
    first `static` tokens only these themselves (TokenFormer, equation 15; that they still see one another is what
    UniRank does: no row is empty)."""
    place = torch.arange(tokens, device=device)
    query, key = place[:, None], place[None]
    seen = key <= query
    if window is None:
        return seen
    return seen & (query - key < window) & ~((query >= static) & (key < static))


@dataclass(frozen=True, eq=False)
class Group:
    """Streams of nearly one length: `token_nS`, the tokens of each, its last one again behind its end."""

    stream_n: Tensor
    token_nS: Tensor


class _InGroups(Function):
    """Rows of tokens in the order of groups, `[N, ...] -> [P, ...]`. What stands behind the end of a stream is seen by
    nobody, so no gradient comes from there, and the way back is a selection, too."""

    @staticmethod
    def forward(ctx: Any, x_N: Tensor, token_P: Tensor, place_N: Tensor) -> Tensor:
        ctx.save_for_backward(place_N)
        return x_N.index_select(0, token_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_P: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]  # torch: any outputs
        (place_N,) = ctx.saved_tensors
        return g_P.index_select(0, place_N), None, None


class _Back(Function):
    """The other way, `[P, ...] -> [N, ...]`."""

    @staticmethod
    def forward(ctx: Any, y_P: Tensor, place_N: Tensor) -> Tensor:
        ctx.save_for_backward(place_N)
        ctx.num = len(y_P)
        return y_P.index_select(0, place_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # torch: any outputs
        (place_N,) = ctx.saved_tensors
        return g_N.new_zeros(ctx.num, *g_N.shape[1:]).index_copy_(0, place_N, g_N), None


@dataclass(frozen=True, eq=False)
class Streams:
    """`offsets` (R + 1): where streams begin among N tokens. `positions_N`: for rotary positions."""

    offsets: Tensor
    positions_N: Tensor

    @property
    def num_tokens(self) -> int:
        return self.positions_N.shape[0]

    @cached_property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    @cached_property
    def groups(self) -> list[Group]:
        """Streams of nearly one length. Those without tokens are in none."""
        lengths, order = self.lengths.sort()
        known = lengths.tolist()
        found, start = [], 0
        while start < len(known):
            if not known[start]:
                start += 1
                continue
            end, most = start + 1, SLACK * known[start] + 8
            while end < len(known) and known[end] <= most:
                end += 1
            stream_n = order[start:end]
            place_S = torch.arange(known[end - 1], device=self.offsets.device)
            last_n1 = lengths[start:end, None] - 1
            found.append(Group(stream_n, self.offsets[stream_n, None] + torch.minimum(place_S, last_n1)))
            start = end
        return found

    @cached_property
    def token_P(self) -> Tensor:
        """Of all groups, one after another."""
        return torch.cat([group.token_nS.flatten() for group in self.groups])

    @cached_property
    def place_N(self) -> Tensor:
        """Where each token is among `token_P`."""
        places = torch.arange(len(self.token_P), device=self.offsets.device)
        # a stream's last token is repeated behind it: of its places the first
        return torch.full_like(self.positions_N, len(places)).scatter_reduce(0, self.token_P, places, "amin")

    def in_groups(self, x_N: Tensor) -> list[Tensor]:
        """`[N, ...]` as `[n, S, ...]` of each group. Nothing may be learned from what stands behind a stream's end."""
        x_P: Any = _InGroups.apply(x_N, self.token_P, self.place_N)
        parts = x_P.split([group.token_nS.numel() for group in self.groups])
        return [part.unflatten(0, group.token_nS.shape) for part, group in zip(parts, self.groups, strict=True)]

    def back(self, of_groups: list[Tensor]) -> Tensor:
        """The other way; what stands behind a stream's end is dropped."""
        y_N: Any = _Back.apply(torch.cat([part.flatten(0, 1) for part in of_groups]), self.place_N)
        return y_N

    def blocks(self, window: int) -> tuple[Tensor, Tensor]:
        """Every stream cut in blocks of w: the tokens of each, `[blocks, w]`, and of it and the block before it,
        `[blocks, 2 w]`; -1 where there is none."""
        num_R = -(-self.lengths // window)
        stream_b = segment_ids(torch.cat([num_R.new_zeros(1), num_R.cumsum(0)]), int(num_R.sum()))
        first_R = num_R.cumsum(0) - num_R
        block_b = torch.arange(len(stream_b), device=self.offsets.device) - first_R[stream_b]
        place_bK = (block_b[:, None] - 1) * window + torch.arange(2 * window, device=self.offsets.device)
        there = (place_bK >= 0) & (place_bK < self.lengths[stream_b, None])
        token_bK = torch.where(there, self.offsets[stream_b, None] + place_bK, -1)
        return token_bK[:, window:], token_bK

    def newest(self, num: int) -> Tensor:
        """The last `num` tokens of each stream, oldest first, `[R, num]`; -1 where there is none."""
        token_RS = self.offsets[1:, None] - num + torch.arange(num, device=self.offsets.device)
        return torch.where(token_RS >= self.offsets[:-1, None], token_RS, -1)

    def newest_alone(self, num: int) -> tuple[Tensor, Streams]:
        """Which tokens are among the last `num` of their stream, and the streams of these alone."""
        token_RS = self.newest(min(num, int(self.lengths.max()) if len(self.lengths) else 0))
        kept = token_RS[token_RS >= 0]
        lengths = self.lengths.clamp_max(num)
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return kept, Streams(offsets, self.positions_N[kept])


def by_groups(
    q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, streams: Streams, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """`attend` of `[n, h, S, d]` for streams of nearly one length at a time, `[N, h, d]`. What is added to the shorter
    ones stands behind them: where no real token looks, if attention is causal."""
    if not streams.num_tokens:
        return v_Nhd
    parts = zip(*(streams.in_groups(x) for x in (q_Nhd, k_Nhd, v_Nhd)), strict=True)
    return streams.back([attend(*(x.transpose(1, 2) for x in part)).transpose(1, 2) for part in parts])


def full_attention(q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, streams: Streams) -> Tensor:
    """Every token sees itself and those before it in its stream; `[N, h, d]`. Cost `2 S² d` a head and stream."""
    if attends_in_place(q_Nhd, k_Nhd, v_Nhd):
        return stream_attention(q_Nhd, k_Nhd, v_Nhd, streams.offsets, None)
    return by_groups(q_Nhd, k_Nhd, v_Nhd, streams, _causal)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def window_attention(q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, streams: Streams, window: int) -> Tensor:
    """Every token sees itself and the `window - 1` before it in its stream; `[N, h, d]`.

    Streams are cut in blocks of w, and a block's queries read the keys of two blocks: cost `4 w S d` a head and stream
    whatever its length, and at most one block of each stream is part empty.
    """
    if not streams.num_tokens:
        return v_Nhd
    if attends_in_place(q_Nhd, k_Nhd, v_Nhd):
        return stream_attention(q_Nhd, k_Nhd, v_Nhd, streams.offsets, window)
    window = min(window, int(streams.lengths.max()))
    query_bw, key_bK = streams.blocks(window)
    place_w = torch.arange(window, device=query_bw.device)[:, None] + window
    place_K = torch.arange(2 * window, device=query_bw.device)
    near_wK = (place_K <= place_w) & (place_w - place_K < window)
    seen_bwK = (near_wK & (key_bK >= 0)[:, None]) | (query_bw < 0)[:, :, None]  # an empty row would be no number
    q = _taken(q_Nhd, query_bw)
    k, v = (_taken(x, key_bK) for x in (k_Nhd, v_Nhd))
    y_bwhd = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_bwK[:, None]).transpose(1, 2)
    real_bw = query_bw >= 0
    return torch.zeros_like(v_Nhd).index_copy(0, query_bw[real_bw], y_bwhd[real_bw].to(v_Nhd.dtype))


def _taken(x_Nhd: Tensor, token_bK: Tensor) -> Tensor:
    """`[b, h, K, d]`; of -1 some token."""
    return x_Nhd.index_select(0, token_bK.clamp_min(0).flatten()).unflatten(0, token_bK.shape).transpose(1, 2)


def tail_attention(q_Mhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, streams: Streams, tail: int) -> Tensor:
    """What the `tail` newest tokens of each stream read of themselves and all before them, one stream after another;
    `[M, h, d]`, of M queries (`Streams.newest_alone` says of which tokens)."""
    if not len(q_Mhd):
        return v_Nhd[:0]
    alone = streams.newest_alone(tail)[1]
    made, places = [], []
    for group, *both in zip(streams.groups, streams.in_groups(k_Nhd), streams.in_groups(v_Nhd), strict=True):
        S = group.token_nS.shape[1]
        query_nQ = alone.newest(min(tail, S))[group.stream_n]
        behind_Q = torch.arange(-query_nQ.shape[1], 0, device=query_nQ.device)
        place_nQ = (streams.lengths[group.stream_n, None] + behind_Q).clamp_min(0)
        # what stands behind the end of a shorter stream is behind each of its queries, too; no row is left empty
        seen_nQS = torch.arange(S, device=query_nQ.device) <= place_nQ[:, :, None]
        k, v = (part.transpose(1, 2) for part in both)
        y_nhQd = F.scaled_dot_product_attention(_taken(q_Mhd, query_nQ), k, v, attn_mask=seen_nQS[:, None])
        (there,) = (query_nQ >= 0).flatten().nonzero(as_tuple=True)
        made.append(y_nhQd.transpose(1, 2).flatten(0, 1).index_select(0, there))
        places.append(query_nQ.flatten()[there])
    return torch.cat(made).index_select(0, torch.cat(places).argsort())
