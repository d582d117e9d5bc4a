"""Answers that come in parts: order, flow, ends of all kinds; the generator is always closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from asyncline import (
    Cancelled,
    DeadlineExceeded,
    Graph,
    Op,
    OpError,
    Overloaded,
    ProductError,
    Reply,
    Request,
    RequestError,
    Response,
    Unavailable,
    context,
    op,
)
from asyncline.engine import parts as parts_module
from asyncline.engine.engine import Engine
from asyncline.engine.item import TOTAL, Item
from asyncline.engine.parts import MOST_PARTS
from asyncline.engine.stream import AHEAD
from asyncline.errors import TooLarge
from asyncline.graph.request import Input
from asyncline.observe.statistics import Statistics
from asyncline.settings import merge
from asyncline.testing import SimulatedLanes, run_virtual, virtual_engine

from .ops import double
from .test_engine import assert_nothing_left, settings_for

STEP_S = 0.01


class Numbers(Op):
    """0 to n - 1, one every 10 ms; what became of the generators is in `ended`."""

    def __init__(self, *inputs: Input, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.made = 0
        self.ended: list[str] = []

    async def preprocess(self, n: int) -> AsyncIterator[int]:
        how = "closed"
        try:
            for i in range(n):
                await asyncio.sleep(STEP_S)
                self.made += 1
                yield i
            how = "over"
        except asyncio.CancelledError:
            how = "cancelled"
            raise
        finally:
            await asyncio.sleep(STEP_S)  # a close may take its time
            self.ended.append(how)


class Eager(Numbers):
    """The same, but without ever waiting."""

    async def preprocess(self, n: int) -> AsyncIterator[int]:
        try:
            for i in range(n):
                self.made += 1
                yield i
        finally:
            self.ended.append("over")


class Taken:
    """What came of one request that was begun with `on_part`."""

    def __init__(self, engine: Engine, payload: Any, hold_at: int | None = None, **kwargs: Any) -> None:
        self.parts: list[Any] = []
        self.done = asyncio.Event()
        self._hold_at = hold_at
        self.item = engine.begin(payload, on_part=self._on_part, on_done=self._on_done, **kwargs)

    def _on_part(self, item: Item, part: Any) -> None:
        assert not item.done
        self.parts.append(part)
        if len(self.parts) == self._hold_at:
            item.hold()

    def _on_done(self, item: Item) -> None:
        self.parts.append("done")
        self.done.set()


def run(graph: Graph, main: Callable[[Engine], Awaitable[Any]], **kwargs: Any) -> Any:
    """Run `main` with an Engine on virtual time, and see that nothing is left after it."""

    async def all_of_it() -> Any:
        async with virtual_engine(graph, **kwargs) as engine:
            try:
                return await main(engine)
            finally:
                await asyncio.sleep(100)
                assert_nothing_left(engine)
                assert engine.statistics().lanes["loop"].running == 0

    return run_virtual(all_of_it())


def numbers(kind: type[Numbers] = Numbers, **settings: Any) -> tuple[Numbers, Graph]:
    made = kind(Request(), name="numbers", **settings)
    return made, Graph("test", made)


# -- parts ----------------------------------------------------------------------------------------------


def test_parts_come_in_order_and_before_the_end() -> None:
    _, graph = numbers()

    async def main(engine: Engine) -> list[Any]:
        taken = Taken(engine, 3)
        await taken.done.wait()
        assert taken.item.error is None
        return taken.parts

    assert run(graph, main) == [0, 1, 2, "done"]


def test_a_part_comes_when_it_is_made() -> None:
    _, graph = numbers()

    async def main(engine: Engine) -> list[float]:
        now = asyncio.get_running_loop().time
        began = now()
        return [round(now() - began, 3) async for _ in engine.stream(3)]

    assert run(graph, main) == [0.01, 0.02, 0.03]


def test_without_on_part_the_answer_is_the_list_of_parts() -> None:
    _, graph = numbers()
    assert run(graph, lambda engine: engine.submit(4)) == [0, 1, 2, 3]


def test_no_part_is_an_empty_answer() -> None:
    _, graph = numbers()
    assert run(graph, lambda engine: engine.submit(0)) == []


def test_postprocess_streams_what_process_made() -> None:
    class Spell(Op):
        def process(self, batch: list[str]) -> list[str]:
            return [word.upper() for word in batch]

        async def postprocess(self, word: str, given: str) -> AsyncIterator[str]:
            for letter in word:
                yield letter + given[0]

    graph = Graph("test", Spell(Request(), batch_size=4))
    assert run(graph, lambda engine: engine.submit("abc")) == ["Aa", "Ba", "Ca"]


def test_postprocess_streams_without_process() -> None:
    class Spell(Op):
        def preprocess(self, word: str) -> str:
            return word[::-1]

        async def postprocess(self, word: str, given: str) -> AsyncIterator[str]:
            for letter in word:
                yield letter

    assert run(Graph("test", Spell(Request())), lambda engine: engine.submit("abc")) == ["c", "b", "a"]


def test_a_function_streams() -> None:
    @op()
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    assert run(Graph("test", count(double(Request()))), lambda engine: engine.submit(2)) == [0, 1, 2, 3]


def test_the_response_packs_every_part() -> None:
    class Packed(Response):
        def pack(self, outputs: dict[str | None, Any]) -> Any:
            return {"token": outputs[None]}

    graph = Graph("test", Packed(Numbers(Request())))
    assert run(graph, lambda engine: engine.submit(2)) == [{"token": 0}, {"token": 1}]


def test_the_name_of_the_output_is_in_every_part() -> None:
    graph = Graph("test", token=Numbers(Request()))
    assert run(graph, lambda engine: engine.submit(2)) == [{"token": 0}, {"token": 1}]


def test_a_graph_that_does_not_stream_has_one_part() -> None:
    async def main(engine: Engine) -> Any:
        return Taken(engine, 21).parts, [part async for part in engine.stream(4)], await engine.submit(1)

    assert run(Graph("test", double(Request())), main) == ([42, "done"], [8], 2)


def test_a_hook_knows_its_request_between_parts() -> None:
    @op()
    async def who(n: int) -> AsyncIterator[str]:
        for _ in range(n):
            await asyncio.sleep(STEP_S)
            yield context().log_id

    graph = Graph("test", who(Request()))
    assert run(graph, lambda engine: engine.submit(2, log_id="me")) == ["me", "me"]


def test_a_reply_among_the_parts_is_the_last() -> None:
    closed = []

    @op()
    async def count(n: int) -> AsyncIterator[Any]:
        try:
            yield 1
            yield Reply("enough")
            yield 2
        finally:
            closed.append(n)

    assert run(Graph("test", count(Request())), lambda engine: engine.submit(7)) == [1, "enough"]
    assert closed == [7]


def test_a_reply_before_the_stream_is_its_one_part() -> None:
    @op(cpu="inline")
    def early(value: Any) -> Any:
        return Reply("early")

    made = Numbers(early(Request()))
    assert run(Graph("test", made), lambda engine: engine.submit(3)) == ["early"]
    assert made.made == 0


# -- flow -----------------------------------------------------------------------------------------------


def test_a_held_generator_is_not_resumed() -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> list[Any]:
        taken = Taken(engine, 5, hold_at=2)
        await asyncio.sleep(1)
        assert (taken.parts, made.made) == ([0, 1], 2)
        taken.item.go_on()
        await taken.done.wait()
        return taken.parts

    assert run(graph, main) == [0, 1, 2, 3, 4, "done"]


def test_who_does_not_take_parts_has_a_few_ready_and_no_more() -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> list[int]:
        async with aclosing(engine.stream(50)) as stream:
            first = await anext(stream)
            await asyncio.sleep(2)
            assert made.made == AHEAD + 1
            return [first, *[part async for part in stream]]

    assert run(graph, main) == list(range(50))


def test_a_generator_that_never_waits_leaves_turns_to_others() -> None:
    made, graph = numbers(Eager)

    async def main(engine: Engine) -> None:
        answer = asyncio.ensure_future(engine.submit(1000))
        seen = set()
        while not answer.done():
            seen.add(made.made)
            await asyncio.sleep(0)
        assert len(seen) > 50

    run(graph, main)


def test_an_answer_in_one_piece_has_a_most_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    made, graph = numbers(Eager)
    with pytest.raises(TooLarge, match=f"more than {MOST_PARTS} parts: ask for it as a stream"):
        run(graph, lambda engine: engine.submit(10 * MOST_PARTS))
    assert made.made == MOST_PARTS + 1
    assert made.ended == ["over"]


def test_streams_do_not_wait_for_each_other() -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> None:
        slow = [Taken(engine, 2, hold_at=1) for _ in range(100)]
        assert await engine.submit(2) == [0, 1]
        for taken in slow:
            taken.item.cancel()

    run(graph, main)
    assert made.ended.count("closed") == 100


def test_concurrency_bounds_streams_where_it_is_said() -> None:
    _, graph = numbers(concurrency=1)

    async def main(engine: Engine) -> None:
        first, second = Taken(engine, 1, hold_at=1), Taken(engine, 1)
        await asyncio.sleep(1)
        assert (first.parts, second.parts) == ([0], [])
        first.item.go_on()
        await second.done.wait()
        assert second.parts == [0, "done"]

    run(graph, main)


# -- ends -----------------------------------------------------------------------------------------------


def test_an_error_after_some_parts_fails_the_request_and_leaves_the_parts() -> None:
    @op()
    async def fails(n: int) -> AsyncIterator[int]:
        yield n
        raise ProductError(7, "no more")

    async def main(engine: Engine) -> None:
        taken = Taken(engine, 1)
        await taken.done.wait()
        assert taken.parts == [1, "done"]
        assert taken.item.error is not None
        assert taken.item.error.code == 7

    run(Graph("test", fails(Request())), main)


def test_an_error_names_the_op_and_ends_the_iteration() -> None:
    @op()
    async def fails(n: int) -> AsyncIterator[int]:
        yield n
        raise KeyError("gone")

    async def main(engine: Engine) -> None:
        got = []
        with pytest.raises(OpError, match="op 'fails' preprocess: KeyError: 'gone'"):
            async for part in engine.stream(1):
                got.append(part)  # noqa: PERF401  # those before the error count
        assert got == [1]

    run(Graph("test", fails(Request())), main)


def test_a_pack_that_raises_fails_the_request_and_closes_the_generator() -> None:
    class Packed(Response):
        def pack(self, outputs: dict[str | None, Any]) -> Any:
            return 1 / outputs[None]

    made = Numbers(Request())
    with pytest.raises(OpError, match="op 'response' pack: ZeroDivisionError"):
        run(Graph("test", Packed(made)), lambda engine: engine.submit(3))
    assert made.ended == ["closed"]


def test_what_on_part_raises_fails_the_request() -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> RequestError | None:
        def on_part(item: Item, part: Any) -> None:
            raise OpError("the answer cannot be written")

        item = engine.begin(3, on_part=on_part)
        await item.wait()
        return item.error

    assert str(run(graph, main)) == "the answer cannot be written"
    assert made.ended == ["closed"]


@pytest.mark.parametrize("hold_at", [None, 1])
def test_a_deadline_ends_the_stream_held_or_not(hold_at: int | None) -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> None:
        taken = Taken(engine, 100, hold_at, timeout_s=0.055)
        await taken.done.wait()
        assert isinstance(taken.item.error, DeadlineExceeded)
        assert "in op 'numbers'" in str(taken.item.error)
        assert taken.parts == ([0, "done"] if hold_at else [0, 1, 2, 3, 4, "done"])

    run(graph, main)
    assert made.ended == ["closed" if hold_at else "cancelled"]


def test_an_ops_own_timeout_ends_the_stream() -> None:
    made, graph = numbers(timeout_ms=35)
    with pytest.raises(DeadlineExceeded, match="op 'numbers': took longer than its timeout_ms of 35"):
        run(graph, lambda engine: engine.submit(100))
    assert made.ended == ["cancelled"]


@pytest.mark.parametrize("hold_at", [None, 1])
def test_a_client_that_leaves_ends_the_stream(hold_at: int | None) -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> None:
        taken = Taken(engine, 100, hold_at)
        await asyncio.sleep(0.025)
        taken.item.cancel()
        taken.item.go_on()
        await asyncio.sleep(1)
        assert isinstance(taken.item.error, Cancelled)
        assert taken.parts[-1] == "done"

    run(graph, main)
    assert made.ended == ["closed" if hold_at else "cancelled"]
    assert made.made == (1 if hold_at else 2)


def test_a_client_may_leave_from_on_part() -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> None:
        item = engine.begin(9, on_part=lambda item, part: item.cancel())
        await item.wait()

    run(graph, main)
    assert made.ended == ["closed"]


def test_breaking_out_of_a_stream_cancels_the_request() -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> None:
        async for part in engine.stream(100):
            if part == 2:
                break
        await asyncio.sleep(0.05)
        assert engine.admission.in_flight == 0
        assert len(made.ended) == 1

    run(graph, main)


def test_a_cancelled_reader_cancels_the_request() -> None:
    made, graph = numbers()

    async def main(engine: Engine) -> None:
        async def read() -> None:
            async for _ in engine.stream(100):
                pass

        reader = asyncio.ensure_future(read())
        await asyncio.sleep(0.025)
        reader.cancel()
        await asyncio.wait([reader])
        assert engine.admission.in_flight == 0

    run(graph, main)
    assert made.ended == ["cancelled"]


def test_a_stream_is_refused_at_the_door() -> None:
    _, graph = numbers()

    async def main(engine: Engine) -> None:
        taken = Taken(engine, 2)
        with pytest.raises(Overloaded):
            await anext(engine.stream(1))
        await taken.done.wait()

    run(graph, main, settings=settings_for(graph, max_in_flight=1))


def test_a_drain_lets_a_stream_end() -> None:
    _, graph = numbers()

    async def main() -> list[Any]:
        engine = virtual_engine(graph)
        await engine.start()
        taken = Taken(engine, 3)
        assert await engine.close(drain_s=1)
        return taken.parts

    assert run_virtual(main()) == [0, 1, 2, "done"]


def test_a_close_ends_a_stream_and_lets_the_generator_clean_up() -> None:
    made, graph = numbers()

    async def main() -> Taken:
        engine = virtual_engine(graph)
        await engine.start()
        taken = Taken(engine, 100)
        assert not await engine.close(drain_s=0.035)
        return taken

    taken = run_virtual(main())
    assert taken.parts == [0, 1, 2, "done"]
    assert isinstance(taken.item.error, Unavailable)
    assert made.ended == ["cancelled"]


def test_a_generator_that_does_not_end_does_not_stop_a_close() -> None:
    @op()
    async def stubborn(n: int) -> AsyncIterator[int]:
        try:
            yield n
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    async def main() -> None:
        engine = virtual_engine(Graph("test", stubborn(Request())))
        await engine.start()
        taken = Taken(engine, 1)
        await asyncio.sleep(1)
        async with asyncio.timeout(30):
            await engine.close()
        assert taken.parts == [1, "done"]

    run_virtual(main())


def test_what_a_generator_raises_when_it_is_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @op()
    async def angry(how: str) -> AsyncIterator[str]:
        try:
            yield how
            await asyncio.sleep(STEP_S)
            yield how
        finally:
            raise ValueError("while closing")

    graph = Graph("test", angry(Request()))

    async def main(engine: Engine) -> None:
        held, running = Taken(engine, "held", hold_at=1), Taken(engine, "running", log_id="r1")
        await asyncio.sleep(STEP_S / 2)
        for taken in (held, running):
            taken.item.cancel()
            assert isinstance(taken.item.error, Cancelled)

    with caplog.at_level(logging.WARNING, "asyncline.engine"):
        run(graph, main)
    assert caplog.text.count("op 'angry' preprocess: its generator raised when it was closed") == 2
    assert caplog.text.count("ValueError: while closing") == 2


def test_a_close_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    @op()
    async def hangs(n: int) -> AsyncIterator[int]:
        try:
            yield n
        finally:
            await asyncio.Event().wait()

    async def main(engine: Engine) -> None:
        Taken(engine, 1, hold_at=1).item.cancel()
        taken = Taken(engine, 1, hold_at=1)
        await asyncio.sleep(STEP_S)
        taken.item.cancel()
        await asyncio.sleep(parts_module.CLOSE_S + STEP_S)
        assert engine.statistics().lanes["loop"].running == 0

    run(Graph("test", hangs(Request())), main)
    assert "TimeoutError" in caplog.text


def test_a_generator_that_swallows_its_cancel_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    @op()
    async def deaf(n: int) -> AsyncIterator[int]:
        while True:
            try:
                await asyncio.sleep(STEP_S)
            except asyncio.CancelledError:
                pass
            yield n

    async def main(engine: Engine) -> None:
        taken = Taken(engine, 1)
        await asyncio.sleep(STEP_S / 2)
        taken.item.cancel()
        await asyncio.sleep(1)
        assert taken.parts == ["done"]

    run(Graph("test", deaf(Request())), main)


# -- times ----------------------------------------------------------------------------------------------


def test_times_are_of_the_whole_stream_and_of_its_first_part() -> None:
    _, graph = numbers()
    settings = merge("test", {"numbers": {}})

    async def main() -> None:
        engine = virtual_engine(graph, SimulatedLanes(), settings)
        statistics = Statistics(engine)
        engine.hooks.add(statistics)
        async with engine:
            await asyncio.sleep(1)  # a job that began at 0 would count as one that did not run
            item = engine.begin(10)
            await item.wait()
            assert item.parts is not None
            assert item.parts.first_s == pytest.approx(STEP_S)
            # The generator's `finally` takes a step too.
            assert item.times[engine.plan.time_slots["numbers", "pre"]] == pytest.approx(11 * STEP_S)
            assert item.times[TOTAL] == pytest.approx(11 * STEP_S)
        statistics.fold()
        assert statistics.first_part_seconds is not None
        assert statistics.first_part_seconds.sum == pytest.approx(STEP_S)

    run_virtual(main())
