"""A layer of HyFormer: histories are encoded, read by their queries, and all tokens mixed.

Legend: B rows · N events of a history · H histories · Q query tokens of a history · T all tokens of a row · D token
width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fullrank.layers.linear import xavier_linear
from fullrank.layers.mixed_part import EPS, KeysAndValues, MixedPart
from fullrank.layers.norm import RMSNorm
from fullrank.layers.stream_attention import Streams, full_attention
from fullrank.layers.stream_targets import cross_attention
from fullrank.rankers.rankmixer_block import RankMixerBlock


class QueryDecoding(nn.Module):
    """`Q' = Q + A W_o`, A what the queries of `RMSNorm(Q)` read of a history's keys and values; zeros, if it is
    empty."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.of_events = KeysAndValues(width, heads, xavier_linear)
        self.norm = RMSNorm(width, EPS)
        self.query, self.out = (xavier_linear(width, width, bias=False) for _ in range(2))
        self.num_heads = heads

    def forward(self, q_BQD: Tensor, keys: Tensor, values: Tensor, streams: Streams, request_B: Tensor) -> Tensor:
        asked = self.query(self.norm(q_BQD)).unflatten(-1, (self.num_heads, -1))
        return q_BQD + self.out(cross_attention(asked, keys, values, streams, request_B).flatten(-2))


class HyFormerLayer(nn.Module):
    """Encoding of H histories, decoding by the queries of each, and boosting of all T tokens."""

    def __init__(self, num_histories: int, tokens: int, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(MixedPart(width, heads, expansion, xavier_linear) for _ in range(num_histories))
        self.decoders = nn.ModuleList(QueryDecoding(width, heads) for _ in range(num_histories))
        self.booster = RankMixerBlock(tokens, width, expansion)

    def encode(self, events: Sequence[Tensor], streams: Sequence[Streams]) -> list[Tensor]:
        """S_h of each history."""
        found = []
        for part, x_ND, own in zip(self.encoders, events, streams, strict=True):
            assert isinstance(part, MixedPart)
            found.append(part.merge(x_ND, full_attention(*part.all_heads(x_ND), own)))
        return found

    def keys_and_values(self, events: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """What the queries of each history read of it."""
        return [self._decoder(h).of_events.heads(x_ND) for h, x_ND in enumerate(events)]

    def forward(
        self, x_BTD: Tensor, read: list[tuple[Tensor, Tensor]], streams: Sequence[Streams], of_B: Tensor, each: int
    ) -> Tensor:
        """The next tokens, of which the first `each` times H are queries."""
        decoded = [
            self._decoder(h)(x_BTD[:, h * each : (h + 1) * each], *read[h], own, of_B) for h, own in enumerate(streams)
        ]
        x_BTD = torch.cat([*decoded, x_BTD[:, len(decoded) * each :]], dim=1)
        return self.booster(x_BTD.transpose(0, 1)).transpose(0, 1)

    def _decoder(self, h: int) -> QueryDecoding:
        decoder = self.decoders[h]
        assert isinstance(decoder, QueryDecoding)
        return decoder
