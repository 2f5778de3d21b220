"""DIN against its equations row by row, and which candidate field an event is compared with."""

from dataclasses import replace

import pytest
import torch
from row_by_row import EVENT, INPUTS, REQUEST_OF_ROW, Vectors, batch, built, count

from fullrank.data.batch import Bag
from fullrank.data.inputs import Field
from fullrank.rankers import DIN
from fullrank.rankers.din import CandidateUnit
from fullrank.rankers.field_front import EmbeddingConfig

WIDTH = 3
CONFIG = DIN.Config(embedding=EmbeddingConfig(width=WIDTH, init_std=0.5), attention_hidden=(6, 4), hidden=(7,))


def test_logits_are_those_of_the_equations():
    ranker = built(CONFIG)
    taps = {}
    logits = ranker(batch(), taps=taps).logits
    vectors, unit = Vectors(ranker, ranker.front), ranker.units[0].unit
    for b, r in enumerate(REQUEST_OF_ROW):
        tags, item = vectors.of_candidate(b)
        q = torch.cat([item, tags])
        pooled = torch.zeros(3 * WIDTH)
        for action, event_item, event_tags in vectors.of_events(r):
            k, o = torch.cat([event_item, event_tags]), action
            seen = torch.cat([k, q - k, q * k, q, o]).unsqueeze(0)
            pooled = pooled + unit.rest(unit.activation(unit.first(seen))).squeeze() * torch.cat([k, o])
        torch.testing.assert_close(taps["history.seen"][b], pooled)
        x = torch.cat([*vectors.of_request(r), tags, item, pooled])
        linear = ranker.mlp.steps[0]
        x = torch.relu(linear.weight @ x + linear.bias)
        for k, task in enumerate(INPUTS.task_names):
            tower = ranker.towers.of_task[k].steps[0]
            torch.testing.assert_close(logits[task][b], (tower.weight @ x + tower.bias).squeeze())


def of(name, space):
    return Field(name=name, kind="categorical", key_space=space)


@pytest.mark.parametrize(
    ("candidate", "query_fields", "event_order"),
    [
        (INPUTS.candidate, [1, 0], [1, 2, 0]),
        ((of("slot", "slot"), of("item", "item")), [1], [1, 0, 2]),
        ((of("bundle", "item"), of("item", "item")), [1], [1, 0, 2]),  # of two of the space, the one of the name
        ((of("ad", "item"),), [0], [1, 0, 2]),  # of one of the space, that one
    ],
)
def test_an_event_is_compared_with_the_candidate_field_of_its_key_space(candidate, query_fields, event_order):
    unit = CandidateUnit(EVENT, candidate, WIDTH, (4,), "relu")
    assert (unit.query_fields, unit.event_order, unit.query) == (query_fields, event_order, None)


def test_a_history_with_nothing_in_common_is_asked_by_a_projection_of_the_candidate():
    torch.manual_seed(0)
    unit = CandidateUnit(EVENT, (of("slot", "slot"), of("size", "size")), WIDTH, (4,), "relu")
    assert unit.query is not None and unit.query.weight.shape == (3 * WIDTH, 2 * WIDTH)
    candidate, events = torch.randn(2, 2, WIDTH), torch.randn(5, 3, WIDTH)
    offsets, requests = torch.tensor([0, 2, 5]), torch.tensor([1, 0])
    expected = unit.unit(unit.query(candidate.flatten(1)), events.flatten(1), offsets, requests)
    torch.testing.assert_close(unit(candidate, events, offsets, requests), expected)


def test_dense_parameter_count():
    fields = (3 + 2 + 2) * WIDTH
    unit = 6 * (4 * 2 * WIDTH + WIDTH + 1) + (6 * 4 + 4) + 5 + (6 + 4)
    mlp = 8 * WIDTH * 7 + 7
    assert count(built(CONFIG)) == fields + unit + mlp + 2 * 8


def test_a_training_step_on_a_batch_without_events():
    ranker = built(CONFIG).train()
    whole = batch()
    history = whole.requests.histories[0]
    no_tags = Bag(torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    events = replace(
        history.events,
        ids_nF=history.events.ids_nF[:0],
        numbers_nF=history.events.numbers_nF[:0],
        bags=(no_tags,),
    )
    empty = replace(history, events=events, offsets=torch.zeros(4, dtype=torch.int64))
    output = ranker(replace(whole, requests=replace(whole.requests, histories=(empty,))))
    sum(output.logits.values()).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in ranker.dense_parameters())


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"DIN attention_activation .* got 'dise'\. Did you mean 'dice'\?"):
        DIN.Config(attention_activation="dise")
    with pytest.raises(ValueError, match=r"DIN activation .* got 'rely'\. Did you mean 'relu'\?"):
        DIN.Config(activation="rely")
    with pytest.raises(ValueError, match="DIN needs candidate fields"):
        built(CONFIG, replace(INPUTS, candidate=()))
