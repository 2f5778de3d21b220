"""The front's fields stand in the order of their names, however histories are pooled."""

import pytest
import torch
from row_by_row import INPUTS, NUM_ROWS, REQUEST_OF_ROW, Vectors, batch
from torch import nn

from fullrank.rankers.field_front import EmbeddingConfig, FieldFront

REQUEST, CANDIDATE = ("user", "hour", "profile"), ("tags", "item")
POOLED = ("seen.action", "seen.item", "seen.item.tags")


class OnlyAFront(nn.Module):
    def __init__(self, pooling):
        super().__init__()
        self.tables = EmbeddingConfig(width=3, init_std=0.5).build(INPUTS, NUM_ROWS, seed=0)
        self.front = FieldFront(INPUTS, self.tables, 3, pooling, attention_width=4)

    def fields(self):
        state = self.front.encode_request(batch().requests)
        return state, self.front(state, batch().candidates)


@pytest.mark.parametrize(
    ("pooling", "names"),
    [
        ("mean", REQUEST + POOLED + CANDIDATE),
        ("din", REQUEST + CANDIDATE + POOLED),
        (None, REQUEST + CANDIDATE),
    ],
)
def test_names_are_in_the_order_of_the_vectors(pooling, names):
    model = OnlyAFront(pooling)
    _, x_BFD = model.fields()
    assert model.front.field_names == names and model.front.num_fields == len(names) == x_BFD.shape[1]
    vectors = Vectors(model, model.front)
    for b, r in enumerate(REQUEST_OF_ROW):
        expected = dict(zip(REQUEST + POOLED + CANDIDATE, vectors.of_row(b), strict=True))
        found = dict(zip(names, x_BFD[b], strict=True))
        if pooling == "din":  # attention's values have their own tests
            assert all(bool(found[name].any()) == bool(vectors.of_events(r)) for name in POOLED)
        for name in names if pooling != "din" else REQUEST + CANDIDATE:
            torch.testing.assert_close(found[name], expected[name])


def test_events_are_left_to_the_ranker_where_the_front_does_not_pool():
    state, _ = OnlyAFront(None).fields()
    vectors = Vectors(model := OnlyAFront(None), model.front)
    expected = torch.stack([torch.cat(event) for r in range(3) for event in vectors.of_events(r)])
    assert len(state.events_EW) == len(state.offsets) == 1
    torch.testing.assert_close(state.events_EW[0], expected)


def test_the_candidate_alone():
    model = OnlyAFront("mean")
    _, x_BFD = model.fields()
    assert torch.equal(model.front.candidate_fields(batch().candidates), x_BFD[:, -2:])
