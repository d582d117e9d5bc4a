"""Steps of a fused task, run one after the other: the same code in a thread and in a worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncline.deadline import Clock
from asyncline.errors import RequestError, hook_error
from asyncline.graph.fusion import Step
from asyncline.graph.outcomes import Reply, settled

if TYPE_CHECKING:
    from asyncline.engine.lanes.base import Job


@dataclass(slots=True)
class StepResult:
    """What came of one step: `error` is set, or `value` is what the hook returned.

    `value` is None where the step does not keep it and another has begun; that of the last to run is there.
    """

    value: Any
    error: RequestError | None
    started_at: float
    ended_at: float

    def is_final(self, expires_at: float) -> bool:
        """Whether the Item goes no further: an error, an early answer, or the deadline has passed."""
        return self.error is not None or type(self.value) is Reply or self.ended_at >= expires_at


def run_steps(
    steps: Sequence[Step],
    hook_of: Callable[[Step], Callable[..., Any]],
    frame: list[Any],
    clock: Clock,
    expires_at: float,
    make_error: Callable[[BaseException, str, str], RequestError] = hook_error,
) -> Iterator[StepResult]:
    """Run `steps`, and yield the result of each before the next one begins (which may change the value).

    It ends after a final result: the Item goes no further, so that nobody asks for the steps that did not run.
    For the same reason a caller may stop where the Item is dead.

    :param hook_of: the bound hook of a step.
    :param frame: the arguments of the first step, then the extra values. Results are added to it.
    :param expires_at: deadline in seconds of `clock`.
    :param make_error: from what a hook raised, the names of its Op and of itself.
    """
    for place, step in enumerate(steps, 1):
        result = StepResult(None, None, clock(), 0.0)
        try:
            result.value = hook_of(step)(*[frame[place] for place in step.args])
        except BaseException as error:  # a SystemExit of a hook must not end the thread, or the worker
            result.error = make_error(error, step.op, step.hook)
        result.ended_at = clock()
        yield result
        if place == len(steps) or result.is_final(expires_at):
            return
        # One of an Op with `process` has no next step.
        frame.append(settled(result.value) if step.hook == "preprocess" else result.value)
        if not step.keeps:
            result.value = None


def run_here(job: Job, clock: Clock) -> Iterator[StepResult]:
    """Run the steps of a Job with the server's own Ops."""
    nodes = job.item.engine.plan.nodes

    def hook_of(step: Step) -> Callable[..., Any]:
        hook: Callable[..., Any] = getattr(nodes[step.index].op, step.hook)
        return hook

    return run_steps(job.steps, hook_of, [*job.args, *job.extra], clock, job.expires_at)
