"""`fullrank data list`."""

from __future__ import annotations

from collections.abc import Sequence

from fullrank.commands.arguments import call
from fullrank.data.datasets import CATALOGUE
from fullrank.data.fetch import NotObtainable, locate


def main(args: Sequence[str], prog: str) -> int:
    return call(data_list, args, prog)


def data_list() -> None:
    """The public data sets that can be prepared by name: what each is, its terms, its home, and where it is on this
    machine."""
    for public in CATALOGUE:
        try:
            where = str(locate(public.name))
        except NotObtainable:
            can_fetch = public.url or public.parts or public.wheel
            where = f"not here: fullrank data get {public.name}" + ("" if can_fetch else " says what to download")
        print(f"{public.name}\n  {public.title}\n  Terms: {public.terms}\n  From: {public.page}\n  {where}")
