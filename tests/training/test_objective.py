import math

import pytest
import torch
from tiny_world import Output, make_batch

from fullrank.training.objective import BinaryCrossEntropy

IDS = torch.zeros(4, 2, dtype=torch.int64)
VALUES = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
KNOWN = torch.tensor([[True, False], [True, True], [True, True], [False, True]])
LOGITS = torch.tensor([[0.5, 9.0], [-1.0, 0.2], [2.0, -0.3], [7.0, 1.5]])
both = BinaryCrossEntropy(tasks=("click", "buy"))


def losses_of(objective, batch, logits_BK=LOGITS, aux=None):
    return objective(Output({"click": logits_BK[:, 0], "buy": logits_BK[:, 1]}, aux or {}), batch)


def by_hand(column, weights):
    total = weight = 0.0
    for row, w in enumerate(weights):
        if KNOWN[row, column]:
            p = 1 / (1 + math.exp(-LOGITS[row, column].item()))
            total -= w * math.log(p if VALUES[row, column] else 1 - p)
            weight += w
    return total / weight


def test_the_mean_is_over_known_rows_by_weight():
    weights = [1.0, 3.0, 0.5, 2.0]
    losses = losses_of(both, make_batch(IDS, VALUES, KNOWN, weight_B=torch.tensor(weights)))
    assert list(losses) == ["click", "buy"]
    assert losses["click"].item() == pytest.approx(by_hand(0, weights), rel=1e-6)
    assert losses["buy"].item() == pytest.approx(by_hand(1, weights), rel=1e-6)


def test_sampling_is_undone_only_when_asked():
    rates = torch.tensor([1.0, 0.1, 0.5, 1.0])
    batch = make_batch(IDS, VALUES, KNOWN, sample_rate_B=rates)
    undone = BinaryCrossEntropy(tasks=("click", "buy"), undo_sample_rate=True)
    assert losses_of(both, batch)["buy"].item() == pytest.approx(by_hand(1, [1.0] * 4), rel=1e-6)
    assert losses_of(undone, batch)["buy"].item() == pytest.approx(by_hand(1, (1 / rates).tolist()), rel=1e-6)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_an_unknown_row_contributes_nothing_whatever_its_logit(broken):
    batch = make_batch(IDS, VALUES, KNOWN)
    logits = torch.where(KNOWN, LOGITS, broken).requires_grad_()
    losses = losses_of(both, batch, logits)
    assert torch.equal(losses["click"], losses_of(both, batch)["click"])
    torch.stack(list(losses.values())).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[~KNOWN] == 0).all() and (logits.grad[KNOWN] != 0).all()


@pytest.mark.parametrize("absent", ["unknown", "weightless"])
def test_a_task_with_nothing_known_is_exactly_zero_and_so_is_its_gradient(absent):
    known, weight = KNOWN.clone(), torch.ones(4)
    if absent == "unknown":
        known[:, 1] = False
    else:
        weight[1:] = 0.0  # the one row of weight has an unknown label
    batch = make_batch(IDS, VALUES, known, weight_B=weight)
    logits = LOGITS.clone().requires_grad_()
    losses = losses_of(both, batch, logits)
    assert losses["buy"].item() == 0.0 and losses["click"].item() > 0
    torch.stack(list(losses.values())).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, 1] == 0).all() and torch.isfinite(logits.grad).all()


def test_losses_of_the_model_follow_under_names_of_their_own():
    losses = losses_of(both, make_batch(IDS, VALUES, KNOWN), aux={"click": torch.tensor(0.25)})
    assert list(losses) == ["click", "buy", "aux.click"] and losses["aux.click"].item() == 0.25


def test_errors_name_what_is_missing():
    batch = make_batch(IDS, VALUES, KNOWN)
    with pytest.raises(ValueError, match=r"logits of task 'like', got those of \['click', 'buy'\]"):
        losses_of(BinaryCrossEntropy(tasks=("click", "like")), batch)
    with pytest.raises(ValueError, match=r"each task of \('click',\), got 2 label columns"):
        losses_of(BinaryCrossEntropy(tasks=("click",)), batch)
    with pytest.raises(ValueError, match="Expected a batch with labels"):
        losses_of(both, type(batch)(batch.requests, batch.candidates))
