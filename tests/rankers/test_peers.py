"""Wukong, HSTU and OneTrans beside their equations, a row at a time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from stream_batches import INPUTS, SPACES, batch_of, in_double

from fullrank.layers.stream_attention import Streams, stream_mask
from fullrank.layers.stream_targets import cross_attention
from fullrank.rankers import HSTU, HyFormer, OneTrans
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.wukong import WukongBlock

TABLES = EmbeddingConfig(width=4, init_std=1.0)


def built(config, inputs=INPUTS):
    ranker = config.build(inputs, SPACES, 0).double().eval()
    with torch.no_grad():  # first biases are zeros, which would hide a mistake
        for parameter in ranker.dense_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return ranker


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_wukong_block_by_loops():
    block, x = WukongBlock(5, 3, 2, 4, 2, (7,)).double(), drawn(6, 5, 3)
    with torch.no_grad():
        y = block(x)
        inner = torch.tensor([[[float(x[b, i] @ x[b, j]) for j in range(5)] for i in range(5)] for b in range(6)])
        pairs = block.norm_pairs((inner.double() @ block.projection_Nk).flatten(1))
        made = block.of_pairs(pairs).reshape(6, 2, 3)
        for b, (weights, residual) in itertools.product(range(6), [(block.combine_LN, block.residual_ON)]):
            combined = torch.stack([sum(w * x[b, i] for i, w in enumerate(row)) for row in weights])
            kept = torch.stack([sum(w * x[b, i] for i, w in enumerate(row)) for row in residual])
            expected = block.norm(torch.cat([made[b], combined]) + kept)
            torch.testing.assert_close(y[b], expected, rtol=0, atol=1e-6)


def test_wukong_keeps_vectors_whose_number_stays():
    assert WukongBlock(6, 3, 2, 4, 2, ()).residual_ON is None


def test_s1_hstu_candidates_reading_kept_keys_are_whole_streams():
    """[2 fields ; sep ; events ; sep ; candidate] through dense layers, for each row alone."""
    config = HSTU.Config(embedding=TABLES, width=8, heads=2, num_layers=3, positions=9)
    ranker, batch = built(config), in_double(batch_of([0, 1, 7, 20], rows_of_each=2))
    with torch.no_grad():
        found = ranker(batch).logits["click"]
        state = ranker.front.encode_request(batch.requests)
        stream = ranker.stream(state)
        candidate_BD = ranker.candidate(ranker.front.candidate_fields(batch.candidates).flatten(1))
        for b, r in enumerate(batch.candidates.request_of_row_B.tolist()):
            low, high = stream.streams.offsets[r : r + 2].tolist()
            x = torch.cat([stream.x_ND[low:high], candidate_BD[b : b + 1]])
            for block in ranker.blocks:
                x = block(x)
            torch.testing.assert_close(found[b : b + 1], ranker.towers(x[-1:])["click"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("tails", [(), (50, 30), (5, 2)])
def test_onetrans_is_one_causal_transformer_that_loses_its_oldest_events(tails):
    config = OneTrans.Config(embedding=TABLES, num_tokens=3, width=8, heads=2, tails=tails)
    ranker, batch = built(config), in_double(batch_of([0, 1, 7, 20], rows_of_each=2))

    def attended(q_Shd, k_Shd, v_Shd):
        scores = torch.einsum("qhd,khd->hqk", q_Shd, k_Shd) / q_Shd.shape[-1] ** 0.5
        weights = scores.masked_fill(~stream_mask(len(k_Shd), 0)[-len(q_Shd) :], -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, v_Shd)

    with torch.no_grad():
        found = ranker(batch).logits["click"]
        state = ranker.front.encode_request(batch.requests)
        stream = ranker.stream(state)
        own_BFE = ranker.front.candidate_fields(batch.candidates)
        for b, r in enumerate(batch.candidates.request_of_row_B.tolist()):
            low, high = stream.streams.offsets[r : r + 2].tolist()
            x_SD = stream.x_ND[low:high]
            x_1TD = ranker.features(torch.cat([state.fields_RFD[r], own_BFE[b]]).flatten()[None]).x_BTD
            for of_events, of_features, tail in itertools.zip_longest(ranker.of_events, ranker.of_features, tails):
                keys, values = (
                    torch.cat([one, own[0]])
                    for one, own in zip(of_events.heads(x_SD), of_features.heads(x_1TD), strict=True)
                )
                read_T = attended(of_features.queries(x_1TD)[0], keys, values)
                if tail is not None:
                    before = len(x_SD)
                    read_S = attended(of_events.queries(x_SD), keys[:before], values[:before])
                    x_SD = of_events.merge(x_SD, read_S)[-tail:]
                x_1TD = of_features.merge(x_1TD, read_T[None])
            expected = ranker.towers(x_1TD.mean(1))["click"]
            torch.testing.assert_close(found[b : b + 1], expected, rtol=0, atol=1e-6)


def test_onetrans_makes_fewer_tokens_layer_by_layer():
    ranker = built(OneTrans.Config(embedding=TABLES, num_tokens=2, width=8, heads=2, tails=(6, 2)))
    state = ranker.encode_request(in_double(batch_of([0, 3, 9])).requests)
    assert [streams.lengths.tolist() for streams in state.streams] == [[2, 5, 11], [2, 5, 6], [2, 2, 2]]
    with pytest.raises(ValueError, match="do not grow, got \\(2, 6\\)"):
        OneTrans.Config(tails=(2, 6))


def test_hyformer_is_decoding_and_boosting_a_row_at_a_time():
    """Two histories of other lengths; each row alone, through dense attention."""
    config = HyFormer.Config(embedding=TABLES, num_tokens=2, queries=2, width=12, heads=2)
    inputs = replace(INPUTS, histories=(INPUTS.histories[0], replace(INPUTS.histories[0], name="again")))
    ranker, batch = built(config, inputs), in_double(batch_of([0, 1, 7, 20], rows_of_each=2))
    again = in_double(batch_of([3, 0, 11, 2], seed=5)).requests.histories[0]
    histories = (batch.requests.histories[0], again)
    batch = replace(batch, requests=replace(batch.requests, histories=histories))

    def attended(q_Shd, k_Shd, v_Shd, mask):
        scores = torch.einsum("qhd,khd->hqk", q_Shd, k_Shd) / q_Shd.shape[-1] ** 0.5
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v_Shd)

    with torch.no_grad():
        found = ranker(batch).logits["click"]
        front = ranker.front.encode_request(batch.requests)
        own_BFE = ranker.front.candidate_fields(batch.candidates)
        for b, r in enumerate(batch.candidates.request_of_row_B.tolist()):
            events = [
                embed(x_EW[offsets[r] : offsets[r + 1]])
                for embed, x_EW, offsets in zip(ranker.events, front.events_EW, front.offsets, strict=True)
            ]
            flat = torch.cat([front.fields_RFD[r], own_BFE[b]]).flatten()[None]
            means = [s.mean(0, keepdim=True) if len(s) else torch.zeros(1, 12).double() for s in events]
            q_QD = torch.cat([make(torch.cat([flat, *means], 1)) for make in ranker.queries])
            x_TD = torch.cat([q_QD, ranker.features(flat).x_BTD[0]])
            for layer in ranker.layers:
                for h, (part, decode) in enumerate(zip(layer.encoders, layer.decoders, strict=True)):
                    s, own = events[h], slice(2 * h, 2 * h + 2)
                    if len(s):
                        seen = attended(part.queries(s), *part.heads(s), stream_mask(len(s), 0))
                        events[h] = s = part.merge(s, seen)
                        asked = decode.query(decode.norm(x_TD[own])).unflatten(-1, (2, -1))
                        every = torch.ones(2, len(s), dtype=torch.bool)
                        read = attended(asked, *decode.of_events.heads(s), every).flatten(-2)
                        x_TD = torch.cat([x_TD[: 2 * h], x_TD[own] + decode.out(read), x_TD[2 * h + 2 :]])
                x_TD = layer.booster(x_TD[:, None])[:, 0]
            expected = ranker.towers(x_TD.mean(0, keepdim=True))["click"]
            torch.testing.assert_close(found[b : b + 1], expected, rtol=0, atol=1e-6)


def test_queries_of_an_empty_history_read_zeros():
    streams = Streams(torch.tensor([0, 0, 2]), torch.zeros(2, dtype=torch.int64))
    q, k, v = drawn(2, 3, 2, 4), drawn(2, 2, 4, seed=1), drawn(2, 2, 4, seed=2)
    read = cross_attention(q, k, v, streams, torch.tensor([0, 1]))
    assert torch.equal(read[0], torch.zeros(3, 2, 4).double()) and (read[1] != 0).all()


def test_hyformer_without_a_history_has_no_queries():
    ranker = built(HyFormer.Config(embedding=TABLES, num_tokens=2, width=8, heads=2), replace(INPUTS, histories=()))
    batch = in_double(batch_of([3, 0]))
    batch, taps = replace(batch, requests=replace(batch.requests, histories=())), {}
    assert ranker(batch, taps=taps).logits["click"].isfinite().all() and taps["tokens"].shape == (2, 2, 8)


def test_hstu_without_a_candidate_field_is_refused():
    with pytest.raises(ValueError, match="expected a candidate field"):
        HSTU.Config().build(replace(INPUTS, candidate=()), SPACES, 0)


@pytest.mark.parametrize("ranker", [HSTU, OneTrans, HyFormer])
def test_no_heads_are_refused(ranker):
    with pytest.raises(ValueError, match="heads >= 1, got 0"):
        ranker.Config(heads=0)
