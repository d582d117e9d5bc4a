"""Expiry, Channel, Hooks and LoopGuard, each alone."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from typing import Any

import pytest

from asyncline import Engine, Graph, Observer, Op, Request, op
from asyncline.engine.alarm import Alarm
from asyncline.engine.channel import Channel
from asyncline.engine.expiry import TICK_S, Expiry
from asyncline.engine.hooks import Hooks
from asyncline.testing import VirtualClockLoop, run_virtual, virtual_engine

from .ops import Square, graph_of


class Thing:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.expired_at: float | None = None

    def expire(self) -> None:
        assert self.expired_at is None
        self.expired_at = self.loop.time()


def test_things_expire_at_their_deadline_never_early_and_at_most_a_tick_late() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expiry = Expiry(loop)
        things = [(n * 0.0037, Thing(loop)) for n in range(1, 300)]
        for when, thing in things:
            expiry.add(when, thing)
        await asyncio.sleep(2)
        for when, thing in things:
            assert thing.expired_at is not None and when <= thing.expired_at + 1e-9 <= when + TICK_S + 1e-6
        assert len(expiry) == 0

    run_virtual(main())


def test_what_is_discarded_does_not_expire() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expiry = Expiry(loop)
        kept, gone = Thing(loop), Thing(loop)
        expiry.add(1.0, kept)
        expiry.add(1.0, gone).discard(gone)
        await asyncio.sleep(2)
        assert kept.expired_at is not None and gone.expired_at is None

    run_virtual(main())


def test_an_earlier_deadline_that_comes_later_is_kept() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expiry = Expiry(loop)
        late, early, middle = Thing(loop), Thing(loop), Thing(loop)
        expiry.add(3.0, late)
        expiry.add(1.0, early)
        expiry.add(2.0, middle)
        await asyncio.sleep(4)
        assert [thing.expired_at for thing in (early, middle, late)] == pytest.approx([1, 2, 3], abs=2 * TICK_S)

    run_virtual(main())


def test_what_comes_while_others_expire_expires_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        expiry = Expiry(loop)
        next_one = Thing(loop)

        class Follows:
            def expire(self) -> None:
                expiry.add(1.5, next_one)

        expiry.add(1.0, Follows())
        expiry.add(5.0, Thing(loop))
        await asyncio.sleep(2)
        assert next_one.expired_at == pytest.approx(1.5, abs=2 * TICK_S)
        expiry.close()
        await asyncio.sleep(10)
        assert len(expiry) == 0

    run_virtual(main())


@pytest.mark.parametrize("timeout_s", [0.05, 10.0])
def test_deadlines_that_nobody_reaches_ring_few_timers_and_take_bounded_memory(timeout_s: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rung = 0

        class Counting(Expiry):
            def _ring(self) -> None:
                nonlocal rung
                rung += 1
                super()._ring()

        expiry = Counting(loop)
        for _ in range(4000):  # 40 s
            thing = Thing(loop)
            tick = expiry.add(loop.time() + timeout_s, thing)
            await asyncio.sleep(TICK_S)
            tick.discard(thing)
        assert rung <= 40 / (timeout_s - TICK_S) + 1
        assert len(expiry._ticks) == len(expiry._order) <= timeout_s / TICK_S + 2
        await asyncio.sleep(timeout_s + 1)
        assert not expiry._ticks and not expiry._order

    run_virtual(main())


def test_the_clock_of_the_loop_and_of_deadlines_is_the_same() -> None:
    """`call_at` takes deadlines that were made with time.monotonic, on uvloop too."""
    import uvloop

    for make in (uvloop.new_event_loop, asyncio.new_event_loop):
        loop = make()
        assert abs(loop.time() - time.monotonic()) < 0.05
        loop.close()


def test_the_virtual_clock_jumps() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run_virtual(main()) == pytest.approx(3600)
    assert time.monotonic() - began < 5


def test_a_virtual_loop_hears_other_threads() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        told: asyncio.Future[str] = loop.create_future()
        threading.Thread(target=loop.call_soon_threadsafe, args=(told.set_result, "hello")).start()
        return await told

    assert run_virtual(main()) == "hello"


def test_a_channel_counts_and_shows_its_state() -> None:
    async def main() -> None:
        async with virtual_engine(graph_of(Square)) as engine:
            channel = Channel(4)
            for _ in range(3):
                channel.put(engine.begin(1))
            channel.popleft()
            now = channel.statistics()
            assert (now.depth, now.depth_max, now.size) == (2, 3, 4)
            assert repr(channel) == "<Channel 2 of 4>"

    run_virtual(main())


def test_a_raising_observer_is_removed_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Observer):
        calls = 0

        def rejected(self, reason: str) -> None:
            self.calls += 1
            raise RuntimeError("observer bug")

        def loop_late(self, op: str, hook: str, share_s: float) -> None:
            self.calls += 1

    class Good(Observer):
        def __init__(self) -> None:
            self.reasons: list[str] = []

        def rejected(self, reason: str) -> None:
            self.reasons.append(reason)

    hooks = Hooks()
    bad, good = Bad(), Good()
    hooks.add(bad)
    hooks.add(good)
    hooks.emit(hooks.rejected, "one")
    hooks.emit(hooks.rejected, "two")
    hooks.emit(hooks.loop_late, "x", "preprocess", 1.0)
    assert bad.calls == 1 and good.reasons == ["one", "two"]
    assert "is removed" in caplog.text


def test_a_hook_that_nobody_overrides_is_an_empty_list() -> None:
    hooks = Hooks()
    hooks.add(Observer())
    assert all(getattr(hooks, name) == [] for name in Hooks.NAMES)


def test_the_guard_names_the_hook_that_blocks_the_loop() -> None:
    seen: list[tuple[str, str, str]] = []
    late: list[tuple[str, str]] = []
    reported = threading.Event()

    class Watching(Observer):
        def loop_blocked(self, op: str, hook: str, seconds: float, stack: str) -> None:
            assert seconds >= 0.05
            seen.append((op, hook, stack))

        def loop_late(self, op: str, hook: str, share_s: float) -> None:
            late.append((op, hook))
            told.set()

    @op(cpu="inline")
    def blocking(x: Any) -> Any:
        # Blocks until the guard has written its warning: no sleep, no race.
        assert reported.wait(20)
        return x

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reported.set()

    async def main() -> None:
        graph = Graph("test", blocking(Request()))
        async with Engine(graph, observers=[Watching()], blocked_s=0.05) as engine:
            assert await engine.submit(5, timeout=30) == 5
            await told.wait()

    told = asyncio.Event()
    handler = Handler()
    logger = logging.getLogger("asyncline.engine")
    logger.addHandler(handler)
    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(handler)
    op_name, hook, stack = seen[0]
    assert (op_name, hook) == ("blocking", "preprocess") == late[0]
    assert "reported.wait" in stack


def test_the_guard_names_a_hook_that_keeps_the_interpreter_in_c(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, str, float, str]] = []
    late: list[tuple[str, str]] = []

    class Watching(Observer):
        def loop_blocked(self, op: str, hook: str, seconds: float, stack: str) -> None:
            seen.append((op, hook, seconds, stack))

        def loop_late(self, op: str, hook: str, share_s: float) -> None:
            late.append((op, hook))

    class Matching(Op):
        async def preprocess(self, text: str) -> str:
            await asyncio.sleep(0)
            assert re.match("(a+)+b", text) is None
            return text

    async def main() -> None:
        async with Engine(Graph("test", Matching(Request())), observers=[Watching()], blocked_s=0.1) as engine:
            for _ in range(20):  # where other programs have all cores, the guard may be too late to see it
                await engine.submit("a" * 24, timeout=30)  # 0.5 s
                await asyncio.sleep(0.2)
                if seen:
                    return

    asyncio.run(main())
    op_name, hook, seconds, stack = seen[0]
    assert (op_name, hook) == ("matching", "preprocess") == late[0]
    assert seconds > 0.1 and 're.match("(a+)+b"' in stack
    assert stack.count("File ") <= 3, "from the hook on"
    assert "op 'matching' preprocess has kept the interpreter" in caplog.text
    assert "Give the Op cpu='process'" in caplog.text  # in a thread it would keep it as well


def test_an_alarm_rings_once_at_the_earliest_time() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        rang: list[float] = []
        alarm = Alarm(loop, lambda: rang.append(round(loop.time(), 3)))
        for at in (5.0, 2.0, 9.0):
            alarm.set(at, loop.time())
        await asyncio.sleep(20)
        alarm.set(30.0, loop.time())
        alarm.cancel()
        alarm.set(loop.time(), loop.time())  # not at once: a loop that takes no wait for none would spin
        await asyncio.sleep(20)
        return rang

    assert run_virtual(main()) == [2.0, 20.001]
