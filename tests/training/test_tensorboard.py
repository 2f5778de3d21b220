"""What is written for TensorBoard, into a writer that remembers; the package itself is not needed."""

import builtins
import importlib
import signal
import sys
import types
from dataclasses import replace

import pytest
from test_loop import CONFIG, fit, send
from tiny_world import create_run, lines_of

from fullrank.training.tensorboard import TensorBoard, TensorBoardError


class Writer:
    """The part of torch.utils.tensorboard.SummaryWriter that is used; no other call or name is taken."""

    made: list["Writer"]

    def __init__(self, log_dir, purge_step=None):
        assert isinstance(log_dir, str)
        self.log_dir, self.purge_step, self.scalars, self.closed = log_dir, purge_step, {}, False
        Writer.made.append(self)

    def add_scalar(self, tag, scalar_value, global_step):
        assert not self.closed and (tag, global_step) not in self.scalars and isinstance(scalar_value, float | int)
        self.scalars[tag, global_step] = scalar_value

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # pyright: ignore[reportAttributeAccessIssue] a module made here
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.made = []
    return Writer.made


def expected(lines, every=1):
    """Every scalar, by the lines of metrics.jsonl."""
    scalars = {}
    for line in lines:
        if "valid" in line:
            for task, values in line["valid"].items():
                known = {name: value for name, value in values.items() if value is not None}
                scalars |= {(f"valid/{task}/{name}", line["step"]): value for name, value in known.items()}
        elif line["step"] % every == 0:
            named = {f"loss/{task}": loss for task, loss in line["losses"].items()}
            for name, value in (named | {key: line[key] for key in ("loss", "grad_norm", "lr")}).items():
                scalars["train/" + name, line["step"]] = value
    return scalars


@pytest.mark.parametrize("every", [1, 3])
def test_it_writes_what_metrics_jsonl_has(tmp_path, writers, every):
    run = create_run(tmp_path / "a", CONFIG)  # of which every line is one step
    board = TensorBoard(run.path / "tensorboard", every=every)
    assert not writers  # a run that is refused leaves no folder
    fit(run, callbacks=(board,))
    (writer,) = writers
    assert writer.scalars == pytest.approx(expected(lines_of(run), every)) and writer.closed
    assert writer.log_dir == str(run.path / "tensorboard") and writer.purge_step == 1
    assert ("train/lr", 3) in writer.scalars and ("valid/click/auc", 4) in writer.scalars


def test_a_resumed_run_hides_what_it_writes_again(tmp_path, writers):
    run = create_run(tmp_path / "a", CONFIG)
    fit(run, callbacks=(TensorBoard(tmp_path, every=1), send(signal.SIGTERM, 4)))  # the validation of step 4 is to come
    fit(run, callbacks=(TensorBoard(tmp_path, every=1),))
    first, second = writers
    assert first.closed and second.closed and second.purge_step == 5
    kept = {place: value for place, value in first.scalars.items() if place[1] < second.purge_step}
    assert kept | second.scalars == pytest.approx(expected(lines_of(run)))
    assert not kept.keys() & second.scalars.keys()


def test_a_metric_that_is_not_defined_is_left_out(tmp_path, writers):
    def validate(ranker):
        return {"click": {"auc": float("nan"), "pcoc": float("inf"), "log_loss": 0.5, "user_auc": None}}

    config = replace(CONFIG, log_every_steps=5)
    fit(create_run(tmp_path / "a", config), config=config, validate=validate, callbacks=(TensorBoard(tmp_path),))
    assert {tag for tag, _ in writers[0].scalars if tag.startswith("valid")} == {"valid/click/log_loss"}


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorboard" or name.startswith("tensorboard."):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    importlib.invalidate_caches()
    with pytest.raises(TensorBoardError, match=r"tensorboard, which is not installed.*pip install 'fullrank\[tensor"):
        TensorBoard(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()
