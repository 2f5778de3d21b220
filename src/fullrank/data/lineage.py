"""Which ids a data set speaks: a chain of versions over all key spaces, each sealed by a hash of all before it.

    hash_v = blake2b-16(hash_{v-1}, key space, id map hash, rows, … in order of key space names)

Appending extends the chain; whoever was pinned to an earlier version can still read the data, since ids are only ever
added. Forgetting a key rewrites ids, so it starts a new chain that names the versions it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fullrank.data.id_map import IdMap
from fullrank.data.id_segments import digest


class LineageError(ValueError):
    """Data and run do not share the meaning of their ids."""


@dataclass(frozen=True)
class Pin:
    """The version of a lineage that a run was trained on."""

    version: int
    hash: str


@dataclass(frozen=True)
class SpaceVersion:
    """One key space at one version: rows its table needs, and the hash its id map is loaded by."""

    num_rows: int
    hash: str


@dataclass(frozen=True)
class Version:
    """All key spaces at one version."""

    hash: str
    spaces: dict[str, SpaceVersion]


@dataclass(frozen=True)
class Lineage:
    """`versions`: oldest first. `ancestors`: hashes of all versions of the lineages this one took over from."""

    versions: tuple[Version, ...] = ()
    ancestors: tuple[str, ...] = ()

    @property
    def pin(self) -> Pin:
        """The newest version."""
        if not self.versions:
            raise LineageError("Expected a lineage with a version to pin, got an empty one. Prepare data first.")
        return Pin(len(self.versions) - 1, self.versions[-1].hash)

    def extend(self, maps: Mapping[str, IdMap]) -> Lineage:
        """The lineage after an append that left every key space with these id maps."""
        spaces = {name: SpaceVersion(maps[name].num_rows, maps[name].hash) for name in sorted(maps)}
        parent = self.versions[-1].hash if self.versions else "".join(self.ancestors[-1:])
        return Lineage((*self.versions, Version(_seal(parent, spaces), spaces)), self.ancestors)

    def forgotten(self, maps: Mapping[str, IdMap]) -> Lineage:
        """A new lineage whose first version has these maps; runs of this one may read what is written under it."""
        ancestors = (*self.ancestors, *(version.hash for version in self.versions))
        return Lineage((), ancestors).extend(maps)

    def contains(self, pin: Pin) -> bool:
        """Whether a run pinned there can read data of this lineage."""
        if pin.hash in self.ancestors:
            return True
        return 0 <= pin.version < len(self.versions) and self.versions[pin.version].hash == pin.hash

    def check(self, pin: Pin, run: str = "the run") -> None:
        """Raise `LineageError` unless `contains(pin)`."""
        if self.contains(pin):
            return
        newest = f"version {self.pin.version} ({self.pin.hash})" if self.versions else "no version"
        raise LineageError(
            f"Expected data whose ids descend from version {pin.version} ({pin.hash}), which {run} was trained on; "
            f"this data is at {newest} and has no such ancestor: its ids mean other keys. "
            "Use the data the run was trained on or an append to it, or train on this data."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists for a manifest."""
        return {"versions": [asdict(version) for version in self.versions], "ancestors": list(self.ancestors)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Lineage:
        """What `to_json` gave. Raises `LineageError` where a version does not follow from the one before."""
        lineage = Lineage((), tuple(value["ancestors"]))
        for number, version in enumerate(value["versions"]):
            spaces = {name: SpaceVersion(**space) for name, space in sorted(version["spaces"].items())}
            parent = lineage.versions[-1].hash if lineage.versions else "".join(lineage.ancestors[-1:])
            sealed = _seal(parent, spaces)
            if sealed != version["hash"]:
                raise LineageError(
                    f"Expected version {number} of the lineage to have hash {sealed}, found {version['hash']}: "
                    "the manifest was changed or damaged. Restore it from a copy or prepare the data anew."
                )
            lineage = Lineage((*lineage.versions, Version(sealed, spaces)), lineage.ancestors)
        return lineage


def _seal(parent: str, spaces: dict[str, SpaceVersion]) -> str:
    return digest(parent, *(part for name, space in spaces.items() for part in (name, space.hash, str(space.num_rows))))
