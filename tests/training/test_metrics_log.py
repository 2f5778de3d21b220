import json
import math

import pytest

from fullrank.training.metrics_log import MetricsLog


def test_lines_after_the_checkpoint_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log.write({"step": 1, "loss": 0.1})
    at = log.committed()
    log.write({"step": 2, "loss": 0.2})
    assert path.read_text().count("\n") == 2  # written without waiting for close
    log.close()
    again = MetricsLog(path, at)
    again.write({"step": 2, "loss": 0.3})
    again.close()
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [0.1, 0.3]


def test_what_json_has_no_number_for_is_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.write({"valid": {"click": {"auc": math.nan, "log_loss": math.inf, "rows": 3}}})
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"valid": {"click": {"auc": None, "log_loss": None, "rows": 3}}}


def test_a_shortened_file_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"at least the 10 bytes it had at the checkpoint, got 3"):
        MetricsLog(tmp_path / "metrics.jsonl", 10)
