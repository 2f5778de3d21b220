"""Cross stack and Linear + ReLU on both bodies, against the layers of torch that they replace."""

import copy

import pytest
import torch
from torch import nn

from fullrank.kernels.bias_relu import bias_relu_, bias_relu_backward
from fullrank.kernels.bodies import bodies
from fullrank.kernels.cross import cross
from fullrank.layers.cross import CrossStack
from fullrank.layers.linear_relu import linear_relu

BODIES = pytest.mark.parametrize("body", ["reference", "compiled"])
SHAPES = pytest.mark.parametrize("rows, width", [(1, 1), (3, 15), (5, 16), (130, 37), (257, 48)])


def plain(stack: CrossStack, x0_BD: torch.Tensor) -> list[torch.Tensor]:
    xs = [x0_BD]
    for layer in stack:
        xs.append(layer(x0_BD, xs[-1]))
    return xs[1:]


def gradients(outputs, of, weights):
    return torch.autograd.grad(sum((x * w).sum() for x, w in zip(outputs, weights, strict=True)), of)


@BODIES
@SHAPES
def test_a_stack_is_its_layers_one_after_another(body, rows, width):
    torch.manual_seed(0)
    stack = CrossStack(width, 3)
    for layer in stack:
        nn.init.normal_(layer.linear.bias)
    x0_BD = torch.randn(rows, width, requires_grad=True)
    of = [x0_BD, *stack.parameters()]
    for used in ([2], [0, 1, 2], [1]):  # which layers' outputs the loss reads
        weights = [torch.randn(rows, width) for _ in used]
        expected = [plain(stack, x0_BD)[at] for at in used]
        with bodies(body):
            found = [stack(x0_BD)[at] for at in used]
            torch.testing.assert_close(found, expected)
            theirs = torch.autograd.grad(
                sum((x * w).sum() for x, w in zip(expected, weights, strict=True)), of, allow_unused=True
            )
            ours = torch.autograd.grad(
                sum((x * w).sum() for x, w in zip(found, weights, strict=True)), of, allow_unused=True
            )
        for own, their in zip(ours, theirs, strict=True):
            assert (own is None) == (their is None)
            if own is not None:
                torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-4)


def test_the_gradients_of_both_are_right_in_double_precision():
    torch.manual_seed(0)
    stack = CrossStack(4, 2).double()
    x_BD = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: stack(x), (x_BD, *stack.parameters()))
    linear = nn.Linear(4, 3).double()
    assert torch.autograd.gradcheck(linear_relu, (x_BD, linear.weight, linear.bias))


@BODIES
@SHAPES
def test_linear_relu_is_relu_of_linear(body, rows, width):
    torch.manual_seed(1)
    linear = nn.Linear(7, width)
    x_BI = torch.randn(rows, 7, requires_grad=True)
    of, weight = [x_BI, *linear.parameters()], torch.randn(rows, width)
    with bodies(body):
        found, expected = linear_relu(x_BI, linear.weight, linear.bias), linear(x_BI).relu()
        torch.testing.assert_close(found, expected)
        for own, their in zip(gradients([found], of, [weight]), gradients([expected], of, [weight]), strict=True):
            torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-4)


@BODIES
def test_bfloat16_is_no_further_from_float32_than_torchs_own_layers(body):
    torch.manual_seed(2)
    stack, linear = CrossStack(48, 3), nn.Linear(48, 33)
    x_BD, weight = torch.randn(256, 48, requires_grad=True), torch.randn(256, 33)
    of = [x_BD, *stack.parameters(), *linear.parameters()]

    def fused():
        y = linear_relu(stack(x_BD)[-1], linear.weight, linear.bias)
        return [y, *torch.autograd.grad((y.float() * weight).sum(), of)]

    def layers():
        y = linear(plain(stack, x_BD)[-1]).relu()
        return [y, *torch.autograd.grad((y.float() * weight).sum(), of)]

    exact = layers()
    with torch.autocast("cpu", torch.bfloat16):
        theirs = layers()
        with bodies(body):
            ours = fused()
    assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
    for own, their, true in zip(ours, theirs, exact, strict=True):
        off, allowed = (float((x.detach().float() - true.detach()).norm()) for x in (own, their))
        assert off < 2 * allowed + 1e-3 * float(true.detach().norm())


def test_a_nan_goes_through_to_whoever_checks_the_loss():
    for dtype in (torch.float32, torch.bfloat16):
        with bodies("compiled"):
            x_BD = torch.full((3, 20), torch.nan, dtype=dtype)
            assert bias_relu_(x_BD.clone(), torch.zeros(20)).isnan().all()
            y_BD = cross(torch.ones_like(x_BD), torch.ones_like(x_BD), x_BD.clone(), torch.zeros(20))
            assert y_BD.isnan().all()
            grad_BD, grad_D = bias_relu_backward(x_BD, torch.ones_like(x_BD))
            assert grad_BD.isnan().all() and grad_D.isnan().all()


def test_stored_bfloat16_is_rounded_to_nearest_even():
    """Every float32 pattern of the upper bits around ties, infinities and subnormals, against torch's conversion."""
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int64)
    patterns = torch.cat([(bits << 16) + low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).to(torch.int32)
    numbers = patterns.view(torch.float32).reshape(-1, 64)
    zeros = torch.zeros(numbers.shape, dtype=torch.bfloat16)
    with bodies("compiled"):  # y = 0 + 1 * (0 + number), the number coming as the float32 bias of a row
        for row in range(0, len(numbers), 97):
            y_BD = cross(zeros[:1] + 1, zeros[:1], zeros[:1].clone(), numbers[row])
            expected = (numbers[row] + 0).to(torch.bfloat16)
            assert torch.equal(y_BD[0].isnan(), expected.isnan())
            assert torch.equal(y_BD[0][~expected.isnan()], expected[~expected.isnan()])


def test_threads_change_no_bit_of_a_row():
    torch.manual_seed(3)
    parts = [torch.randn(640, 48) for _ in range(3)]
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with bodies("compiled"):
                found.append(cross(parts[0], parts[1], parts[2].clone(), torch.ones(48)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_stack_has_the_parameters_of_its_layers_and_can_be_copied():
    stack = CrossStack(4, 2)
    assert [name for name, _ in stack.named_parameters()][:2] == ["0.linear.weight", "0.linear.bias"]
    twin = copy.deepcopy(stack)
    x_BD = torch.randn(3, 4)
    assert torch.equal(twin(x_BD)[-1], stack(x_BD)[-1])
