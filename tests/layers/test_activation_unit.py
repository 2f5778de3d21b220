"""DIN's activation unit against a loop over rows and events that writes [k, q - k, q * k, q, o] out."""

import pytest
import torch

from fullrank.layers.activation_unit import ActivationUnitPooling

M, W = 3, 5
OFFSETS = torch.tensor([0, 3, 3, 5])
REQUESTS = torch.tensor([2, 0, 1, 0, 2])


def made(hidden=(6, 4), activation="dice", common=M, seed=0):
    torch.manual_seed(seed)
    unit = ActivationUnitPooling(common, W, hidden, activation).double().eval()
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return unit


def drawn(common=M, events=5):
    torch.manual_seed(1)
    return torch.randn(5, common, dtype=torch.float64), torch.randn(events, W, dtype=torch.float64)


@pytest.mark.parametrize("common", [M, W])
@pytest.mark.parametrize("hidden", [(6,), (6, 4)])
@pytest.mark.parametrize("activation", ["relu", "prelu", "dice"])
def test_pooling_is_the_loop_over_rows_and_events(common, hidden, activation):
    unit, (query, events) = made(hidden, activation, common), drawn(common)
    out = unit(query, events, OFFSETS, REQUESTS)
    for b, r in enumerate(REQUESTS.tolist()):
        expected = torch.zeros(W, dtype=torch.float64)
        for event in events[OFFSETS[r] : OFFSETS[r + 1]]:
            k, o, q = event[:common], event[common:], query[b]
            seen = torch.cat([k, q - k, q * k, q, o]).unsqueeze(0)
            expected += unit.rest(unit.activation(unit.first(seen))).squeeze() * event
        torch.testing.assert_close(out[b], expected)
    assert not out[2].any()  # the request without events


def test_weights_are_not_normalised():
    unit, (query, events) = made(), drawn()
    once = unit(query[:1], events[:2], torch.tensor([0, 2]), torch.tensor([0]))
    twice = unit(query[:1], events[[0, 1, 0, 1]], torch.tensor([0, 4]), torch.tensor([0]))
    torch.testing.assert_close(twice, 2 * once)
    assert once.abs().min() > 1e-3


def test_the_order_of_events_and_the_company_of_rows_are_of_no_account():
    unit, (query, events) = made(), drawn()
    one, all_events = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 5])
    together = unit(query, events, all_events, one)
    torch.testing.assert_close(unit(query, events.flip(0), all_events, one), together)
    torch.testing.assert_close(unit(query[1:2], events, all_events, one[:1]), together[1:2])


def test_gradients():
    unit, (query, events) = made(activation="prelu"), drawn()
    inputs = (query.requires_grad_(), events.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, e: unit(q, e, OFFSETS, REQUESTS), inputs)


@pytest.mark.parametrize("events", [0, 1])
def test_a_training_batch_of_almost_no_events(events):
    query, all_events = drawn()
    offsets = torch.tensor([0, events, events, events])
    out = made().train()(query, all_events[:events], offsets, REQUESTS)
    assert out.shape == (5, W) and out.isfinite().all() and not out[[0, 2, 4]].any()


def test_parameter_count():
    unit = ActivationUnitPooling(32, 48, (80, 40), "dice")
    expected = 80 * (4 * 32 + 16 + 1) + (80 * 40 + 40) + 41 + (80 + 40)
    assert sum(parameter.numel() for parameter in unit.parameters()) == expected


def test_a_unit_without_hidden_units_is_refused():
    with pytest.raises(ValueError, match=r"at least one hidden width for the activation unit, got \(\)"):
        ActivationUnitPooling(2, 2, ())
