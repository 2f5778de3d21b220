"""TokenFormer as a whole: one stream with a mask says the same, padding says nothing, sizes are as published."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from stream_batches import INPUTS, SPACES, batch_of, categorical, in_double

from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import HistoryInputs, Inputs, TaskInput
from fullrank.layers.stream_attention import stream_mask
from fullrank.rankers import TokenFormer
from fullrank.rankers.field_front import EmbeddingConfig

SMALL = TokenFormer.Config(
    embedding=EmbeddingConfig(width=4, init_std=1.0), width=16, heads=2, expansion=2, windows=(4, 3)
)


def built(config=SMALL, inputs=INPUTS):
    return config.build(inputs, SPACES, 0).double().eval()


def test_a_row_is_one_stream_with_a_mask():
    """[2 fields ; sep ; events ; sep ; candidate] through dense layers, for each row alone."""
    ranker, batch = built(), in_double(batch_of([0, 1, 7, 20], rows_of_each=2))
    taps = {}
    with torch.no_grad():
        found = ranker(batch, taps=taps).logits["click"]
        state = ranker.front.encode_request(batch.requests)
        stream = ranker.stream(state)
        candidate_BD = ranker.candidate(ranker.front.candidate_fields(batch.candidates).flatten(1))
        for b, r in enumerate(batch.candidates.request_of_row_B.tolist()):
            low, high = stream.streams.offsets[r : r + 2].tolist()
            x = torch.cat([stream.x_ND[low:high], candidate_BD[b : b + 1]])[None]
            place = torch.cat([stream.streams.positions_N[low:high], stream.target_position_R[r : r + 1]])
            assert place.tolist() == [0, 0, 0, *range(1, high - low - 3), high - low - 3, high - low - 3][: len(place)]
            for block, window in zip(ranker.blocks, (None, None, 4, 3), strict=True):
                x = block(x, stream_mask(x.shape[1], 2, window), place)
            expected = ranker.towers(x[:, -1])["click"]
            torch.testing.assert_close(found[b : b + 1], expected, rtol=0, atol=1e-6)


def test_t9_no_row_depends_on_the_others_of_its_batch():
    ranker, batch = built(), in_double(batch_of([0, 3, 50, 9, 12, 60, 1]))
    with torch.no_grad():
        whole = ranker(batch).logits["click"]
        for r in range(7):
            low, high = batch.requests.histories[0].offsets[r : r + 2].tolist()
            events = batch.requests.histories[0].events
            some = FeatureBlock(events.ids_nF[low:high], events.numbers_nF[low:high])
            own = HistoryBatch(some, torch.tensor([0, high - low]))
            one = torch.zeros(1, dtype=torch.int64)

            def cut(block, at=r):
                return FeatureBlock(block.ids_nF[at : at + 1], block.numbers_nF[at : at + 1])

            requests = Requests(cut(batch.requests.features), (own,), one, one)
            alone = ranker(Batch(requests, Candidates(cut(batch.candidates.features), one))).logits["click"]
            torch.testing.assert_close(alone, whole[r : r + 1], rtol=0, atol=1e-6)


def test_empty_histories_alone_are_numbers():
    ranker = built()
    logits = ranker(in_double(batch_of([0, 0, 0]))).logits["click"]
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ranker.dense_parameters())


def test_every_position_learns_and_none_sees_its_own_outcome():
    config = replace(SMALL, regime="every")
    ranker, batch = built(config).train(), in_double(batch_of([4, 9]))
    loss = ranker(batch).aux["every"]
    loss.backward()
    assert loss > 0 and ranker.stream.actions[0].linear.weight.grad.abs().sum() > 0
    assert ranker.towers.of_task[1].steps[0].weight.grad.abs().sum() > 0
    assert "every" not in ranker.eval()(batch).aux

    def position_states(numbers):
        events = replace(batch.requests.histories[0].events, numbers_nF=numbers)
        history = replace(batch.requests.histories[0], events=events)
        state = ranker.front.encode_request(replace(batch.requests, histories=(history,)))
        stream = ranker.stream(state)
        x = stream.x_ND
        low, high = stream.streams.offsets[:2].tolist()
        x = ranker.blocks[0](x[None, low:high], stream_mask(high - low, 2), stream.streams.positions_N[low:high])
        return x[0, stream.event_tokens[0][:4]]

    with torch.no_grad():
        numbers = batch.requests.histories[0].events.numbers_nF.clone()
        numbers[:] = 0
        before = position_states(numbers.clone())
        numbers[2] = 1
        moved = (position_states(numbers) - before).abs().amax(1) > 1e-9
    assert moved.tolist() == [False, False, False, True]


def test_every_position_needs_outcomes():
    plain = replace(INPUTS, histories=(HistoryInputs(name="seen", last_n=5, fields=categorical("item")),))
    with pytest.raises(ValueError, match="has some, got none"):
        built(replace(SMALL, regime="every"), plain)


def test_t8_a_published_configuration_has_its_published_size():
    """UniRank's: 12 user fields and an item of 7, width 16, D 256, three layers, four tasks."""
    users = categorical(*(f"u{at}" for at in range(12)))
    items = categorical(*(f"i{at}" for at in range(7)))
    inputs = Inputs(
        request=users,
        candidate=items,
        histories=(HistoryInputs(name="seen", last_n=100, fields=items),),
        tasks=tuple(TaskInput(name=name) for name in ("click", "like", "follow", "long_view")),
    )
    config = TokenFormer.Config(
        width=256, heads=2, expansion=4, full_layers=2, windows=(16,), form="unirank", towers=(128, 64)
    )
    ranker = config.build(inputs, {one.key_space: 3 for one in users + items}, 0)
    assert sum(parameter.numel() for parameter in ranker.dense_parameters()) == 3_438_340


def test_taps_hold_the_events_before_and_after_each_layer():
    ranker, batch = built(), in_double(batch_of([2, 5]))
    taps = {}
    with torch.no_grad():
        ranker(batch, taps=taps)
    assert taps["events.length"].tolist() == [2, 5]
    assert [taps[name].shape for name in ("events", "events.0", "events.2")] == [(2, 5, 16)] * 3
    assert (taps["events"][0, 2:] == 0).all()
