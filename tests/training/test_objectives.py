import math

import pytest
import torch
from tiny_world import Output, make_batch

from fullrank.config_json import decode, encode
from fullrank.data.inputs import TaskInput
from fullrank.training.objectives import BinaryCrossEntropy, MultiTask, ObjectiveConfig, SquaredError, Term

IDS = torch.zeros(4, 2, dtype=torch.int64)
VALUES = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
KNOWN = torch.tensor([[True, False], [True, True], [True, True], [False, True]])
LOGITS = torch.tensor([[0.5, 9.0], [-1.0, 0.2], [2.0, -0.3], [7.0, 1.5]])
CLICK, BUY = TaskInput(name="click"), TaskInput(name="buy")
both = ObjectiveConfig().build([CLICK, BUY])
errors = MultiTask(terms=(Term(task="click", loss=SquaredError()), Term(task="buy", loss=SquaredError())))
OBJECTIVES = pytest.mark.parametrize("objective", [both, errors], ids=["cross_entropy", "squared"])


def losses_of(objective, batch, logits_BK=LOGITS, aux=None):
    return objective(Output({"click": logits_BK[:, 0], "buy": logits_BK[:, 1]}, aux or {}), batch)


def by_hand(objective, column, weights):
    """The loss of one task, a known row at a time."""
    total = weight = 0.0
    for row, w in enumerate(weights):
        if KNOWN[row, column]:
            z, y = LOGITS[row, column].item(), VALUES[row, column].item()
            p = 1 / (1 + math.exp(-z))
            total += w * ((z - y) ** 2 if objective is errors else -math.log(p if y else 1 - p))
            weight += w
    return total / weight


@OBJECTIVES
def test_the_mean_is_over_known_rows_by_weight(objective):
    weights = [1.0, 3.0, 0.5, 2.0]
    losses = losses_of(objective, make_batch(IDS, VALUES, KNOWN, weight_B=torch.tensor(weights)))
    assert list(losses) == ["click", "buy"]
    for column, loss in enumerate(losses.values()):
        assert loss.item() == pytest.approx(by_hand(objective, column, weights), rel=1e-6)


def test_sampling_is_undone_only_when_asked():
    rates = torch.tensor([1.0, 0.1, 0.5, 1.0])
    batch = make_batch(IDS, VALUES, KNOWN, sample_rate_B=rates)
    undo = ObjectiveConfig(undo_sample_rate=True)
    numbers = [TaskInput(name="click", kind="regression"), TaskInput(name="buy", kind="regression")]
    for plain, undone in ((both, undo.build([CLICK, BUY])), (errors, undo.build(numbers))):
        assert losses_of(plain, batch)["buy"].item() == pytest.approx(by_hand(plain, 1, [1.0] * 4), rel=1e-6)
        expected = by_hand(plain, 1, (1 / rates).tolist())
        assert losses_of(undone, batch)["buy"].item() == pytest.approx(expected, rel=1e-6)


@OBJECTIVES
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_an_unknown_row_contributes_nothing_whatever_its_logit(objective, broken):
    batch = make_batch(IDS, VALUES, KNOWN)
    logits = torch.where(KNOWN, LOGITS, broken).requires_grad_()
    losses = losses_of(objective, batch, logits)
    assert torch.equal(losses["click"], losses_of(objective, batch)["click"])
    torch.stack(list(losses.values())).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[~KNOWN] == 0).all() and (logits.grad[KNOWN] != 0).all()


@OBJECTIVES
@pytest.mark.parametrize("absent", ["unknown", "weightless"])
def test_a_task_with_nothing_known_is_exactly_zero_and_so_is_its_gradient(objective, absent):
    known, weight = KNOWN.clone(), torch.ones(4)
    if absent == "unknown":
        known[:, 1] = False
    else:
        weight[1:] = 0.0  # the one row of weight has an unknown label
    batch = make_batch(IDS, VALUES, known, weight_B=weight)
    logits = LOGITS.clone().requires_grad_()
    losses = losses_of(objective, batch, logits)
    assert losses["buy"].item() == 0.0 and losses["click"].item() > 0
    torch.stack(list(losses.values())).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, 1] == 0).all() and torch.isfinite(logits.grad).all()


def test_tasks_are_summed_by_their_weights_and_losses_of_the_model_follow():
    batch = make_batch(IDS, VALUES, KNOWN)
    weighed = ObjectiveConfig(weights={"buy": 0.25}).build([CLICK, BUY])
    losses = losses_of(weighed, batch, aux={"click": torch.tensor(0.5)})
    plain = losses_of(both, batch)
    assert list(losses) == ["click", "buy", "aux.click"] and losses["aux.click"].item() == 0.5
    assert torch.equal(losses["click"], plain["click"]) and torch.equal(losses["buy"], 0.25 * plain["buy"])


def test_losses_are_float32_whatever_the_logits_are():
    batch, logits = make_batch(IDS, VALUES, KNOWN), LOGITS.bfloat16()
    for objective in (both, errors):
        for name, loss in losses_of(objective, batch, logits, aux={"a": torch.tensor(0.5).bfloat16()}).items():
            assert loss.dtype == torch.float32, name
        half, whole = (losses_of(objective, batch, given)["buy"] for given in (logits, logits.float()))
        assert torch.equal(half, whole)


def test_the_kinds_of_tasks_choose_the_losses():
    tasks = [CLICK, TaskInput(name="watched", kind="regression")]
    objective = ObjectiveConfig(undo_sample_rate=True).build(tasks)
    assert [term.loss for term in objective.terms] == [
        BinaryCrossEntropy(undo_sample_rate=True),
        SquaredError(undo_sample_rate=True),
    ]
    assert not objective.whole_requests
    for choice in ("softmax", "pairwise"):
        grouped = ObjectiveConfig(binary=choice).build(tasks)
        assert grouped.whole_requests and isinstance(grouped.terms[1].loss, SquaredError)
        assert decode(MultiTask, encode(grouped)) == grouped
    with pytest.raises(ValueError, match=r"multiclass task 'genre'.*\(exclude='genre'\)"):
        ObjectiveConfig().build([CLICK, TaskInput(name="genre", kind="multiclass", classes=3)])
    with pytest.raises(ValueError, match="Expected at least one task to learn"):
        ObjectiveConfig().build([])
    with pytest.raises(ValueError, match=r"weights of the tasks \['click', 'buy'\].*'bye'.* Did you mean 'buy'"):
        ObjectiveConfig(weights={"bye": 2.0}).build([CLICK, BUY])
    with pytest.raises(ValueError, match=r"weight > 0 for task 'buy', got 0.0. To leave a task out, exclude it"):
        ObjectiveConfig(weights={"buy": 0.0}).build([CLICK, BUY])
    with pytest.raises(ValueError, match=r"got 'pairwize'. Did you mean 'pairwise'"):
        ObjectiveConfig(binary="pairwize")  # pyright: ignore[reportArgumentType] a wrong one


def test_an_objective_is_read_as_it_was_stored():
    objective = ObjectiveConfig(undo_sample_rate=True, weights={"buy": 0.5}).build([CLICK, BUY])
    assert decode(MultiTask, encode(objective)) == objective != both


def test_errors_name_what_is_missing():
    batch, like = make_batch(IDS, VALUES, KNOWN), TaskInput(name="like")
    with pytest.raises(ValueError, match=r"logits of task 'like', got those of \['click', 'buy'\]"):
        losses_of(ObjectiveConfig().build([CLICK, like]), batch)
    with pytest.raises(ValueError, match=r"each task of \('click',\), got 2 label columns"):
        losses_of(ObjectiveConfig().build([CLICK]), batch)
    with pytest.raises(ValueError, match="Expected a batch with labels"):
        losses_of(both, type(batch)(batch.requests, batch.candidates))
