import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_optimizers import Bilinear, batches
from tiny_world import OBJECTIVE, SCORES, TinyLoader, TinyRanker, create_run, lines_of

from fullrank.features.tables import TableOptimizer
from fullrank.training.config import TrainConfig
from fullrank.training.loop import TrainingError, train
from fullrank.training.optimizers import RankerOptimizer
from fullrank.training.schedule import Schedule

CONFIG = TrainConfig(epochs=2, batch_size=20, lr=0.02, log_every_steps=1)  # 100 rows: 5 steps an epoch


def rates(tmp_path, schedule, config=CONFIG, **options):
    """The learning rate of every step, as a share of the config's."""
    config = replace(config, schedule=schedule)
    run = create_run(tmp_path / "run", config)
    train(TinyRanker(), TinyLoader(100, batch_size=20), OBJECTIVE, config, run, **options)
    return [line["lr"] / config.lr for line in lines_of(run) if "lr" in line]


def test_a_constant_rate_is_the_rate(tmp_path):
    assert rates(tmp_path, Schedule()) == [1.0] * 10


def test_warm_up_and_decays_by_hand(tmp_path):
    warm = [1 / 3, 2 / 3, 1.0]
    line = [1 - 0.75 * k / 7 for k in range(7)]  # step 4 begins the decay at 1; step 10 would be followed by the floor
    wave = [0.25 + 0.75 * (1 + math.cos(math.pi * k / 7)) / 2 for k in range(7)]
    for decay, rest in (("constant", [1.0] * 7), ("linear", line), ("cosine", wave)):
        found = rates(tmp_path / decay, Schedule(decay=decay, warmup_steps=3, floor=0.25))
        assert found == pytest.approx(warm + rest)


@given(decay=st.sampled_from(["cosine", "linear"]), floor=st.floats(0, 1), warmup=st.integers(0, 50))
def test_the_rate_rises_then_falls_and_stays_above_the_floor(decay, floor, warmup):
    schedule = Schedule(decay=decay, floor=floor)
    found = [schedule.at(rows, rows + 10, warmup=warmup, total=200) for rows in range(0, 200, 10)]
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1]) and found[top:] == sorted(found[top:], reverse=True)
    assert all(floor <= rate <= 1 for rate in found[top:]) and max(found) <= 1


def test_a_plateau_lowers_the_rate_when_its_metric_does_not_improve(tmp_path):
    values = iter([0.5, 0.6, 0.6, 0.61, 0.55, 0.605, 0.605, 0.4])  # one a step pair; only 0.6 and 0.61 improve
    schedule = Schedule(decay="plateau", metric="click.auc", factor=0.5, floor=0.2)
    config = replace(CONFIG, epochs=4, validate_every_epochs=None, validate_every_steps=2)

    def validate(ranker):
        return {"click": {"auc": next(values, 0.0)}}

    found = rates(tmp_path / "1", schedule, config, validate=validate, scores=SCORES)
    halved = [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2]
    assert found == pytest.approx(halved + [0.2] * 7)
    values = iter([0.5, 0.6, 0.6, 0.61, 0.55, 0.605, 0.605, 0.4])
    found = rates(tmp_path / "2", replace(schedule, patience=2), config, validate=validate, scores=SCORES)
    assert found == pytest.approx([1.0] * 12 + [0.5] * 4 + [0.25] * 4)  # lowered after 0.605, and its count begun anew


@pytest.mark.parametrize("semantics", ["dense", "lazy", "rowwise_adagrad"])
def test_the_factor_is_that_of_every_rate(semantics):
    """One step of factor 1/2 is one step of half the rates."""
    table = TableOptimizer(semantics=semantics, lr=0.05, weight_decay=0.0)
    ends = []
    for factor, lr, optimizer in ((0.5, 0.02, table), (1.0, 0.01, replace(table, lr=0.025))):
        torch.manual_seed(0)
        ranker = Bilinear(optimizer)
        steps = RankerOptimizer(ranker, TrainConfig(lr=lr))
        steps.set_lr_factor(factor)
        batch = batches(16)[0]
        torch.stack(list(OBJECTIVE(ranker(batch), batch).values())).sum().backward()
        steps.collect()
        steps.apply(None)
        ends.append(ranker)
    for (name, a), b in zip(ends[0].state_dict().items(), ends[1].state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8), name


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decay": "cosin"}, "schedule.decay to be one of .*'cosine'.*got 'cosin'"),
        ({"warmup_steps": -1}, "schedule.warmup_steps >= 0, got -1"),
        ({"floor": 1.5}, "schedule.floor in .0, 1., a share of the learning rate, got 1.5"),
        ({"factor": 1.0}, "schedule.factor in .0, 1., got 1.0"),
        ({"patience": 0}, "schedule.patience >= 1, got 0"),
        ({"decay": "plateau"}, "Expected schedule.metric .* with schedule.decay='plateau' and only there, got ''"),
        ({"metric": "click.auc"}, "only there, got 'click.auc' with 'constant'"),
    ],
)
def test_a_schedule_is_checked(changed, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**changed)


def test_a_warm_up_longer_than_the_run_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="a warm-up of less than all 200 rows, got 200 rows"):
        rates(tmp_path, Schedule(warmup_steps=10))
