"""`fullrank data list`."""

from __future__ import annotations

from collections.abc import Sequence

from fullrank.commands.arguments import call
from fullrank.data.datasets import CATALOGUE
from fullrank.data.fetch import NotObtainable, locate


def main(args: Sequence[str], prog: str) -> int:
    return call(data_list, args, prog)


def data_list() -> None:
    """The public data sets that `fullrank data get` knows, and where they are on this machine."""
    for public in CATALOGUE:
        try:
            where = str(locate(public.name))
        except NotObtainable:
            where = f"not here: fullrank data get {public.name}"
        print(f"{public.name}\n  {public.title}\n  {where}")
