"""Causal attention within token streams of unequal length, full or in a sliding window, without padding to the longest.

Legend: R streams · N tokens of all streams, one stream after another · S tokens of the longest in a group · h heads ·
d width of a head · w window · B targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

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
    def groups(self) -> list[tuple[Tensor, Tensor]]:
        """Streams of nearly one length: `(stream_n, token_nS)`, the tokens of each, its last one again behind its end.
        Streams without tokens are in none."""
        lengths, order = self.lengths.sort()
        known = lengths.tolist()
        found, start = [], 0
        while start < len(known):
            end = start + 1
            most = SLACK * known[start] + 8
            while end < len(known) and known[end] <= most:
                end += 1
            if known[end - 1]:
                while not known[start]:
                    start += 1
                stream_n = order[start:end]
                place_S = torch.arange(known[end - 1], device=self.offsets.device)
                last_n1 = lengths[start:end, None] - 1
                found.append((stream_n, self.offsets[stream_n, None] + torch.minimum(place_S, last_n1)))
            start = end
        return found

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


def full_attention(q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, streams: Streams) -> Tensor:
    """Every token sees itself and those before it in its stream; `[N, h, d]`.

    Streams of nearly one length are one batched call: what is added to the shorter ones stands behind them, where no
    real token looks. Cost `2 S² d` a head and stream.
    """
    out_Nhd = torch.zeros_like(v_Nhd)
    for stream_n, token_nS in streams.groups:
        q, k, v = (x[token_nS].transpose(1, 2) for x in (q_Nhd, k_Nhd, v_Nhd))
        y_nShd = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        real_nS = torch.arange(token_nS.shape[1], device=token_nS.device) < streams.lengths[stream_n, None]
        out_Nhd = out_Nhd.index_copy(0, token_nS[real_nS], y_nShd[real_nS].to(out_Nhd.dtype))
    return out_Nhd


def window_attention(q_Nhd: Tensor, k_Nhd: Tensor, v_Nhd: Tensor, streams: Streams, window: int) -> Tensor:
    """Every token sees itself and the `window - 1` before it in its stream; `[N, h, d]`.

    Streams are cut in blocks of w, and a block's queries read the keys of two blocks: cost `4 w S d` a head and stream
    whatever its length, and at most one block of each stream is part empty.
    """
    if not streams.num_tokens:
        return v_Nhd
    window = min(window, int(streams.lengths.max()))
    query_bw, key_bK = streams.blocks(window)
    place_w = torch.arange(window, device=query_bw.device)[:, None] + window
    place_K = torch.arange(2 * window, device=query_bw.device)
    near_wK = (place_K <= place_w) & (place_w - place_K < window)
    seen_bwK = (near_wK & (key_bK >= 0)[:, None]) | (query_bw < 0)[:, :, None]  # an empty row would be no number
    q = q_Nhd[query_bw.clamp_min(0)].transpose(1, 2)
    k, v = (x[key_bK.clamp_min(0)].transpose(1, 2) for x in (k_Nhd, v_Nhd))
    y_bwhd = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_bwK[:, None]).transpose(1, 2)
    real_bw = query_bw >= 0
    return torch.zeros_like(v_Nhd).index_copy(0, query_bw[real_bw], y_bwhd[real_bw].to(v_Nhd.dtype))


def target_attention(
    q_Bhd: Tensor,
    k_Bhd: Tensor,
    v_Bhd: Tensor,
    keys_Nhd: Tensor,
    values_Nhd: Tensor,
    streams: Streams,
    stream_of_B: Tensor,
    window: int | None,
) -> Tensor:
    """Targets that stand behind their stream, each seeing it and itself, no target another; `[B, h, d]`.

    `window`: the last `window - 1` tokens of the stream and itself. Targets of one stream share its keys.
    """
    if not streams.num_tokens:
        return v_Bhd
    order_B = stream_of_B.argsort(stable=True)
    num_R = torch.bincount(stream_of_B, minlength=len(streams.lengths))
    slot_B = torch.empty_like(order_B)
    first_R = num_R.cumsum(0) - num_R
    slot_B[order_B] = torch.arange(len(order_B), device=order_B.device) - first_R[stream_of_B[order_B]]
    if window is None:
        groups = [(stream_n, _up_to(token_nS, streams.lengths[stream_n])) for stream_n, token_nS in streams.groups]
    else:
        groups = [(torch.arange(len(num_R), device=order_B.device), streams.newest(window - 1))]
    found = torch.empty_like(v_Bhd)
    done_R = torch.zeros(len(num_R), dtype=torch.bool, device=order_B.device)
    for stream_n, token_nS in groups:
        done_R[stream_n] = True
        place_R = torch.full_like(num_R, -1)
        place_R[stream_n] = torch.arange(len(stream_n), device=order_B.device)
        (rows,) = (place_R[stream_of_B] >= 0).nonzero(as_tuple=True)
        if len(rows):
            at = place_R[stream_of_B[rows]], slot_B[rows]
            most = int(num_R[stream_n].max())
            own = q_Bhd[rows], k_Bhd[rows], v_Bhd[rows]
            y = _of_group(*own, keys_Nhd, values_Nhd, token_nS, at, most)
            found = found.index_copy(0, rows, y.to(found.dtype))
    alone_B = ~done_R[stream_of_B]  # streams without tokens: a target sees itself
    return torch.where(alone_B[:, None, None], v_Bhd, found)


def _up_to(token_nS: Tensor, lengths_n: Tensor) -> Tensor:
    """-1 behind the end of a stream."""
    there = torch.arange(token_nS.shape[1], device=token_nS.device) < lengths_n[:, None]
    return torch.where(there, token_nS, -1)


def _of_group(
    q_bhd: Tensor,
    k_bhd: Tensor,
    v_bhd: Tensor,
    keys_Nhd: Tensor,
    values_Nhd: Tensor,
    token_nS: Tensor,
    at: tuple[Tensor, Tensor],
    most: int,
) -> Tensor:
    """Some targets, `at` (stream, slot) of a group's n streams with `most` slots each."""
    n, S = token_nS.shape
    heads, width = q_bhd.shape[1:]
    if not S:
        return v_bhd
    scale = 1.0 / math.sqrt(width)
    keys, values = (x[token_nS.clamp_min(0)].permute(0, 2, 1, 3) for x in (keys_Nhd, values_Nhd))
    q_nQhd = q_bhd.new_zeros(n, most, heads, width).index_put(at, q_bhd)
    scores_nhQS = (q_nQhd.transpose(1, 2) @ keys.transpose(2, 3)).float() * scale
    scores_nhQS = scores_nhQS.masked_fill((token_nS < 0)[:, None, None], -torch.inf)
    scores_bhS = scores_nhQS.transpose(1, 2)[at]
    own_bh1 = (q_bhd * k_bhd).float().sum(-1, keepdim=True) * scale
    weight_bhT = torch.cat([scores_bhS, own_bh1], dim=-1).softmax(-1).to(v_bhd.dtype)
    weight_nQhS = weight_bhT.new_zeros(n, most, heads, S).index_put(at, weight_bhT[..., :S])
    read_nQhd = (weight_nQhS.transpose(1, 2) @ values).transpose(1, 2)
    return read_nQhd[at] + weight_bhT[..., S:] * v_bhd
