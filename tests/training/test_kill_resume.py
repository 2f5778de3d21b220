"""Killed at any moment and resumed, a run has the losses and weights of an undisturbed one, bit for bit."""

import random
import secrets
import shutil
import signal

import pytest
from kill_world import CONFIG, EVERYTHING, MICRO_BATCHES, Moment, child, logged_steps, saved_step
from tiny_world import all_tensors, assert_same_bits, lines_of

from fullrank.training.run import Run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that nothing happened to, and the seconds it took."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    code, seconds = child(path)
    assert code == 0 and Run.open(path).result() is not None
    return Run.open(path), seconds


def check(undisturbed, path, *moments, config=CONFIG, kept=("12", "9")):
    for moment in moments:
        code, _ = child(path, moment, config)
        print(f"{moment}: exit {code}, {logged_steps(path)} steps logged, resumes from {saved_step(path)}")
        assert code == -signal.SIGKILL or moment.kind == "wall"  # by the wall clock it may have been done
    assert child(path, None, config)[0] == 0
    resumed = Run.open(path)
    assert_same_bits(all_tensors(undisturbed), all_tensors(resumed))
    assert lines_of(undisturbed) == lines_of(resumed)
    was, result = undisturbed.result(), resumed.result()
    assert result is not None and (result.step, result.loss, result.valid) == (was.step, was.loss, was.valid)
    assert (result.ended, result.best) == (was.ended, was.best)
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == [*kept, "latest"]


@pytest.mark.parametrize(
    ("moment", "saved"),
    [
        (Moment("micro-batch", 1), None),
        (Moment("micro-batch", 10), 4),  # the second of step 6's two: one gradient waits
        (Moment("micro-batch", 8), 4),  # the first of the second epoch
        (Moment("validation", 1), 4),  # an epoch's end, between its checkpoint and its validation
    ],
    ids=["at_once", "inside_a_step", "new_epoch", "epoch_end"],
)
def test_killed_at_a_chosen_moment(undisturbed, tmp_path, moment, saved):
    assert child(tmp_path / "run", moment)[0] == -signal.SIGKILL
    assert saved_step(tmp_path / "run") == saved
    check(undisturbed[0], tmp_path / "run")


def test_killed_again_and_again_at_moments_of_a_printed_seed(undisturbed, tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    run, seconds = undisturbed
    check(
        run,
        tmp_path / "run",
        Moment("micro-batch", draw.randint(2, MICRO_BATCHES // 3)),
        Moment("fsync", draw.randint(1, 20)),  # some 15 a checkpoint, a table's files and folders among them
        Moment("wall", draw.uniform(0, seconds)),
        Moment("wall", draw.uniform(0, seconds / 2)),
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """With early stopping, a plateau, a warm-up, an average and bfloat16: undisturbed, and how many steps it had."""
    path = tmp_path_factory.mktemp("everything") / "run"
    assert child(path, None, EVERYTHING)[0] == 0
    run = Run.open(path)
    result = run.result()
    assert result is not None and result.ended == "early_stop" and 0 < result.best.step < result.step < 48
    rates = {line["lr"] for line in lines_of(run) if "lr" in line}
    assert min(rates) < 0.6 * max(rates) and len(rates) >= 5  # three of the warm-up, and it was lowered
    return run, result


def test_all_that_a_run_remembers_survives(everything, tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    run, result = everything
    validations = sum("valid" in line for line in lines_of(run))
    path = tmp_path / "run"
    kept = sorted(p.name for p in (run.path / "checkpoints").iterdir())[:-1]
    check(
        run,
        path,
        Moment("micro-batch", draw.randint(2, result.step // 2)),
        Moment("validation", draw.randint(1, 2)),
        Moment("fsync", draw.randint(1, 14)),
        Moment("wall", draw.uniform(0, 0.4)),
        config=EVERYTHING,
        kept=kept,
    )
    assert sum("valid" in line for line in lines_of(Run.open(path))) == validations
    best, again = run.best_checkpoint(), Run.open(path).best_checkpoint()
    for part in ("dense", "tables"):
        assert_same_bits(best.tensors(part), again.tensors(part))


def test_killed_in_the_validation_that_ends_it(everything, tmp_path):
    run, result = everything
    validations = sum("valid" in line for line in lines_of(run))
    assert child(tmp_path / "run", Moment("validation", validations), EVERYTHING)[0] == -signal.SIGKILL
    assert child(tmp_path / "run", None, EVERYTHING)[0] == 0
    resumed = Run.open(tmp_path / "run")
    again = resumed.result()
    assert again is not None and (again.ended, again.step, again.best) == ("early_stop", result.step, result.best)
    assert_same_bits(all_tensors(run), all_tensors(resumed))


def test_the_schedule_is_what_the_moments_speak_of():
    assert (CONFIG.accumulate, CONFIG.checkpoint_every_steps, MICRO_BATCHES) == (2, 3, 21)


def test_what_a_kill_left_of_older_checkpoints_goes_at_the_end(tmp_path):
    path = tmp_path / "run"
    assert child(path)[0] == 0
    kept = sorted(p.name for p in (path / "checkpoints").iterdir())
    shutil.copytree(path / "checkpoints" / "9", path / "checkpoints" / "8")  # as killed before the removal
    (path / "result.json").unlink()
    assert child(path)[0] == 0
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == kept
