"""What a person (or a bug report) needs to know of an installation and of folders: what is there, what is not whole.

Looks only: nothing is written, mended or fetched. Versions come from the packages' metadata, so that a package that
cannot be imported is still named.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from fullrank import __version__

State = Literal["ok", "note", "problem"]
GIB = 1 << 30
LEAST_FREE = 1 * GIB  # below this much free disk, preparing even a small log may fail (our choice)
REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?:\[[^]]*])?\s*(?P<bounds>[^;]*)(?:;.*extra\s*==\s*['\"](?P<extra>[^'\"]+))?"
)


@dataclass(frozen=True)
class Finding:
    """`found` about `what`; `todo`: what to type or do, empty where there is nothing."""

    what: str
    state: State
    found: str
    todo: str = ""


@dataclass(frozen=True)
class KnownBad:
    """A combination that is known not to work: whether it `applies` to installed versions (by package name)."""

    what: str
    applies: Callable[[Mapping[str, str]], bool]
    found: str
    todo: str


KNOWN_BAD = (
    KnownBad(
        "lightning",
        lambda versions: versions.get("lightning") in ("2.6.2", "2.6.3"),
        "a release that was published by an attacker (GHSA-w37p-236h-pfx3)",
        "pip uninstall lightning, and change the secrets of this machine: fullrank does not need it",
    ),
    KnownBad(
        "tensorboard",
        lambda versions: "tensorboard" in versions
        and version_key(versions["tensorboard"]) < (2, 21)
        and version_key(versions.get("setuptools", "0")) >= (82,),
        "releases before 2.21 do not start beside setuptools 82 or later",
        'pip install "tensorboard>=2.21"',
    ),
    KnownBad(
        "faiss",
        lambda versions: "faiss-cpu" in versions and sys.platform == "darwin",
        "on macOS faiss and torch each load an OpenMP runtime of their own, which can end the process",
        "export OMP_NUM_THREADS=1",
    ),
)


def doctor(paths: tuple[Path, ...] = ()) -> list[Finding]:
    """Findings about this installation and machine, and about each path: prepared data, a run, or a folder of these."""
    versions = installed()
    findings = [Finding("fullrank", "ok", f"{__version__}, in {Path(__file__).parents[1]}"), _python()]
    findings += _packages(versions)
    bad = [known for known in KNOWN_BAD if known.applies(versions)]
    findings += [Finding(known.what, "problem", known.found, known.todo) for known in bad]
    findings += _machine()
    for path in paths:
        findings += look(path)
    return findings


def installed() -> dict[str, str]:
    """Versions of all installed packages, by name as it is normally written (`scikit-learn`)."""
    found = {}
    for package in metadata.distributions():
        name = package.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), package.version)
    return found


def version_key(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `2.13.0+cpu` is (2, 13, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"[+a-z]", version, maxsplit=1)[0]))


def within(version: str, bounds: str) -> bool:
    """Whether a version lies within `>=A,<B` (other kinds of bounds are not judged)."""
    own = version_key(version)
    judged = re.findall(r"(>=|<)\s*([\w.]+)", bounds)
    return all((own < version_key(bound)) == (sign == "<") for sign, bound in judged)


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}, {sys.executable}")


def _packages(versions: Mapping[str, str]) -> list[Finding]:
    """Every package that fullrank needs, and every extra."""
    findings, extras = [], {}
    for text in metadata.requires("fullrank") or []:
        match = REQUIREMENT.match(text)
        if not match or match["name"] == "fullrank":
            continue
        name, bounds = re.sub(r"[-_.]+", "-", match["name"]).lower(), match["bounds"].strip(" ()")
        there = versions.get(name)
        if match["extra"]:
            extras.setdefault(match["extra"], []).append((name, there is not None and within(there, bounds)))
            continue
        line = f'pip install "{name}{bounds}"'
        if there is None:
            findings.append(Finding(name, "problem", "not installed", line))
        elif not within(there, bounds):
            findings.append(Finding(name, "problem", f"{there}, expected {bounds}", line))
        else:
            findings.append(Finding(name, "ok", there))
    for extra, members in sorted(extras.items()):
        lacking = [name for name, is_there in members if not is_there]
        if lacking:
            todo = f'pip install "fullrank[{extra}]" (in a checkout: pip install -e ".[{extra}]")'
            findings.append(Finding(f"extra {extra}", "note", f"not installed: {', '.join(lacking)}", todo))
        else:
            findings.append(Finding(f"extra {extra}", "ok", "installed"))
    return findings


def _machine() -> list[Finding]:
    findings = []
    try:
        import numpy
        import torch

        torch.from_numpy(numpy.zeros(1))  # fails where the two were built for each other's other version
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        findings.append(Finding("threads", "ok", f"{torch.get_num_threads()} of torch, {_cores()} cores; GPU: {gpu}"))
    except (ImportError, RuntimeError) as error:
        todo = "pip install --force-reinstall torch numpy"
        findings.append(Finding("torch", "problem", f"cannot be used ({error})", todo))
    if memory := _memory():
        findings.append(Finding("memory", "ok", f"{memory[1] / GIB:.1f} GiB free of {memory[0] / GIB:.1f}"))
    from fullrank.data.fetch import cache_root

    for what, folder in (("working folder", Path.cwd()), ("cache", cache_root())):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        todo = "free some space, or work in another folder" if what == "working folder" else "set XDG_CACHE_HOME"
        state: State = "ok" if free >= LEAST_FREE else "problem"
        findings.append(Finding(what, state, f"{folder}, {free / GIB:.1f} GiB free", "" if state == "ok" else todo))
    return findings


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[int, int] | None:
    """Bytes in all and free, where the system says so."""
    table = Path("/proc/meminfo")
    if table.exists():
        read = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
        return tuple(int(read[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]  # two of them
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return None


def look(path: Path) -> list[Finding]:
    """What a path is and whether it is whole, with what to type next."""
    name = str(path)
    if not path.exists():
        return [Finding(name, "problem", "not there")]
    if path.is_file():
        todo = f"fullrank schema infer {path} --out schema.toml"
        return [Finding(name, "note", "a file: a log, perhaps", todo)]
    if (path / "manifest.json").exists():
        return [_prepared(path)]
    if (path / "run.json").exists():
        return _run(path)
    if (path / ".fullrank.lock").exists():
        todo = f"the same `fullrank prepare … --out {path}` again: it begins anew"
        return [Finding(name, "problem", "data whose preparing is still going on, or was stopped", todo)]
    inside = [child for child in sorted(path.iterdir()) if child.is_dir() and _is_ours(child)]
    if not inside:
        todo = f"fullrank prepare LOG --schema schema.toml --out {path}"
        return [Finding(name, "note", "neither prepared data nor a run, nor a folder of these", todo)]
    return [finding for child in inside for finding in look(child)]


def _is_ours(folder: Path) -> bool:
    return any((folder / file).exists() for file in ("manifest.json", "run.json"))


def _prepared(path: Path) -> Finding:
    from fullrank.data.partitions import PreparedData

    try:
        data = PreparedData.open(path)
        rows = {split: data.num_rows(split) for split in ("train", "valid", "test")}
        schema = data.schema
    except (ValueError, OSError) as error:
        return Finding(str(path), "problem", str(error), "restore the file from a copy, or prepare the log anew")
    said = ", ".join(f"{split}: {count:,} rows" for split, count in rows.items())
    found = f"prepared data, whole: {len(data.partitions)} partitions; {said}; {len(data.manifest.files)} files"
    if not schema.tasks:
        todo = "add a [[task]] to the schema, and prepare anew"
        return Finding(str(path), "note", f"{found}; no task to learn", todo)
    return Finding(str(path), "ok", found, f"fullrank train dcnv2 --data {path} --out RUN")


def _run(path: Path) -> list[Finding]:
    from fullrank.training.run import Run

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = Run.open(path)
            checkpoint = run.latest_checkpoint()
            run.transform()
            result = run.result()
    except (ValueError, OSError) as error:
        todo = "restore the file from a copy, or train into another folder"
        return [Finding(str(path), "problem", str(error), todo)]
    damaged = [Finding(str(path), "problem", str(warning.message), "") for warning in caught]
    what = f"a run of {run.record.type_tag}"
    again = "the same `fullrank train` command again goes on with it"
    if checkpoint is None:
        return [*damaged, Finding(str(path), "note", f"{what} without a checkpoint yet", again)]
    step = f"{what}, step {checkpoint.position.step:,}, its checkpoint as it was written"
    if result is None or not result.finished:
        return [*damaged, Finding(str(path), "note", f"{step}; not finished", again)]
    return [*damaged, Finding(str(path), "ok", f"{step}; finished", f"fullrank evaluate {path} --data DIR")]
