"""The parts of a run as they really are: rankers of the house, trained, stored, and loaded alone."""

import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny_world import SCHEMA, TASKS, TinyLoader, create_run

from fullrank.config_json import decode
from fullrank.data.id_map import IdMap
from fullrank.data.inputs import Inputs
from fullrank.data.key_counter import Counts
from fullrank.data.keys import codes_of_array
from fullrank.data.scalers import Scalers
from fullrank.data.transform import Transform
from fullrank.evaluation.evaluate import predict_split
from fullrank.rankers import RANKERS, ranker_name, ranker_named
from fullrank.training.config import TrainConfig
from fullrank.training.loop import train
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.run import Run

TRAIN = TrainConfig(epochs=2, batch_size=16, lr=0.01)
INPUTS = Inputs.of(SCHEMA)


def transform_of_20_rows() -> Transform:
    keys = codes_of_array(pa.array([str(key) for key in range(17)]))  # after padding, missing and one unknown
    many = np.ones(17, dtype=np.int64)
    counts = Counts(keys.unique_codes, many, many, keys.unique_texts)
    spaces = SCHEMA.used_key_spaces()
    return Transform(SCHEMA, {name: IdMap.empty(SCHEMA.key_space(name)).extend(counts) for name in spaces}, Scalers())


@pytest.mark.parametrize("ranker_class", RANKERS, ids=ranker_name)
def test_a_trained_ranker_loads_from_its_folder_alone(tmp_path, ranker_class: Any):
    transform, config = transform_of_20_rows(), ranker_class.Config()
    num_rows = {name: id_map.num_rows for name, id_map in transform.id_maps.items()}
    objective = ObjectiveConfig().build(INPUTS.tasks)
    run = create_run(
        tmp_path / "run", TRAIN, type_tag=ranker_name(ranker_class), config=config, num_rows=num_rows,
        transform=transform, objective=objective, seed=3,
    )  # fmt: skip
    ranker = config.build(INPUTS, num_rows, 3)
    before = predict_split(ranker, TinyLoader(50, batch_size=16), TASKS).logits_NK
    assert train(ranker, TinyLoader(100, batch_size=16), objective, TRAIN, run).finished
    after = predict_split(ranker, TinyLoader(50, batch_size=16), TASKS).logits_NK
    assert not np.allclose(before, after)

    shutil.move(run.path, tmp_path / "moved")
    opened = Run.open(tmp_path / "moved")
    record = opened.record
    loaded_class: Any = ranker_named(record.type_tag)
    loaded = decode(loaded_class.Config, record.config).build(record.inputs, record.num_rows, record.seed + 1)
    opened.load_weights(loaded)
    np.testing.assert_array_equal(predict_split(loaded, TinyLoader(50, batch_size=16), TASKS).logits_NK, after)
    maps = opened.transform().id_maps
    assert {name: id_map.num_rows for name, id_map in maps.items()} == num_rows == {"user": 20, "item": 20}
    assert {name: id_map.hash for name, id_map in maps.items()} == {n: m.hash for n, m in transform.id_maps.items()}
