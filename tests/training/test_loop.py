import signal
import threading
from dataclasses import asdict, replace

import pytest
import torch
from tiny_world import (
    OBJECTIVE,
    TASKS,
    TinyLoader,
    TinyRanker,
    all_tensors,
    assert_same_bits,
    create_run,
    lines_of,
)

from fullrank.evaluation.evaluate import evaluate
from fullrank.training.callbacks import Callback
from fullrank.training.config import TrainConfig
from fullrank.training.loop import TrainingError, train
from fullrank.training.objectives import Objective

CONFIG = TrainConfig(
    epochs=2, batch_size=16, lr=0.02, accumulate=2, clip_norm=0.5, log_every_steps=1, checkpoint_every_steps=2
)  # 100 rows: 7 micro-batches, 4 steps an epoch, the last of one short micro-batch
VALID = TinyLoader(40, batch_size=16, shuffle=False)


def validate(ranker):
    return {task: asdict(metrics) for task, metrics in evaluate(ranker, VALID, TASKS).items()}


def fit(run, *, config=CONFIG, ranker=None, rows=100, objective: Objective = OBJECTIVE, validate=validate, **options):
    loader = TinyLoader(rows, batch_size=config.batch_size)
    return train(ranker or TinyRanker(), loader, objective, config, run, validate=validate, **options)


class Watching(Callback):
    def __init__(self, act=lambda ranker, report: None):
        self.act, self.reports, self.validated, self.results = act, [], [], []

    def on_step(self, ranker, report):
        assert ranker.training
        self.reports.append(report)
        self.act(ranker, report)

    def on_validate(self, ranker, step, metrics):
        self.validated.append((step, metrics["click"]["rows"]))

    def on_end(self, ranker, result):
        self.results.append(result)


def test_every_row_is_seen_and_everything_is_written_down(tmp_path):
    run, watching = create_run(tmp_path / "a", CONFIG), Watching()
    result = fit(run, callbacks=(watching,))
    assert (result.finished, result.stopped_by, result.step, result.epoch, result.rows) == (True, "", 8, 2, 200)
    lines = lines_of(run)
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(1, 9))
    assert [line["epoch"] for line in losses] == [0] * 4 + [1] * 4
    assert [line["rows"] for line in losses] == [32, 64, 96, 100, 132, 164, 196, 200]
    for line, report in zip(losses, watching.reports, strict=True):
        assert line["losses"] == report.losses and line["grad_norm"] == report.grad_norm and line["lr"] == 0.02
        assert line["loss"] == pytest.approx(sum(report.losses[task] for task in TASKS))
    valid = [line for line in lines if "valid" in line]
    assert [(line["step"], line["epoch"]) for line in valid] == [(4, 0), (8, 1)]
    assert [step for step, _ in watching.validated] == [4, 8]
    assert result.valid == valid[-1]["valid"] and result.loss == watching.reports[-1].loss
    assert watching.results == [result] == [run.result()]
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == ["6", "8", "latest"]


def test_it_learns(tmp_path):
    config = replace(CONFIG, epochs=60, clip_norm=None, log_every_steps=4, checkpoint_every_steps=None)
    run = create_run(tmp_path / "a", config)
    fit(run, config=config, ranker=TinyRanker(TinyRanker.Config(dropout=0.0)))
    losses = [line["loss"] for line in lines_of(run) if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]


def test_a_line_is_the_mean_since_the_line_before(tmp_path):
    every, third = create_run(tmp_path / "a", CONFIG), replace(CONFIG, log_every_steps=3)
    fit(every)
    fit(seldom := create_run(tmp_path / "b", third), config=third)
    single = {line["step"]: line for line in lines_of(every) if "loss" in line}
    groups = [(1, 2, 3), (4,), (5, 6), (7, 8)]  # after every third step, and at the end of an epoch
    for group, line in zip(groups, [line for line in lines_of(seldom) if "loss" in line], strict=True):
        assert line["step"] == group[-1]
        for key in ("loss", "grad_norm"):
            assert line[key] == pytest.approx(sum(single[step][key] for step in group) / len(group))


@pytest.mark.parametrize(
    ("clocks", "steps"),
    [
        ({"validate_every_epochs": None}, []),
        ({"validate_every_epochs": 2}, [8]),
        ({"validate_every_steps": 3}, [3, 4, 6, 8]),
        ({"validate_every_epochs": None, "validate_every_steps": 4}, [4, 8]),
        ({"validate_every_steps": 4}, [4, 8]),  # both clocks at once: one validation
    ],
)
def test_validation_goes_by_its_clocks(tmp_path, clocks, steps):
    config, watching = replace(CONFIG, **clocks), Watching()
    fit(create_run(tmp_path / "a", config), config=config, callbacks=(watching,))
    assert [step for step, _ in watching.validated] == steps


def test_who_looks_on_changes_nothing(tmp_path):
    def draws(ranker, report=None):
        torch.rand(7)

    def rude(ranker):
        torch.rand(7)
        ranker.eval()
        return validate(ranker)

    quiet, loud = create_run(tmp_path / "a", CONFIG), create_run(tmp_path / "b", CONFIG)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fit(quiet)
    assert torch.equal(torch.get_rng_state(), before)  # nor does training disturb who calls it
    torch.manual_seed(2)
    fit(loud, validate=rude, callbacks=(Watching(draws),))
    assert_same_bits(all_tensors(quiet), all_tensors(loud))
    assert lines_of(quiet) == lines_of(loud)
    other = replace(CONFIG, seed=1)
    fit(create_run(tmp_path / "c", other), config=other)
    assert lines_of(quiet) != lines_of(create_run(tmp_path / "c", other))


def send(number, at_step):
    def act(ranker, report):
        if report.step == at_step:
            signal.raise_signal(number)

    return Watching(act)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at_step", [2, 3, 4, 8], ids=["scheduled", "between", "epoch_end", "last"])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, capsys, number, at_step):
    undisturbed, stopped = create_run(tmp_path / "a", CONFIG), create_run(tmp_path / "b", CONFIG)
    plain = TinyRanker.Config(plain=True)
    fit(undisturbed, ranker=TinyRanker(plain))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    result = fit(stopped, ranker=TinyRanker(plain), callbacks=(send(number, at_step),), how_to_resume="fullrank go b")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (result.finished, result.stopped_by, result.step) == (False, number.name, at_step)
    assert stopped.result() is None
    words = f"Stopped by {number.name} after step {at_step} ({at_step // 4} of 2 epochs done)"
    assert words in (error := capsys.readouterr().err) and "To resume: fullrank go b\n" in error
    assert (saved := stopped.latest_checkpoint()) is not None and saved.position.step == at_step
    resumed = fit(create_run(tmp_path / "b", CONFIG), ranker=TinyRanker(plain, seed=9))  # its own weights are replaced
    assert resumed.finished and resumed.seconds >= saved.position.seconds > 0
    assert_same_bits(all_tensors(undisturbed), all_tensors(stopped))
    assert lines_of(undisturbed) == lines_of(stopped)


def test_a_stop_off_the_schedule_writes_deferred_decay_early_and_that_is_rounding(tmp_path):
    undisturbed, stopped = create_run(tmp_path / "a", CONFIG), create_run(tmp_path / "b", CONFIG)
    fit(undisturbed)
    fit(stopped, callbacks=(send(signal.SIGTERM, 3),))
    fit(stopped)
    for (name, a), b in zip(all_tensors(undisturbed).items(), all_tensors(stopped).values(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6), name


@pytest.fixture
def ctrl_c():
    """Ctrl-C as a terminal has it: a process that a script started in the background is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_at_once_and_loses_only_what_was_not_saved(tmp_path):
    def twice(ranker, report):
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    run, undisturbed = create_run(tmp_path / "b", CONFIG), create_run(tmp_path / "a", CONFIG)
    with pytest.raises(KeyboardInterrupt):
        fit(run, callbacks=(Watching(twice),))
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None and checkpoint.position.step == 2
    fit(run)
    fit(undisturbed)
    assert_same_bits(all_tensors(undisturbed), all_tensors(run))
    assert lines_of(undisturbed) == lines_of(run)


def test_a_run_trains_in_any_thread(tmp_path):
    run = create_run(tmp_path / "a", CONFIG)
    thread = threading.Thread(target=fit, args=(run,))
    thread.start()
    thread.join()
    assert run.result() is not None


def test_a_finished_run_is_not_trained_again(tmp_path):
    run, watching = create_run(tmp_path / "a", CONFIG), Watching()
    first = fit(run)
    before, ranker = (run.path / "metrics.jsonl").read_bytes(), TinyRanker(seed=5)
    assert fit(run, ranker=ranker, callbacks=(watching,)) == first
    assert not watching.reports and (run.path / "metrics.jsonl").read_bytes() == before
    assert torch.equal(ranker.head.weight, all_tensors(run)["dense:head.weight"])


def test_a_broken_callback_ends_the_run_and_not_what_was_saved(tmp_path):
    def breaks(ranker, report):
        if report.step == 5:
            raise RuntimeError("probe")

    run = create_run(tmp_path / "a", CONFIG)
    with pytest.raises(RuntimeError, match="probe"):
        fit(run, callbacks=(Watching(breaks),))
    assert fit(run).finished
    fit(undisturbed := create_run(tmp_path / "b", CONFIG))
    assert lines_of(run) == lines_of(undisturbed)


def test_a_loss_that_is_not_finite_names_step_and_task(tmp_path):
    calls = 0

    def objective(output, batch):
        nonlocal calls
        calls += 1
        losses = OBJECTIVE(output, batch)
        return losses if calls < 6 else losses | {"buy": losses["buy"] * float("nan")}

    run = create_run(tmp_path / "a", CONFIG)
    message = (
        r"loss 'buy' is nan in micro-batch 2 of step 3 \(epoch 1\). The last checkpoint is .*checkpoints.2. "
        r".*lower lr \(now 0.02\).*clip_norm \(now 0.5\)"
    )
    ranker = TinyRanker()
    with pytest.raises(TrainingError, match=message):
        fit(run, objective=objective, ranker=ranker)
    for name, tensor in ranker.tables.logical_tables().items():  # no part of the bad step was applied
        assert torch.equal(tensor, all_tensors(run)[f"tables:{name}"])
    assert [line["step"] for line in lines_of(run)] == [1, 2]
    first = create_run(tmp_path / "b", CONFIG)
    with pytest.raises(TrainingError, match=r"in micro-batch 1 of step 1 .* There is no checkpoint yet\."):
        fit(first, objective=objective)


def test_a_gradient_that_is_not_finite_names_the_step(tmp_path):
    def objective(output, batch):  # sqrt has no slope at 0: the loss is finite and the gradient is not
        return {"click": (output.logits["click"] * 0).abs().sqrt().sum()}

    with pytest.raises(TrainingError, match=r"norm of the gradient is nan in step 1 \(epoch 1\)"):
        fit(create_run(tmp_path / "a", CONFIG), objective=objective)


def test_other_data_than_at_the_checkpoint_are_refused(tmp_path):
    run = create_run(tmp_path / "a", CONFIG)
    fit(run, callbacks=(send(signal.SIGTERM, 3),))
    with pytest.raises(TrainingError, match=r"Expected 100 training rows as at checkpoint .*3, got 110: the data"):
        fit(run, rows=110)
    with pytest.raises(TrainingError, match="Expected a loader of batch_size 16, got 8"):
        train(TinyRanker(), TinyLoader(100, batch_size=8), OBJECTIVE, CONFIG, run)
    broken = TinyLoader(100, batch_size=16)
    broken.num_rows = 100
    broken.epoch = lambda epoch, start_row=0: iter(())  # pyright: ignore[reportAttributeAccessIssue] a loader that ends early
    with pytest.raises(TrainingError, match="Expected 100 rows in epoch 0, the loader ended at 96"):
        train(TinyRanker(), broken, OBJECTIVE, CONFIG, run)


def test_accumulating_equals_larger_batches_where_they_weigh_the_same(tmp_path):
    """All labels known, whole micro-batches, no dropout or batch statistics: the mean of means is the mean."""
    tensors = []
    for config in (replace(CONFIG, batch_size=32, accumulate=1), replace(CONFIG, batch_size=16, accumulate=2)):
        loader = TinyLoader(96, batch_size=config.batch_size)
        loader.known[:] = True
        run = create_run(tmp_path / str(config.batch_size), config)
        train(TinyRanker(TinyRanker.Config(dropout=0.0, plain=True)), loader, OBJECTIVE, config, run)
        tensors.append(all_tensors(run))
    for name, tensor in tensors[0].items():
        assert torch.allclose(tensor.double(), tensors[1][name].double(), rtol=1e-4, atol=1e-6), name


def test_a_stop_during_a_validation_does_not_validate_twice(tmp_path):
    class StopsThere(Watching):
        def on_validate(self, ranker, step, metrics):
            super().on_validate(ranker, step, metrics)
            if step == 3:  # no checkpoint is due at this step: the one of the stop comes after the validation
                signal.raise_signal(signal.SIGTERM)

    config, plain = replace(CONFIG, validate_every_steps=3), TinyRanker.Config(plain=True)
    run, undisturbed = create_run(tmp_path / "a", config), create_run(tmp_path / "b", config)
    assert fit(run, config=config, ranker=TinyRanker(plain), callbacks=(StopsThere(),)).step == 3
    fit(run, config=config, ranker=TinyRanker(plain), callbacks=(again := Watching(),))
    fit(undisturbed, config=config, ranker=TinyRanker(plain))
    assert [step for step, _ in again.validated] == [4, 6, 8]
    assert lines_of(run) == lines_of(undisturbed)
