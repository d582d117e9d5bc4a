"""JumpingRunner: an Op at work whose result may take the place of another's (see `graph/jump.py`)."""

from __future__ import annotations

from typing import Any

from asyncline.engine.item import PENDING, Item
from asyncline.engine.runner import Runner
from asyncline.errors import hook_error


class JumpingRunner(Runner):
    """One Op at work that may jump. An Item that goes round for ever ends by its deadline."""

    def _deliver(self, item: Item, value: Any, now: float) -> None:
        try:
            jumps = self.node.op.hook("jumps")(value)  # type: ignore[misc]  # an Op with `jumps_to` has it
        except Exception as error:
            self._fail(item, hook_error(error, self.node.name, "jumps"))
            return
        if not jumps:
            super()._deliver(item, value, now)
            return
        if self.engine.hooks.op_done:
            self.engine.hooks.emit(self.engine.hooks.op_done, self.node, item)
        # In the next turn of the loop: Ops that are all inline would else go round until the deadline, alone.
        self.engine.loop.call_soon(self._jump, item, value)

    def _jump(self, item: Item, value: Any) -> None:
        now = self._clock()
        if item.done:
            return
        if now >= item.expires_at:
            item.expire()
            return
        target = self.node.target
        assert target is not None
        values = item.values
        values[target.slot] = PENDING
        nodes = [self.engine.plan.nodes[index] for index in target.again]
        for node in nodes:
            values[node.slot] = PENDING
        for node in nodes:
            item.missing[node.index] = sum(values[slot] is PENDING for slot in node.input_slots)
        if target.again:
            self._put_times_aside(item, target.again)
        self.engine.deliver(item, target, value, now)
        self.engine.turn()

    def _put_times_aside(self, item: Item, again: tuple[int, ...]) -> None:
        """Those of Ops that run again begin anew; in the end they are added up."""
        earlier = self.engine.jumped.get(item.data_id)
        if earlier is None:
            item.is_notable = True
            earlier = self.engine.jumped[item.data_id] = [0.0] * len(item.times)
        for index in again:
            for slot in self.engine.plan.stage_slots[index].values():
                earlier[slot] += item.times[slot]
                item.times[slot] = 0.0


def add_earlier_times(times: list[float], earlier: list[float] | None) -> None:
    """Add what an Op took each time before."""
    if earlier is not None:
        times[:] = [seconds + before for seconds, before in zip(times, earlier, strict=True)]
