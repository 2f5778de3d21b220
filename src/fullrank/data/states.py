"""The states that prepared data went through, one a partition, as a daily loop sees them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fullrank.data.lineage import Lineage
from fullrank.data.partitions import DataState, PreparedData

if TYPE_CHECKING:
    from fullrank.data.transform import Transform


def states(data: PreparedData) -> tuple[DataState, ...]:
    """What there was after each partition: the partitions up to it, and what was known when it was appended.

    What was known never becomes unknown: a partition appended with an earlier `as_of` keeps the one before it (our
    choice). For partitions of a release that kept no moment, it is the latest time of rows so far, and of the newest
    partition what the manifest says.
    """
    entries = data.manifest.partitions
    found: list[DataState] = []
    as_of = None
    for number, entry in enumerate(entries, start=1):
        own = entry.as_of if entry.as_of is not None else entry.time_max
        if entry.as_of is None and number == len(entries):
            own = data.manifest.as_of
        moments = [moment for moment in (as_of, own) if moment is not None]
        as_of = max(moments) if moments else 0
        found.append(DataState(partitions=tuple(e.name for e in entries[:number]), as_of=as_of))
    return tuple(found)


def transform_at(data: PreparedData, index: int) -> Transform:
    """What was fitted when partition `index` was the newest: the id maps its columns were written with, and the items
    known by then. After `forget` the earlier versions are gone, and it is the first of the new lineage."""
    from fullrank.data.prepare import load_transform

    manifest = data.manifest
    version = manifest.partitions[index].lineage_version
    lineage = Lineage.from_json(manifest.lineage)
    then = Lineage(lineage.versions[: version + 1], lineage.ancestors)
    files = {
        name: size
        for name, size in manifest.files.items()
        if not name.startswith("items/") or int(Path(name).stem) <= index
    }
    return load_transform(data.folder, replace(manifest, lineage=then.to_json(), files=files), data.schema)
