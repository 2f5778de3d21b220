"""What all tests share: public sets if they are there, few threads, and property tests that repeat exactly in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Read by torch and its libraries when they are first imported; small tensors gain nothing from more, and where pytest
# runs several processes, each has a core of its own.
THREADS = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
os.environ.setdefault("OMP_NUM_THREADS", THREADS)
os.environ.setdefault("MKL_NUM_THREADS", THREADS)

# On a shared machine the time of one example says nothing, so it is no error; in CI a failure has to come again.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")


@pytest.fixture(scope="session")
def fullrank_data() -> Path:
    """The folder of public sets. None of them may be part of the project, so where they are is the machine's affair."""
    folder = os.environ.get("FULLRANK_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"FULLRANK_DATA names no folder of public data sets (it is {folder!r})")
    return Path(folder)
