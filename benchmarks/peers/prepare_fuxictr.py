"""A log prepared by FuxiCTR's own `FeatureProcessor` and `build_dataset`, as its experiments call them: a vocabulary a
column, `StandardScaler` for numbers (missing: 0), the time passed through as a `meta` column.

It writes Parquet in parts (`data_block_size`): its other way, a file a split, holds a split in memory once more and
sorts it. Argument: a folder with `log/SPLIT/` and `prepare.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from worker import Mode, serve


def prepare(log: Path, out: Path, asked: dict) -> None:
    from fuxictr.preprocess import FeatureProcessor
    from fuxictr.preprocess.build_dataset import build_dataset

    category = {"active": True, "dtype": "str", "type": "categorical"}
    number = {"active": True, "dtype": "float", "type": "numeric", "normalizer": "StandardScaler"}
    time = {"active": True, "dtype": "int", "type": "meta", "remap": False}
    processor = FeatureProcessor(
        feature_cols=[
            {"name": asked["numbers"], **number},
            {"name": asked["categories"], **category},
            {"name": "time", **time},
        ],
        label_col={"name": "click", "dtype": "float"},
        dataset_id=out.name,
        data_root=str(out.parent),
    )
    train, valid, test = (str(log / split) for split in asked["splits"])
    build_dataset(
        processor,
        train_data=train,
        valid_data=valid,
        test_data=test,
        data_block_size=asked["block_rows"],
        data_format="parquet",
        min_categr_count=asked["min_count"],
    )


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import fuxictr.preprocess.build_dataset  # noqa: F401  # imports are not timed

    folder = Path(sys.argv[1])
    asked = json.loads((folder / "prepare.json").read_text())
    out = folder / "fuxictr"
    step = Mode(lambda: prepare(folder / "log", out, asked), lambda: shutil.rmtree(out, ignore_errors=True))
    serve({"fuxictr": step}, fuxictr=version("fuxictr"), ray=version("ray"))


if __name__ == "__main__":
    main()
