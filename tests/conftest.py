"""What no test may do: block the event loop, or lose an exception on it."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import sys
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

# Containers often forbid bytecode files. Here a hundred servers are started: without, each compiles all of the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# An example takes as long as the machine lets it.
settings.register_profile("asyncline", deadline=None)
settings.load_profile("asyncline")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Compressed bytes hold the time: what runs side by side has to find tests of the same names."""
    return argname if isinstance(val, bytes) and not val.isascii() else None


def pytest_collection_finish() -> None:
    """All tests and modules are there: to go through them took the collector half a second, each time, for nothing."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call inside a coroutine of an async test raises."""
    if not inspect.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    with blockbuster_ctx("asyncline") as guard:
        # What is left of an executor is collected whenever it is, which may be on the loop: some bytes into a pipe.
        guard.functions["os.write"].can_block_in("multiprocessing/resource_tracker.py", "_check_alive")
        guard.functions["os.write"].can_block_in("multiprocessing/resource_tracker.py", "_send")
        yield


@pytest.fixture(autouse=True)
def nothing_is_lost_on_the_loop() -> Iterator[None]:
    """What asyncio logs as an error, an exception in a callback or of a forgotten task, fails the test."""
    lost: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lost.append(self.format(record))

    keep = Keep(logging.ERROR)
    logging.getLogger("asyncio").addHandler(keep)
    yield
    logging.getLogger("asyncio").removeHandler(keep)
    assert not lost, lost[0]
