"""Target attention over ragged histories: the compiled passes against the layer's own formula in double precision."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fullrank.kernels.bodies import bodies
from fullrank.kernels.cpu import attention
from fullrank.kernels.cpu.compiled import compiled
from fullrank.kernels.cpu.in_cache import gate_forward, multiply
from fullrank.kernels.target_attention import LEAST, runs_here
from fullrank.layers.activation import Activation
from fullrank.layers.activation_unit import ActivationUnitPooling

M, W, HIDDEN = 3, 4, (18, 4)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks of pairs in a small batch."""
    monkeypatch.setattr(attention, "CHUNK", 16)


def made(activation: Activation = "dice", training=True, seed=0, hidden=HIDDEN):
    torch.manual_seed(seed)
    unit = ActivationUnitPooling(M, W, hidden, activation).train(training)
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    for name, buffer in unit.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return unit


def drawn(lengths, rows, seed=1):
    """(query, events, offsets, request of row, gradient of the result)."""
    torch.manual_seed(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    request = torch.tensor(rows, dtype=torch.int64)
    query, events = torch.randn(len(rows), M), torch.randn(int(offsets[-1]), W)
    return query, events, offsets, request, torch.randn(len(rows), W)


def everything(unit, batch, which, dtype=torch.float32):
    """What a step gives: result, gradients of inputs and parameters, running statistics."""
    unit = copy.deepcopy(unit).to(dtype)
    query, events, offsets, request, grad = batch
    query, events = (x.detach().to(dtype).clone().requires_grad_() for x in (query, events))
    with bodies(which):
        out = unit(query, events, offsets, request)
        out.backward(grad.to(dtype))
    found = {"out": out.detach(), "query": query.grad, "events": events.grad}
    found |= {name: parameter.grad for name, parameter in unit.named_parameters()}
    return found | {name: buffer for name, buffer in unit.named_buffers() if buffer.dtype == dtype}


def agree(got, expected, tolerance=2e-5):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max())) if value.numel() else 1.0
        torch.testing.assert_close(got[name].double(), value.double(), rtol=0, atol=tolerance * scale, msg=name)


@given(
    lengths=st.lists(st.sampled_from([0, 0, 1, 2, 7, 8, 9, 30, 64, 65, 150]), min_size=1, max_size=6),
    picks=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    activation=st.sampled_from(["relu", "prelu", "dice"]),
    training=st.booleans(),
    seed=st.integers(0, 9),
)
@example(lengths=[2], picks=[0], activation="dice", training=True, seed=0)
@example(lengths=[40], picks=[0] * 12, activation="dice", training=True, seed=0)  # all rows of one request
@example(lengths=[0, 3000, 0, 1], picks=[0, 1, 2, 3], activation="dice", training=True, seed=0)
@example(lengths=[9, 30, 8], picks=[2, 0, 1, 0, 2], activation="dice", training=True, seed=0)  # requests out of order
@settings(max_examples=40, deadline=None)
def test_a_step_is_that_of_the_formula(lengths, picks, activation, training, seed):
    batch = drawn(lengths, [pick % len(lengths) for pick in picks], seed)
    unit = made(activation, training, seed)
    agree(everything(unit, batch, "compiled"), everything(unit, batch, "reference", torch.float64), 1e-4)


def test_the_kernel_runs_in_these_tests(monkeypatch):
    monkeypatch.setattr(attention.TargetAttention, "apply", lambda *_: pytest.fail("asked for"))
    with pytest.raises(BaseException, match="asked for"):
        everything(made(), drawn([3, 2], [0, 1]), "compiled")


def test_scoring_cuts_a_request_and_training_does_not():
    _, _, offsets, request, _ = drawn([40, 10, 0, 50], [0, 0, 0, 1, 2, 3, 3])
    cut, whole = (attention.plan_of(offsets, request, whole) for whole in (False, True))
    assert cut.cuts.tolist() == [0, 1, 2, 3, 4, 6, 7] and whole.cuts.tolist() == [0, 3, 4, 7]
    assert cut.num_pairs == whole.num_pairs == 3 * 40 + 10 + 2 * 50
    unit, batch = made(training=False), drawn([40], [0] * 9)
    with torch.no_grad(), bodies("compiled"):
        scored = unit(*batch[:4])
    agree({"out": scored}, {"out": everything(unit, batch, "reference", torch.float64)["out"]})


def test_the_number_of_threads_changes_no_bit():
    unit, batch, before = made(), drawn([30] * 20, range(20)), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(everything(unit, batch, "compiled"))
    finally:
        torch.set_num_threads(before)
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]) and torch.equal(value, found[2][name]), name


def test_a_second_backward_gives_the_same_and_there_are_no_second_derivatives():
    query, events, offsets, request, _ = drawn([9, 4], [0, 1, 1])
    events.requires_grad_()
    with bodies("compiled"):
        loss = made()(query, events, offsets, request).square().sum()
    (once,) = torch.autograd.grad(loss, events, retain_graph=True)
    (again,) = torch.autograd.grad(loss, events, create_graph=True)
    assert torch.equal(once, again)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        again.sum().backward()


def test_it_is_float32_under_autocast():
    unit, (query, events, offsets, request, _) = made(training=False), drawn([9, 4], [0, 1, 1])
    with bodies("compiled"), torch.no_grad():
        expected = unit(query, events, offsets, request)
        with torch.autocast("cpu", torch.bfloat16):
            found = unit(query, events, offsets, request)
            rounded = unit(query.bfloat16(), events, offsets, request)
    assert torch.equal(found, expected) and rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, expected, rtol=0.05, atol=0.05)


def test_what_is_not_for_it_goes_by_the_formula():
    offsets, one = torch.tensor([0, LEAST]), torch.zeros(1, dtype=torch.int64)
    assert runs_here(offsets, one, torch.zeros(2, 2))
    assert not runs_here(offsets - torch.tensor([0, 1]), one, torch.zeros(2, 2))
    assert not runs_here(offsets, one, torch.zeros(2, 2, dtype=torch.float64))
    with bodies("compiled"):
        assert not runs_here(torch.tensor([0, 1]), one, torch.zeros(2, 2))  # one pair has no variance
    batch = drawn([5, 3], [0, 1])
    for hidden in ((4,), (4, 3, 2)):
        unit = made(hidden=hidden)
        agree(everything(unit, batch, "compiled"), everything(unit, batch, "reference", torch.float64))


def test_products_of_any_width_and_number_of_rows():
    @compiled
    def product(to, rows, a, b, inner):
        multiply(to, 0, rows, a, 0, 1, rows, b, 0, inner, 103)

    for rows, inner in ((1, 1), (3, 0), (8, 7), (13, 4)):
        a, b = (torch.randn(shape).numpy() for shape in ((inner, rows), (inner, 103)))
        to = np.ones((rows, 103), np.float32)
        product(to.reshape(-1), rows, a.reshape(-1), b.reshape(-1), inner)
        np.testing.assert_allclose(to, 1 + a.T.astype(np.float64) @ b, atol=1e-5)


def test_the_sigmoid_is_good_to_the_last_places_and_keeps_what_is_not_a_number():
    @compiled
    def gates(to, opened, h, gate, rows):
        gate_forward(to, 0, opened, h, 0, rows, gate, True, 1)

    h = np.concatenate([np.linspace(-29, 29, 20_001), [-1e30, 1e30, np.nan, np.inf]]).astype(np.float32)
    to, opened = np.zeros_like(h), np.zeros_like(h)
    gates(to, opened, h, np.array([0, 1, 0, 0, 0], np.float32), len(h))
    exact = torch.from_numpy(h[:-4]).double().sigmoid().numpy()
    np.testing.assert_allclose(opened[:-4], exact, rtol=3e-6)
    np.testing.assert_allclose(opened[:-4][abs(h[:-4]) < 3], exact[abs(h[:-4]) < 3], rtol=5e-7)
    np.testing.assert_allclose(opened[-4:-2], [0, 1], atol=1e-12)
    assert np.isnan(to[-2]) and np.isinf(to[-1])
