"""From a run back to its ranker."""

from __future__ import annotations

from typing import Any

from fullrank.config_json import decode
from fullrank.rankers import Ranker, ranker_named
from fullrank.training.run import Run


def ranker_config(run: Run) -> Any:
    """The `Config` that a run's ranker was built from."""
    cls = ranker_named(run.record.type_tag)
    return decode(cls.Config, run.record.config, f"{run.path / 'run.json'}: config")  # type: ignore[attr-defined]  # every ranker of RANKERS nests one


def load_ranker(run: Run) -> Ranker:
    """The ranker of a run with its weights (see `Run.load_weights`), in eval mode; reads the run's folder alone."""
    record = run.record
    ranker = ranker_config(run).build(record.inputs, record.num_rows, record.seed)
    run.load_weights(ranker)
    return ranker.eval()
