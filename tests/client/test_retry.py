"""What is sent again, when and how often: the policy alone, and a client with pretended wires on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from asyncline import BadRequest, DeadlineExceeded, OpError, Overloaded, RequestError, Unavailable, WorkerCrashed
from asyncline.client import AsyncClient, Malformed, Refused
from asyncline.client.address import Address
from asyncline.client.retry import RetryPolicy
from asyncline.client.wires.base import Call, Wire
from asyncline.testing import run_virtual


def refused(error: RequestError) -> RequestError:
    error.was_refused = True
    return error


def policy(random: float = 1.0, retries: int = 3) -> RetryPolicy:
    found = RetryPolicy(retries, lambda: random)
    for _ in range(1000):
        found.budget.earn()
    return found


def pause_s(error: RequestError, tried: int = 1, **kwargs: Any) -> float | None:
    options = {"remaining_s": 100.0, "idempotent": False, "elsewhere": False, **kwargs}
    return policy().pause_s(error, tried, **options)


# -- the policy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "always", "idempotent"),
    [
        (Refused("x"), True, True),
        (refused(Overloaded("x")), True, True),
        (refused(Unavailable("x")), True, True),
        (Overloaded("x"), False, False),  # some of it may have run
        (Unavailable("x"), False, True),
        (refused(BadRequest("x")), False, False),
        (BadRequest("x"), False, False),
        (DeadlineExceeded("x"), False, False),
        (OpError("x"), False, False),
        (WorkerCrashed("x"), False, False),  # what killed one worker kills the next
        (Malformed("x"), False, False),
    ],
)
def test_only_what_can_do_no_harm_is_sent_again(error: RequestError, always: bool, idempotent: bool) -> None:
    assert (pause_s(error) is not None) is always
    assert (pause_s(error, idempotent=True) is not None) is idempotent


def test_the_pause_is_jittered_from_nothing_to_a_bound_that_doubles() -> None:
    error = Refused("x")
    bounds = [policy(retries=20).pause_s(error, n, 100, idempotent=False, elsewhere=False) for n in (1, 2, 3, 10, 20)]
    assert bounds == [0.05, 0.1, 0.2, 2.0, 2.0]
    assert policy(0.5).pause_s(error, 2, 100, idempotent=False, elsewhere=False) == 0.05
    assert policy(0.0).pause_s(error, 2, 100, idempotent=False, elsewhere=False) == 0


def test_a_server_is_not_asked_again_before_it_said() -> None:
    error = refused(Overloaded("x", retry_after_s=7))
    assert pause_s(error) == pytest.approx(7.05)
    assert pause_s(error, remaining_s=7.0) is None  # not in time
    assert pause_s(error, elsewhere=True) == 0.05


def test_another_server_is_asked_at_once_when_one_is_not_there() -> None:
    assert pause_s(Refused("x"), elsewhere=True) == 0


def asks_to_be_left(error: Refused, seconds: int) -> Refused:
    error.rest_s = seconds
    return error


def test_a_server_that_is_not_there_may_have_said_when() -> None:
    assert pause_s(asks_to_be_left(Refused("x"), 7)) == pytest.approx(7.05)
    assert pause_s(asks_to_be_left(Refused("x"), 0)) == pytest.approx(0.05)
    assert pause_s(asks_to_be_left(Refused("x"), 7), elsewhere=True) == 0


def test_one_that_did_not_say_when_may_be_left_at_that() -> None:
    stays = RetryPolicy(1, lambda: 1.0, comes_back=False)
    options: Any = {"tried": 1, "remaining_s": 100.0, "idempotent": False}
    assert stays.pause_s(Refused("x"), elsewhere=False, **options) is None
    assert stays.pause_s(asks_to_be_left(Refused("x"), 0), elsewhere=False, **options) == pytest.approx(0.05)
    stays.budget.earn()
    for _ in range(10):
        stays.budget.earn()
    assert stays.pause_s(Refused("x"), elsewhere=True, **options) == 0


def test_retries_are_counted() -> None:
    assert [pause_s(Refused("x"), tried=n) is not None for n in (1, 3, 4)] == [True, True, False]


def test_the_budget_allows_one_in_ten() -> None:
    found = RetryPolicy(1, lambda: 0.0)
    allowed = 0
    for _ in range(1000):
        found.budget.earn()
        allowed += found.pause_s(Refused("x"), 1, 1.0, idempotent=False, elsewhere=False) is not None
    assert allowed == 101


# -- a client with pretended wires ----------------------------------------------------------------------

Answer = Callable[[], Coroutine[Any, Any, Any]]


class PretendedWire(Wire):
    """Answers by a script: an error is raised, a number is how many seconds an answer takes."""

    def __init__(self, address: Address, script: list[RequestError | float]) -> None:
        self.address = address
        self.script = script
        self.asked_at: list[float] = []
        self.timeouts: list[float] = []

    async def call(self, call: Call, timeout_s: float) -> Any:
        self.asked_at.append(asyncio.get_running_loop().time())
        self.timeouts.append(timeout_s)
        step = self.script.pop(0) if self.script else 0.0
        if isinstance(step, RequestError):
            raise step
        await asyncio.sleep(step)
        return str(self.address)

    async def stream(self, call: Call, timeout_s: float) -> AsyncGenerator[Any, None]:
        yield await self.call(call, timeout_s)
        yield await self.call(call, timeout_s)

    async def ready(self, timeout_s: float) -> bool:
        return not self.script

    async def close(self) -> None:
        pass


class Pretending(AsyncClient):
    def __init__(self, *scripts: list[RequestError | float], **parameters: Any) -> None:
        super().__init__([f"tcp://host{n}:1" for n in range(len(scripts))], **parameters)
        self._balancer.policy._random = lambda: 1.0
        self.wires = [
            PretendedWire(each.address, script)
            for each, script in zip(self._balancer.endpoints.all, scripts, strict=True)
        ]

    async def _make(self, address: Address) -> Wire:
        return next(wire for wire in self.wires if wire.address == address)


def test_a_call_is_sent_again_after_the_pause_with_the_time_that_is_left() -> None:
    async def main() -> None:
        client = Pretending([refused(Overloaded("full", retry_after_s=3)), 0.5])
        assert await client("g", 1, timeout=10) == "tcp://host0:1"
        (wire,) = client.wires
        assert wire.asked_at == [0.0, pytest.approx(3.05)] and wire.timeouts == [10.0, pytest.approx(6.95)]

    run_virtual(main())


def test_the_last_error_is_told_when_retries_are_used_up() -> None:
    async def main() -> None:
        client = Pretending([Refused(str(n)) for n in range(9)], retries=2)
        for _ in range(20):
            client._balancer.policy.budget.earn()
        with pytest.raises(Refused, match="2"):
            await client("g", 1)
        assert len(client.wires[0].asked_at) == 3

    run_virtual(main())


def test_a_call_fails_at_once_where_waiting_would_take_past_its_deadline() -> None:
    async def main() -> None:
        client = Pretending([refused(Overloaded("full", retry_after_s=30))])
        with pytest.raises(Overloaded):
            await client("g", 1, timeout=5)
        assert asyncio.get_running_loop().time() == 0

    run_virtual(main())


def test_a_lost_call_is_sent_again_only_if_it_may_be_run_twice() -> None:
    async def main() -> None:
        with pytest.raises(Unavailable):
            await Pretending([Unavailable("lost")])("g", 1)
        with pytest.raises(Unavailable):
            await Pretending([Unavailable("lost")], idempotent=True)("g", 1, idempotent=False)
        assert await Pretending([Unavailable("lost")])("g", 1, idempotent=True)
        assert await Pretending([Unavailable("lost")], idempotent=True)("g", 1)

    run_virtual(main())


def test_another_server_gets_the_call_at_once_and_the_first_is_left_alone() -> None:
    async def main() -> None:
        client = Pretending([Refused("down")] * 9, [])
        assert [await client("g", n) for n in range(10)] == ["tcp://host1:1"] * 10
        assert len(client.wires[0].asked_at) == 1
        assert asyncio.get_running_loop().time() == 0

    run_virtual(main())


def test_where_all_are_left_alone_calls_go_out_nevertheless() -> None:
    async def main() -> None:
        client = Pretending([Refused("down")], [Refused("down")], retries=0)
        for _ in range(2):
            with pytest.raises(Refused):
                await client("g", 1)
        assert await client("g", 1)

    run_virtual(main())


def test_a_storm_of_failures_is_retried_no_more_than_the_budget_allows() -> None:
    async def main() -> None:
        client = Pretending([Refused("down") for _ in range(10_000)], retries=5)
        for _ in range(500):
            with pytest.raises(Refused):
                await client("g", 1)
        assert len(client.wires[0].asked_at) <= 500 * 1.1 + 2

    run_virtual(main())


def test_a_cancel_while_it_waits_to_be_sent_again_ends_the_call() -> None:
    async def main() -> None:
        client = Pretending([refused(Overloaded("full", retry_after_s=9)), 0.0])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client("g", 1)
        assert len(client.wires[0].asked_at) == 1 and client._balancer.endpoints.all[0].outstanding == 0

    run_virtual(main())


def test_a_stream_is_sent_again_until_its_first_part_only() -> None:
    async def main() -> None:
        client = Pretending([Refused("down"), 0.0, 0.0])
        assert [part async for part in client.stream("g", 1)] == ["tcp://host0:1"] * 2
        client = Pretending([0.0, refused(Overloaded("full"))])
        parts = client.stream("g", 1)
        assert await anext(parts)
        with pytest.raises(Overloaded):
            await anext(parts)

    run_virtual(main())


def test_a_close_while_it_waits_to_be_sent_again_ends_the_call_and_opens_nothing() -> None:
    async def main() -> None:
        client = Pretending([refused(Overloaded("full", retry_after_s=9)), 0.0])
        asked = asyncio.create_task(client("g", 1))
        await asyncio.sleep(1)
        await client.close()
        with pytest.raises(Refused, match="was closed"):
            await asked
        assert not client._wires

    run_virtual(main())


def test_a_stream_is_outstanding_until_its_end_and_its_server_is_left_alone_where_it_breaks_off() -> None:
    async def main() -> None:
        client = Pretending([0.0, Unavailable("lost")])
        (endpoint,) = client._balancer.endpoints.all
        parts = client.stream("g", 1)
        await anext(parts)
        assert endpoint.outstanding == 1
        with pytest.raises(Unavailable):
            await anext(parts)
        assert (endpoint.outstanding, endpoint.failures) == (0, 1)

    run_virtual(main())
