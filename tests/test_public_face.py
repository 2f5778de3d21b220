"""The names that stand on the package itself."""

from __future__ import annotations

from types import ModuleType

import pytest

import fullrank


@pytest.mark.parametrize("name", fullrank.__all__)
def test_every_public_name_is_there(name: str) -> None:
    thing = getattr(fullrank, name)
    assert (callable(thing) or isinstance(thing, ModuleType)) and thing.__doc__, f"{name} has no docstring"
    assert name in dir(fullrank)


def test_a_name_that_is_not_there_is_an_error_that_lists_what_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'trian'.*'train'"):
        fullrank.trian  # noqa: B018
