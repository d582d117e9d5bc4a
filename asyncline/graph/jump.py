"""Jumps: a result that takes the place of another Op's, so that what comes after that one runs: once more, or early.

    a → b → c        c.jumps_to = a: while `c.jumps(result)` says so, b and c run again on the result of c
    a → b → c → d    a.jumps_to = c: where `a.jumps(result)` says so, d runs on the result of a, without b and c

An Item must not be in two places at once. So whatever runs between an Op and the one that it jumps to has no other way
in or out; that is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from asyncline.errors import GraphError
from asyncline.graph.request import Input

if TYPE_CHECKING:
    from asyncline.graph.op import Op


def find_jumps(ops: Sequence[Op], outputs: Iterable[Input]) -> dict[Op, tuple[Op, ...]]:
    """For each Op that jumps: the Ops that are to run again where it does, itself among them; none of a jump ahead.

    :param ops: of a graph, every one after its inputs.
    :raises GraphError: a jump would leave an Op waiting, or run one twice at once; names the Op.
    """
    if all(op.jumps_to is None for op in ops):
        return {}
    return {op: _Jump(op, op.jumps_to, ops, set(outputs)).check() for op in ops if op.jumps_to is not None}


class _Jump:
    def __init__(self, op: Op, target: Input, ops: Sequence[Op], outputs: set[Input]) -> None:
        self.op = op
        self.target = target
        self.ops = ops
        self.outputs = outputs
        if target is op:
            raise self._error("it cannot jump to itself; to run again, it jumps to its input")
        if target not in ops and target is not op.request:
            raise self._error("no output needs that one")
        self.before = _before(ops)
        self.after_target = [each for each in ops if target in self.before[each]]
        self.after_op = [each for each in ops if op in self.before[each]]

    def check(self) -> tuple[Op, ...]:
        if self.op in self.after_target:
            self._check_back()
            return tuple(self.after_target)
        if self.target not in self.after_op:
            raise self._error("that one is neither before nor after it")
        self._check_ahead()
        return ()

    def _check_back(self) -> None:
        for each in self.after_target:
            if each is not self.op and each not in self.after_op and each not in self.before[self.op]:
                raise self._error(f"op {each.name!r} runs beside it and would run again")
        twice: list[Input] = [each for each in self.after_target if each is not self.op and each not in self.after_op]
        for value in (self.target, *twice):
            if value in self.outputs:
                raise self._error(f"{value._label()!r} is an output, which would be there twice")

    def _check_ahead(self) -> None:
        skipped = [self.op, *(each for each in self.after_op if each in self.before[self.target])]
        for each in self.after_op:
            if each not in skipped and each is not self.target and each not in self.after_target:
                raise self._error(f"op {each.name!r} would wait for it in vain")
        for each in self.after_target:
            missing = next((value for value in each.inputs if value in skipped), None)
            if missing is not None:
                raise self._error(f"op {each.name!r} would wait for {missing._label()!r} in vain")
        for each in skipped:
            if each in self.outputs:
                raise self._error(f"{each.name!r} is an output, which would not be there")

    def _error(self, why: str) -> GraphError:
        return GraphError(f"op {self.op.name!r} cannot jump to {self.target._label()!r}: {why}")


def _before(ops: Sequence[Op]) -> Mapping[Input, set[Input]]:
    """All that each Op depends on."""
    found: dict[Input, set[Input]] = {}
    for op in ops:
        found[op] = set().union(*({value} | found.get(value, set()) for value in op.inputs))
    return found
