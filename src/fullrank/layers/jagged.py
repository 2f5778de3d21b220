"""Reductions over segments of unequal length, without padding.

Segment i of `values` is `values[offsets[i]:offsets[i + 1]]`; `offsets` is int64 of length n + 1, starts at 0 and ends
at `len(values)`. Legend: E values · n segments · B rows · P (row, event) pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_ids(offsets: Tensor, num_values: int) -> Tensor:
    """The segment of every value: `[0, 2, 5] -> [0, 0, 1, 1, 1]`. `num_values` is `offsets[-1]`, known to the caller
    without waiting for a device."""
    segments = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return torch.repeat_interleave(segments, offsets.diff(), output_size=num_values)


def segment_sum(values_E: Tensor, segment_E: Tensor, num_segments: int) -> Tensor:
    """Sum of each segment, `[E, ...] -> [n, ...]`; an empty segment gives 0."""
    return values_E.new_zeros(num_segments, *values_E.shape[1:]).index_add(0, segment_E, values_E)


def segment_mean(values_E: Tensor, offsets: Tensor) -> Tensor:
    """Mean of each segment, `[E, ...] -> [n, ...]`; an empty segment gives 0 (not NaN).

    Summed in order of the values, so on a CPU a segment's mean does not depend on the segments around it.
    """
    num_segments = offsets.shape[0] - 1
    sums = segment_sum(values_E, segment_ids(offsets, values_E.shape[0]), num_segments)
    lengths = offsets.diff().clamp(min=1).to(values_E.dtype)
    return sums / lengths.view(-1, *[1] * (values_E.dim() - 1))


def segment_softmax(logits_E: Tensor, segment_E: Tensor, num_segments: int) -> Tensor:
    """`exp(z_i) / sum over the segment of exp(z_j)`, `[E] -> [E]`; a segment's largest logit is taken off first."""
    largest_n = logits_E.new_full((num_segments,), -torch.inf)
    largest_n = largest_n.scatter_reduce(0, segment_E, logits_E.detach(), "amax")
    weights_E = (logits_E - largest_n[segment_E]).exp()
    return weights_E / segment_sum(weights_E, segment_E, num_segments)[segment_E]


def row_event_pairs(request_of_row_B: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Every (row, event) pair where the event belongs to the row's request: `(row_P, event_P)`, rows ascending.

    P is the sum over rows of the length of their request's history; nothing is padded to the longest.
    """
    start_B = offsets[:-1][request_of_row_B]
    length_B = offsets.diff()[request_of_row_B]
    end_B = length_B.cumsum(0)
    row_P = torch.repeat_interleave(torch.arange(length_B.shape[0], device=offsets.device), length_B)
    shift_B = start_B - (end_B - length_B)
    return row_P, torch.arange(row_P.shape[0], device=offsets.device) + shift_B[row_P]


def pad_segments(values_E: Tensor, offsets: Tensor) -> Tensor:
    """`[E, ...] -> [n, L, ...]` with L the longest segment (at least 1): each from the left, zeros behind it."""
    lengths = offsets.diff()
    longest = max(int(lengths.max()), 1)
    segment_E = segment_ids(offsets, values_E.shape[0])
    within_E = torch.arange(values_E.shape[0], device=offsets.device) - offsets[:-1][segment_E]
    flat = values_E.new_zeros(lengths.shape[0] * longest, *values_E.shape[1:])
    return flat.index_copy(0, segment_E * longest + within_E, values_E).unflatten(0, (-1, longest))


def events_from_the_end(offsets: Tensor, num_values: int) -> Tensor:
    """How many values of its own segment follow each value: 0 for the last one."""
    last_E = offsets[1:][segment_ids(offsets, num_values)] - 1
    return last_E - torch.arange(num_values, device=offsets.device)
