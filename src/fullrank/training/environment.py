"""What a run was made with: enough to say why two runs differ."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Versions and the machine. `threads` are torch's: another number can change the last bits of a sum."""

    fullrank: str
    python: str
    torch: str
    numpy: str
    system: str
    cpu: str
    cores: int
    threads: int
    gpu: str | None


def environment() -> Environment:
    """The environment of this process."""
    import numpy
    import torch

    import fullrank

    return Environment(
        fullrank=fullrank.__version__,
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=numpy.__version__,
        system=platform.platform(),
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def _cpu_model() -> str:
    table = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
