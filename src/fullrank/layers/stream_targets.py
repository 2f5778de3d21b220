"""Attention of candidates that stand behind their request's stream of tokens.

Legend: R streams · N tokens of all streams · B candidates (in a group b) · T tokens of a candidate · U the same, as
keys · S tokens of the longest stream of a group of n · h heads · d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fullrank.layers.precision import at_least_float32
from fullrank.layers.stream_attention import Streams

Weigh = Callable[[Tensor, Tensor], Tensor]


def softmax_weights(scores_bThX: Tensor, behind_bTX: Tensor, width: int) -> Tensor:
    """`softmax(q k / sqrt(d))` over the keys that are there."""
    masked = (scores_bThX / math.sqrt(width)).masked_fill((behind_bTX < 0).unsqueeze(-2), -torch.inf)
    return masked.softmax(-1)


def target_attention(
    q_BThd: Tensor,
    k_BThd: Tensor,
    v_BThd: Tensor,
    keys_Nhd: Tensor,
    values_Nhd: Tensor,
    streams: Streams,
    stream_of_B: Tensor,
    window: int | None = None,
    weigh: Weigh | None = None,
) -> Tensor:
    """Candidates of T tokens each, of which every one sees its stream, itself and its candidate's tokens before it, and
    nothing of another candidate; `[B, T, h, d]`.

    `window`: of the stream the last `window - 1` tokens alone. `weigh(scores_bThX, behind_bTX)` makes the weights of
    products `q k` (float32 at least): X keys, of the stream and then of the candidate, `behind` how many places before
    the query each stands, -1 where there is none; by default `softmax_weights`. Candidates of one stream share its
    keys.
    """
    return _read(q_BThd, (k_BThd, v_BThd), keys_Nhd, values_Nhd, streams, stream_of_B, window, weigh)


def cross_attention(
    q_BThd: Tensor, keys_Nhd: Tensor, values_Nhd: Tensor, streams: Streams, stream_of_B: Tensor
) -> Tensor:
    """Candidates of T tokens each, of which every one sees its stream and nothing else; `[B, T, h, d]`, zeros where the
    stream is empty."""
    return _read(q_BThd, None, keys_Nhd, values_Nhd, streams, stream_of_B, None, None)


def _read(
    q_BThd: Tensor,
    own: tuple[Tensor, Tensor] | None,
    keys_Nhd: Tensor,
    values_Nhd: Tensor,
    streams: Streams,
    stream_of_B: Tensor,
    window: int | None,
    weigh: Weigh | None,
) -> Tensor:
    d = q_BThd.shape[-1]
    weigh = weigh or (lambda scores, behind: softmax_weights(scores, behind, d))
    order_B = stream_of_B.argsort(stable=True)
    num_R = torch.bincount(stream_of_B, minlength=len(streams.lengths))
    slot_B = torch.empty_like(order_B)
    first_R = num_R.cumsum(0) - num_R
    slot_B[order_B] = torch.arange(len(order_B), device=order_B.device) - first_R[stream_of_B[order_B]]
    place_R = torch.empty_like(num_R)
    made, rows = [], []
    for stream_n, behind_nS, keys, values in _batches(keys_Nhd, values_Nhd, streams, num_R, window):
        place_R.fill_(-1)[stream_n] = torch.arange(len(stream_n), device=order_B.device)
        place_B = place_R[stream_of_B]
        (row_b,) = (place_B >= 0).nonzero(as_tuple=True)
        of_rows = None if own is None else (own[0].index_select(0, row_b), own[1].index_select(0, row_b))
        q_bThd, at = q_BThd.index_select(0, row_b), (place_B[row_b], slot_B[row_b])
        most = int(num_R[stream_n].max())
        made.append(_of_group(q_bThd, of_rows, keys, values, behind_nS, at, most, weigh))
        rows.append(row_b)
    return torch.cat(made).index_select(0, torch.cat(rows).argsort()) if made else torch.zeros_like(q_BThd)


def _batches(
    keys_Nhd: Tensor, values_Nhd: Tensor, streams: Streams, num_R: Tensor, window: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The streams that have candidates, those of nearly as many tokens and of less than twice as many candidates
    together; how far behind the stream's end each token stands that is read of it (-1: none), its keys and values."""
    for stream_n, behind_nS, keys, values in _groups(keys_Nhd, values_Nhd, streams, window):
        num_n = num_R[stream_n]
        size_n = torch.where(num_n > 0, num_n.double().log2().floor(), -1.0)
        sizes = size_n.unique().tolist()
        for size in sizes:
            if size >= 0 and len(sizes) == 1:
                yield stream_n, behind_nS, keys, values
            elif size >= 0:
                (some,) = (size_n == size).nonzero(as_tuple=True)
                yield stream_n[some], behind_nS[some], keys.index_select(0, some), values.index_select(0, some)


def _groups(
    keys_Nhd: Tensor, values_Nhd: Tensor, streams: Streams, window: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """As `_batches`, for all streams; keys and values `[n, S, h, d]`."""
    ends_R = streams.offsets[1:]
    if window is not None and streams.num_tokens:
        token_RS = streams.newest(min(window - 1, int(streams.lengths.max())))
        flat = token_RS.clamp_min(0).flatten()
        keys, values = (x.index_select(0, flat).unflatten(0, token_RS.shape) for x in (keys_Nhd, values_Nhd))
        every = torch.arange(len(ends_R), device=ends_R.device)
        yield every, torch.where(token_RS < 0, -1, ends_R[:, None] - token_RS), keys, values
        return
    (empty_n,) = (streams.lengths == 0).nonzero(as_tuple=True)
    nothing = keys_Nhd.new_zeros(len(empty_n), 0, *keys_Nhd.shape[1:])
    yield empty_n, empty_n.new_zeros(len(empty_n), 0), nothing, nothing
    if streams.num_tokens:
        parts = streams.in_groups(keys_Nhd), streams.in_groups(values_Nhd)
        for group, keys, values in zip(streams.groups, *parts, strict=True):
            place_S = torch.arange(group.token_nS.shape[1], device=ends_R.device)
            behind_nS = streams.lengths[group.stream_n, None] - place_S
            yield group.stream_n, torch.where(behind_nS > 0, behind_nS, -1), keys, values


def _of_group(
    q_bThd: Tensor,
    own: tuple[Tensor, Tensor] | None,
    keys_nShd: Tensor,
    values_nShd: Tensor,
    behind_nS: Tensor,
    at: tuple[Tensor, Tensor],
    most: int,
    weigh: Weigh,
) -> Tensor:
    """Some candidates, `at` (stream, slot) of a group's n streams with `most` slots each."""
    n, S = behind_nS.shape
    T, h, d = q_bThd.shape[1:]
    keys, values = keys_nShd.transpose(1, 2), values_nShd.transpose(1, 2)
    q_nQThd = q_bThd.new_zeros(n, most, T, h, d).index_put(at, q_bThd)
    scores_nQThS = q_nQThd.flatten(1, 2).transpose(1, 2) @ keys.transpose(2, 3)
    scores_bThS = scores_nQThS.transpose(1, 2).unflatten(1, (most, T))[at]
    place_T = torch.arange(T, device=q_bThd.device)
    behind_b1S = behind_nS[at[0], None]
    behind_bTX, scores_bThX = torch.where(behind_b1S < 0, -1, behind_b1S + place_T[:, None]), scores_bThS
    if own is not None:
        own_bThU = torch.einsum("bthd,buhd->bthu", q_bThd, own[0])
        behind_TU = (place_T[:, None] - place_T).clamp_min(-1).expand(len(q_bThd), T, T)
        scores_bThX, behind_bTX = torch.cat([scores_bThX, own_bThU], -1), torch.cat([behind_bTX, behind_TU], -1)
    weight_bThX = weigh(at_least_float32(scores_bThX), behind_bTX).to(q_bThd.dtype)
    weight_nQThS = weight_bThX.new_zeros(n, most, T, h, S).index_put(at, weight_bThX[..., :S])
    read_nQThd = (weight_nQThS.flatten(1, 2).transpose(1, 2) @ values).transpose(1, 2).unflatten(1, (most, T))
    read_bThd = read_nQThd[at]
    return read_bThd if own is None else read_bThd + torch.einsum("bthu,buhd->bthd", weight_bThX[..., S:], own[1])
