import json
import shutil
from dataclasses import replace

import pytest
import torch
from tiny_world import OBJECTIVE, SCHEMA, TinyRanker, create_run

from fullrank.config_json import decode
from fullrank.data.inputs import Inputs
from fullrank.data.lineage import Pin
from fullrank.training.callbacks import Result
from fullrank.training.checkpoint import Position
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import MultiTask
from fullrank.training.run import Run, RunError
from fullrank.training.weights import file_writers, weight_tensors

TRAIN = TrainConfig(lr=0.1, clip_norm=0.5)


def test_a_run_opens_as_it_was_made_wherever_it_lies(tmp_path):
    made = create_run(tmp_path / "runs" / "a", TRAIN)
    shutil.move(made.path, tmp_path / "elsewhere")
    run = Run.open(tmp_path / "elsewhere")
    assert (run.record, run.schema) == (made.record, SCHEMA)
    record = run.record
    assert (record.type_tag, record.num_rows, record.seed) == ("tiny", {"user": 20, "item": 20}, 0)
    assert record.train == TRAIN and record.lineage == Pin(0, "ab12") and record.inputs == Inputs.of(SCHEMA)
    assert decode(TinyRanker.Config, record.config) == TinyRanker.Config()
    assert decode(MultiTask, record.objective) == OBJECTIVE
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["torch"] == str(torch.__version__) and environment["cpu"]
    assert run.latest_checkpoint() is None and run.result() is None
    assert not list((tmp_path / "runs").iterdir())  # nothing half-made is left beside it


def test_weights_load_into_a_ranker_built_anew(tmp_path):
    run, trained = create_run(tmp_path / "a", TRAIN), TinyRanker(seed=1)
    with pytest.raises(RunError, match="has no checkpoint yet: train it first"):
        run.load_weights(trained)
    trained.norm(torch.randn(8, 32))  # so that the buffers are not as they begin
    trained.tables.begin_on_disk(tmp_path / "first")
    run.save(Position(step=3), weight_tensors(trained), keep=1, files=file_writers(trained))
    ranker = TinyRanker(seed=2)
    assert Run.open(run.path).load_weights(ranker) == Position(step=3)
    ids = torch.arange(20)
    assert torch.equal(*(it.tables.gather_table("on_disk.main", ids) for it in (trained, ranker)))
    for (name, a), b in zip(trained.state_dict().items(), ranker.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    other = TinyRanker(TinyRanker.Config(plain=True))
    with pytest.raises(ValueError, match=r"every TinyRanker weight and no other: missing .*unexpected \['norm"):
        run.load_weights(other)


def test_the_same_run_is_opened_again_and_any_other_is_refused(tmp_path):
    create_run(tmp_path / "a", TRAIN)
    (tmp_path / "a" / "metrics.jsonl").write_text("{}\n")
    create_run(tmp_path / "a", TRAIN)
    assert (tmp_path / "a" / "metrics.jsonl").read_text() == "{}\n"
    for changed, message in [
        ({"train": replace(TRAIN, lr=0.2)}, "its train.lr is 0.1, not 0.2"),
        ({"config": TinyRanker.Config(width=8)}, "its config.width is 4, not 8"),
        ({"lineage": Pin(1, "cd")}, "its lineage.version is 0, not 1"),
        ({"type_tag": "huge"}, "its type_tag is 'tiny', not 'huge'"),
        ({"schema": replace(SCHEMA, name="other")}, "its schema.name is 'log', not 'other'"),
        ({"num_rows": {"user": 20, "item": 21}}, "its num_rows.item is 20, not 21"),
        ({"seed": 1}, "its seed is 0, not 1"),
    ]:
        with pytest.raises(RunError, match=f"a holds another run: {message}. Give the new run a folder of its own"):
            create_run(tmp_path / "a", **({"train": TRAIN} | changed))


def test_a_folder_with_other_files_is_refused_and_an_empty_one_taken(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="a run, an empty folder or not there; it holds other files"):
        create_run(tmp_path / "mine", TRAIN)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    assert create_run(tmp_path / "empty", TRAIN).path == tmp_path / "empty"


def test_making_one_that_was_killed_half_way_starts_over(tmp_path):
    class Dying:
        def save(self, path):
            path.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_run(tmp_path / "a", TRAIN, transform=Dying())
    assert not (tmp_path / "a").exists()
    create_run(tmp_path / "a", TRAIN)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["run.json", "schema.toml", "transform"])
def test_a_missing_part_is_named(tmp_path, name):
    path = create_run(tmp_path / "a", TRAIN).path
    (path / name).rename(tmp_path / name)
    with pytest.raises(RunError, match=f"a to be a run, with {name}"):
        Run.open(path)
    with pytest.raises(RunError, match=r"b to be a run's folder: there is no run.json"):
        Run.open(tmp_path / "b")


def test_another_format_and_damage_are_named(tmp_path):
    file = create_run(tmp_path / "a", TRAIN).path / "run.json"
    text = file.read_text()
    file.write_text(text.replace('"format": 2', '"format": 9').replace('"train"', '"training"'))
    with pytest.raises(RunError, match=r"run.json of format 2, got 9 \(written by fullrank .*\): use the release"):
        Run.open(tmp_path / "a")
    file.write_text(text[:50])
    with pytest.raises(RunError, match=r"run.json is damaged: .*line"):
        Run.open(tmp_path / "a")
    file.write_text(text.replace('"lr"', '"lrs"'))
    with pytest.raises(ValueError, match=r"run.json.train has no 'lrs'; .*Did you mean 'lr'"):
        Run.open(tmp_path / "a")


def test_a_result_is_read_as_it_was_written(tmp_path):
    run = create_run(tmp_path / "a", TRAIN)
    result = Result(
        finished=True, stopped_by="", step=4, epoch=1, rows=50, loss=0.1 + 0.2,
        valid={"click": {"auc": None, "rows": 3, "log_loss": 2 / 3}}, seconds=1.5,
    )  # fmt: skip
    run.finish(result)
    assert Run.open(run.path).result() == result


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, r"Expected epochs >= 1, got 0\.$"),
        ({"checkpoint_every_steps": 0}, "got 0. Set `checkpoint_every_steps=None` to switch it off"),
        ({"seed": -1}, "Expected a seed of 64 bits, 0 or more, got -1"),
        ({"lr": 0.0}, "Expected lr > 0, got 0.0"),
        ({"weight_decay": -1.0}, "Expected weight_decay >= 0, got -1.0"),
        ({"clip_norm": 0.0}, "Expected clip_norm > 0, got 0.0. Set `clip_norm=None`"),
    ],
)
def test_a_training_config_is_checked(changed, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changed)
