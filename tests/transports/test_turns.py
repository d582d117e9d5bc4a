"""Turns: the policy on a virtual loop, and what it does for the wires, counted in turns and messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncline.testing import run_virtual
from asyncline.transports.guard.turns import ALONE_BURST, SHARED_S, Turns


def turns_of(burst: int, *, shared: bool = True) -> Turns:
    """Of one wire of two, of which the other has something to do, or nothing."""
    wires: list[Turns] = []
    found, other = Turns(burst, wires), Turns(burst, wires)
    if shared:
        other.left -= 1
    return found


class Client:
    """One that has messages, and does them as a connection does."""

    def __init__(self, name: str, turns: Turns, done: list[str], most: int = 100) -> None:
        self._name = name
        self._turns = turns
        self._done = done
        self._most = most
        self._count = 0

    def send(self, count: int) -> None:
        self._count += count
        if self._turns.left > 0:
            self.work()
        else:
            self._turns.wait(self.work)

    def work(self) -> None:
        now = min(self._count, self._turns.left, self._most)
        self._count -= now
        self._done += [self._name] * now
        self._turns.spend(now)
        if self._count:
            self._turns.wait(self.work)


def done_by_turn(turns: Turns, done: list[str], count: int) -> list[str]:
    """What is done in each of so many turns of a loop."""
    seen = []

    async def main() -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            seen.append("".join(done))
            done.clear()

    run_virtual(main())
    return seen


def in_turns(count: int, *sends: tuple[str, int], burst: int = 4, most: int = 100) -> list[str]:
    """What is done in each turn, the one of the sending first."""

    async def main() -> list[str]:
        turns, done = turns_of(burst), list[str]()
        for name, messages in sends:
            Client(name, turns, done, most).send(messages)
        seen = []
        for _ in range(count):
            seen.append("".join(done))
            done.clear()
            await asyncio.sleep(0)
        assert turns.left > 0 or repr(turns) == f"<Turns 0 of {burst} left, 1 waiting>"
        return seen

    return run_virtual(main())


def test_where_there_is_little_to_do_it_is_done_at_once() -> None:
    assert in_turns(2, ("a", 1), ("b", 2)) == ["abb", ""]


def test_a_backlog_is_cut_into_turns() -> None:
    assert in_turns(4, ("a", 10)) == ["aaaa", "aaaa", "aa", ""]


def test_who_waits_is_called_in_order_and_again_after_the_others() -> None:
    assert in_turns(5, ("a", 8), ("b", 1), ("c", 1), ("d", 3)) == ["aaaa", "aaaa", "bcdd", "d", ""]


def test_one_that_may_not_have_a_whole_turn_leaves_the_rest_of_it_to_others() -> None:
    assert in_turns(4, ("a", 6), ("b", 1), most=2) == ["aab", "aa", "aa", ""]


def test_a_turn_is_made_up_for_only_when_it_is_used_up() -> None:
    """So that one message now and then costs no call of the loop."""

    async def main() -> tuple[list[int], int]:
        turns, left = turns_of(3), []
        for _ in range(5):
            turns.spend()
            left.append(turns.left)
            await asyncio.sleep(0)
        return left, turns.left

    assert run_virtual(main()) == ([2, 1, 0, 2, 1], 1)


def test_work_that_raises_does_not_keep_the_others_waiting() -> None:
    async def main() -> tuple[list[str], list[Any]]:
        raised: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
        turns, done = turns_of(1), list[str]()
        turns.spend()

        def fail() -> None:
            raise ValueError

        turns.wait(fail)
        Client("b", turns, done).send(1)
        for _ in range(3):
            await asyncio.sleep(0)
        return done, raised

    done, raised = run_virtual(main())
    assert done == ["b"] and [type(error) for error in raised] == [ValueError]


@pytest.mark.parametrize("burst", [1, 7])
def test_nothing_is_lost_and_the_order_of_one_client_stays(burst: int) -> None:
    seen = "".join(in_turns(100, ("a", 30), ("b", 20), ("c", 1), burst=burst))
    assert (seen.count("a"), seen.count("b"), seen.count("c")) == (30, 20, 1)


def test_while_no_other_wire_has_anything_to_do_a_turn_is_longer() -> None:
    async def main() -> list[int]:
        wires: list[Turns] = []
        turns, other = Turns(4, wires), Turns(4, wires)
        lefts = []
        for others, seconds in ((0, 0.0), (1, 0.0), (0, SHARED_S / 2), (0, SHARED_S), (1, 0.0)):
            if others:
                other.spend(others)
            await asyncio.sleep(seconds)
            turns.spend(turns.left)
            await asyncio.sleep(0)
            lefts.append(turns.left)
        return lefts

    assert run_virtual(main()) == [ALONE_BURST, 4, 4, ALONE_BURST, 4]
