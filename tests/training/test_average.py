"""Averaged weights and bfloat16: what is stored, what is used, and that the run itself does not notice."""

import signal
from dataclasses import replace

import pytest
import torch
from test_loop import Watching, send
from tiny_world import (
    OBJECTIVE,
    TinyLoader,
    TinyRanker,
    all_tensors,
    assert_same_bits,
    create_run,
    lines_of,
)

from fullrank.training.average import DenseAverage
from fullrank.training.config import TrainConfig
from fullrank.training.loop import train

CONFIG = TrainConfig(epochs=2, batch_size=20, lr=0.02, log_every_steps=1)
AVERAGED = replace(CONFIG, ema_decay=0.6)


def fit(run, config, ranker, validate=None, **options):
    return train(ranker, TinyLoader(100, batch_size=20), OBJECTIVE, config, run, validate=validate, **options)


def dense(ranker):
    arenas = {f"tables.arenas.{k}" for k in range(len(ranker.tables.arenas))}
    floats = {name: tensor for name, tensor in ranker.state_dict().items() if tensor.is_floating_point()}
    return {name: tensor.clone() for name, tensor in floats.items() if name not in arenas}


def test_the_average_is_that_of_the_steps_and_the_run_does_not_notice(tmp_path):
    steps, seen = [], []
    watching = Watching(lambda ranker, report: steps.append(dense(ranker)))
    plain, run = create_run(tmp_path / "a", CONFIG), create_run(tmp_path / "b", AVERAGED)
    fit(plain, CONFIG, TinyRanker(), callbacks=(watching,))

    def validate(ranker):
        seen.append(dense(ranker))
        return {"click": {"auc": 0.5, "rows": 1}}

    callbacks = (Watching(lambda ranker, report: assert_same_bits(dense(ranker), steps[report.step - 1])),)
    fit(run, AVERAGED, ranker := TinyRanker(), validate, callbacks=callbacks)
    mean, expected = steps[0], []
    for step, own in enumerate(steps, start=1):
        decay = min(0.6, (step - 1) / step)  # 0, 1/2, then 0.6: the first two steps are a plain mean
        mean = {name: decay * tensor + (1 - decay) * own[name] for name, tensor in mean.items()}
        expected.append(mean)
    used = TinyRanker(seed=4)
    run.load_weights(used)
    for found, step in ((seen[0], 5), (seen[1], 10), (dense(ranker), 10), (dense(used), 10)):
        for name, tensor in found.items():
            assert torch.allclose(tensor, expected[step - 1][name], rtol=1e-5, atol=1e-7), (name, step)
            assert not torch.allclose(tensor, steps[step - 1][name]), name
    # what it learned by is untouched, and tables are not averaged
    assert_same_bits(all_tensors(plain), all_tensors(run))
    losses = [[line for line in lines_of(each) if "loss" in line] for each in (plain, run)]
    assert losses[0] == losses[1]


def test_a_stopped_run_goes_on_averaging(tmp_path):
    undisturbed, run = create_run(tmp_path / "a", AVERAGED), create_run(tmp_path / "b", AVERAGED)
    plain = TinyRanker.Config(plain=True)
    fit(undisturbed, AVERAGED, whole := TinyRanker(plain))
    assert not fit(run, AVERAGED, TinyRanker(plain), callbacks=(send(signal.SIGTERM, 3),)).finished
    half = TinyRanker(plain)
    run.load_weights(half)  # a stopped run is as good to use as a finished one, and by its average
    saved = run.latest_checkpoint()
    assert saved is not None
    assert_same_bits(saved.tensors("average"), {name: dense(half)[name] for name in saved.tensors("average")})
    fit(run, AVERAGED, resumed := TinyRanker(plain, seed=9))
    assert_same_bits(whole.state_dict(), resumed.state_dict())


def test_without_a_decay_nothing_is_stored(tmp_path):
    fit(run := create_run(tmp_path / "a", CONFIG), CONFIG, TinyRanker())
    saved = run.latest_checkpoint()
    assert saved is not None and not saved.has("average")
    assert DenseAverage(TinyRanker(), None).parts() == {}


def test_bfloat16_computes_the_forward_and_nothing_else(tmp_path):
    kinds = []

    class Looking(TinyRanker):
        def forward(self, batch):
            output = super().forward(batch)
            kinds.append((self.training, output.logits["click"].dtype))
            return output

    def validate(ranker):
        with torch.inference_mode():
            ranker.eval()(next(iter(TinyLoader(20, batch_size=20).epoch(0))))
        return {"click": {"auc": 0.5}}

    half = replace(CONFIG, bf16=True)
    whole, run = create_run(tmp_path / "a", CONFIG), create_run(tmp_path / "b", half)
    fit(whole, CONFIG, TinyRanker())
    fit(run, half, ranker := Looking(), validate)
    assert set(kinds) == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(tensor.dtype == torch.float32 for tensor in ranker.parameters())
    rough, exact = ([line["loss"] for line in lines_of(each) if "loss" in line] for each in (run, whole))
    assert rough != exact and rough == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_is_checked(decay):
    with pytest.raises(ValueError, match=r"ema_decay in \(0, 1\), got .*Set `ema_decay=None` for none"):
        TrainConfig(ema_decay=decay)
