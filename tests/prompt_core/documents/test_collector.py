"""The garbage collector rests while tables are made, and comes back as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from prompt_core.documents.collector import collector_paused


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    yield
    gc.enable()


@pytest.mark.parametrize("before", [True, False])
def test_it_comes_back_as_it_was(before: bool) -> None:
    (gc.enable if before else gc.disable)()

    @collector_paused()
    def work(fails: bool) -> bool:
        if fails:
            raise ValueError
        return gc.isenabled()

    for _ in range(2):  # a decorated function can be called again
        assert work(False) is False
        assert gc.isenabled() is before
    with pytest.raises(ValueError):
        work(True)
    assert gc.isenabled() is before
