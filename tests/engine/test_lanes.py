"""The real lanes: threads, processes and replicas, and what happens to them in production."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import socket
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from asyncline import (
    DeadlineExceeded,
    Engine,
    Graph,
    LoadError,
    Observer,
    Op,
    OpError,
    Overloaded,
    Request,
    RequestError,
    Unavailable,
    WorkerCrashed,
    op,
)
from asyncline.engine.lanes import pool_worker, supervision
from asyncline.engine.lanes.process import ProcessLane
from asyncline.engine.lanes.thread import Bound
from asyncline.graph.plan import Node
from asyncline.settings import Settings, Source, merge

from .ops import graph_of
from .pool_ops import BadInit, Busy, DyingInit, HangingInit, Make, Meeting, Spoil, Threaded, Views


class Watching(Observer):
    """Keeps what it saw, and lets a test wait for a worker that was lost."""

    def __init__(self) -> None:
        self.lost: list[tuple[str, str, str]] = []
        self.one_lost = asyncio.Event()
        self.loaded_replicas: list[tuple[str, int]] = []

    def worker_lost(self, op: str, hook: str, reason: str) -> None:
        self.lost.append((op, hook, reason))
        self.one_lost.set()

    def loaded(self, node: Node, replica: int, seconds: float) -> None:
        self.loaded_replicas.append((node.name, replica))


def pool(graph: Graph, workers: int = 1, **service: Any) -> Settings:
    written = {"dag": {"cpu_workers": workers, "cpu_threads": 2}, "service": service}
    return merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", written))


async def outcomes(engine: Engine, *orders: Any) -> list[Any]:
    return await asyncio.gather(*(engine.submit(o, timeout=20) for o in orders), return_exceptions=True)


async def test_a_hook_runs_in_a_process_with_an_op_made_there() -> None:
    graph = graph_of(Busy, offset=100)
    async with Engine(graph, pool(graph)) as engine:
        pid, made_in, parent = await engine.submit(("pid", None))
        assert pid == made_in != os.getpid()
        assert parent != os.getpid()
        assert await engine.submit(("add", 5)) == 105
        data_id, log_id, remaining_s = await engine.submit(("context", None), log_id="mine", timeout=5)
        assert (data_id, log_id) == (3, "mine") and 0 < remaining_s <= 5
        assert (await engine.submit(("array", 3))).tolist() == [7, 7, 7]
        assert await engine.submit(("each", 3)) == [0, 1, 2]
        assert await engine.submit(("reply", "early")) == "early"


async def test_no_process_is_left_after_close() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph, workers=2)) as engine:
        pids = {(await engine.submit(("pid", None)))[0] for _ in range(4)}
    await asyncio.gather(*map(gone, pids))


async def gone(pid: int) -> None:
    """Wait for the end of a process that is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    await ended.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)


async def test_what_a_hook_raises_there_comes_back_with_its_traceback_for_the_log() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        with pytest.raises(OpError, match="op 'busy' preprocess: ValueError: wrong") as caught:
            await engine.submit(("raise", "wrong"))
        assert "pool_ops.py" in caught.value.traceback
        assert await engine.submit(("add", 1)) == 1


async def test_an_error_of_any_size_crosses_or_is_named() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        with pytest.raises(OpError, match="op 'busy' preprocess: ValueError: xxx"):
            await engine.submit(("raise", "x" * 10_000_000))
        with pytest.raises(OpError, match="raised Large, which is too large to cross: op 'busy' preprocess: large"):
            await engine.submit(("raise_large", 10_000_000))
        with pytest.raises(RequestError, match="raised BadRequest, which cannot be pickled"):
            await engine.submit(("raise_odd", 1))
        assert engine.statistics().lanes["process"].replaced == 0
        assert await engine.submit(("add", 1)) == 1


@pytest.mark.parametrize("how", [("exit", 3), ("kill", None), ("segfault", None), ("system_exit", 3)])
async def test_a_worker_that_dies_costs_one_request_and_is_replaced(how: tuple[str, Any]) -> None:
    graph = graph_of(Busy)
    watching = Watching()
    async with Engine(graph, pool(graph), observers=[watching]) as engine:
        got = await outcomes(engine, ("add", 1), how, ("add", 2), ("add", 3))
        assert [got[0], *got[2:]] == [1, 2, 3]
        assert isinstance(got[1], (WorkerCrashed, OpError)) and "op 'busy' preprocess" in str(got[1])
        if how[0] != "system_exit":
            assert isinstance(got[1], WorkerCrashed)
            assert watching.lost == [("busy", "preprocess", "died")]
            assert engine.statistics().lanes["process"].replaced == 1
        assert engine.problem() is None


async def test_a_worker_that_dies_idle_costs_nothing() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        pid = (await engine.submit(("pid", None)))[0]
        os.kill(pid, 9)
        await gone(pid)
        assert await engine.submit(("add", 1), timeout=20) == 1


async def test_a_hung_worker_is_killed_soon_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_worker, "GRACE_S", 0.1)
    graph = graph_of(Busy)
    watching = Watching()
    async with Engine(graph, pool(graph), observers=[watching]) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.submit(("hang", 600), timeout=0.2)
        assert await engine.submit(("add", 1), timeout=20) == 1
        assert watching.lost == [("busy", "preprocess", "hung past the deadline")]


async def test_a_hung_worker_is_killed_in_time_after_jobs_with_later_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_worker, "GRACE_S", 0.1)
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph, timeout_ms=500_000)) as engine:
        assert await engine.submit(("add", 1)) == 1
        with pytest.raises(DeadlineExceeded):
            await engine.submit(("hang", 600), timeout=0.2)
        assert await engine.submit(("add", 1), timeout=20) == 1


async def test_the_timeout_of_an_op_reclaims_its_worker_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_worker, "GRACE_S", 0.1)
    graph = graph_of(Busy, timeout_ms=1000)
    watching = Watching()
    async with Engine(graph, pool(graph, workers=2, timeout_ms=60_000), observers=[watching]) as engine:
        with pytest.raises(DeadlineExceeded, match="timeout_ms of 1000"):
            await engine.submit(("hang", 600))
        assert await engine.submit(("add", 1)) == 1  # by the other worker
        async with asyncio.timeout(20):
            await watching.one_lost.wait()


async def test_a_value_that_cannot_cross_is_the_ops_error_and_the_worker_lives() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        with pytest.raises(OpError, match=r"op 'busy' preprocess: its result cannot leave the CPU pool: .*lambda"):
            await engine.submit(("lambda", 1))
        with pytest.raises(OpError, match="its arguments cannot enter the CPU pool: TypeError: cannot pickle"):
            await engine.submit(("add", threading.Lock()))
        assert engine.statistics().lanes["process"].replaced == 0
        assert await engine.submit(("add", 1)) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (BadInit, "op 'bad_init' init_op in the CPU pool: RuntimeError: no licence"),
        (DyingInit, "a worker of the CPU pool died while it started"),
    ],
)
async def test_an_op_that_cannot_start_in_a_worker_fails_the_start(kind: type[Op], message: str) -> None:
    graph = graph_of(kind)
    engine = Engine(graph, pool(graph))
    with pytest.raises(LoadError, match=message):
        await engine.start()
    assert engine.state == "closed"


@pytest.mark.parametrize("given_s", [0.0, 0.02, 0.05, 1.0], ids=lambda s: f"after {s} s")
async def test_a_worker_that_hangs_in_init_op_is_given_up_and_ends(
    given_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_worker, "START_S", given_s)  # it may not even have said its id by then
    graph = graph_of(HangingInit)
    engine = Engine(graph, pool(graph))
    with pytest.raises(LoadError, match="did not start within"):
        await engine.start()
    assert engine.state == "closed"
    ended = (child.join for child in multiprocessing.active_children())
    async with asyncio.timeout(30):
        await asyncio.gather(*map(asyncio.to_thread, ended))


async def test_an_op_that_workers_cannot_import_is_refused_with_the_cure() -> None:
    class Local(Op):
        def preprocess(self, x: Any) -> Any:
            return x

    graph = graph_of(Local)
    with pytest.raises(LoadError, match=r"op 'local'.*cannot import.*Local.*top level of a module, or set cpu"):
        await Engine(graph, pool(graph)).start()


async def test_an_argument_that_cannot_be_pickled_is_refused_with_the_cure() -> None:
    graph = graph_of(Busy, offset=threading.Lock())
    with pytest.raises(LoadError, match=r"op 'busy': its arguments have to reach the CPU pool.*init_op"):
        await Engine(graph, pool(graph)).start()


@op()
def shout(text: str) -> str:
    return text.upper() + str(os.getpid() != 0)


async def test_a_function_made_an_op_runs_in_the_pool() -> None:
    graph = Graph("test", shout(Request()))
    async with Engine(graph, pool(graph)) as engine:
        assert await engine.submit("hey") == "HEYTrue"


async def test_hooks_run_in_the_threads_they_are_meant_for() -> None:
    graph = graph_of(Threaded, concurrency=2)
    watching = Watching()
    async with Engine(graph, pool(graph), observers=[watching]) as engine:
        pre, process_, post = await engine.submit(1)
        assert pre.startswith("asyncline cpu") and post.startswith("asyncline cpu")
        assert process_.startswith("asyncline threaded")
    assert sorted(watching.loaded_replicas) == [("threaded", 0), ("threaded", 1)]


async def test_a_hook_that_exits_does_not_end_its_thread() -> None:
    graph = graph_of(Threaded)
    async with Engine(graph, pool(graph)) as engine:
        for _ in range(3):
            with pytest.raises(OpError, match="op 'threaded' preprocess: SystemExit: 3"):
                await engine.submit("exit")
        engine.runners[0].replicas[0]._op.model = "bad"  # type: ignore[attr-defined]  # a ThreadReplica has it
        with pytest.raises(OpError, match="op 'threaded' process: SystemExit: 4"):
            await engine.submit(1)
        engine.runners[0].replicas[0]._op.model = None  # type: ignore[attr-defined]  # a ThreadReplica has it
        assert len(await engine.submit(1)) == 3


async def test_the_thread_lane_runs_hooks_side_by_side() -> None:
    graph = graph_of(Meeting)
    async with Engine(graph, pool(graph)) as engine:
        assert await outcomes(engine, 1, 2) == [1, 2]


async def test_no_thread_is_left_after_close() -> None:
    graph = graph_of(Threaded, concurrency=2)
    async with Engine(graph, pool(graph)) as engine:
        await engine.submit(1)
    for thread in threading.enumerate():
        if thread.name.startswith(("asyncline cpu", "asyncline threaded")):
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()


async def test_a_model_is_loaded_once_for_each_replica_in_its_own_thread() -> None:
    class Model(Op):
        def load_model(self, device: str) -> tuple[str, str]:
            return device, threading.current_thread().name

        def process(self, batch: list[Any]) -> list[Any]:
            return [self.model] * len(batch)

    graph = graph_of(Model, concurrency=2)
    async with Engine(graph, pool(graph)) as engine:
        models = {tuple(await engine.submit(n)) for n in range(4)}
        assert models <= {("cpu", "asyncline model 0"), ("cpu", "asyncline model 1")}
    assert graph.ops[0].model is None


async def test_an_async_process_runs_on_the_loop() -> None:
    class Remote(Op):
        async def load_model(self, device: str) -> int:
            return 10

        async def process(self, batch: list[int]) -> list[int]:
            await asyncio.sleep(0)
            assert threading.current_thread() is threading.main_thread()
            return [self.model * n for n in batch]

    graph = graph_of(Remote, batch_size=4)
    async with Engine(graph, pool(graph)) as engine:
        assert await outcomes(engine, 1, 2, 3) == [10, 20, 30]


async def test_every_error_of_a_request_has_a_code() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        got = await outcomes(engine, ("raise", "x"), ("exit", 1))
        assert [error.code for error in got if isinstance(error, RequestError)] == ["op_error", "worker_crashed"]


async def test_an_array_stays_where_it_is_from_worker_to_worker() -> None:
    request = Request()
    graph = Graph("test", Busy(Busy(request, name="first"), name="second"))
    async with Engine(graph, pool(graph, workers=2)) as engine:
        for _ in range(20):
            got = await engine.submit(("pass", ("pass", np.arange(200_000))))
            assert got[-1] == 199_999 and not got.flags.writeable
        lane = engine.works.lanes["process"]
        assert isinstance(lane, ProcessLane)
        del got
        lane.segments.sweep()
        # What the server itself wrote: the request's array, and an index for each hop.
        assert lane.segments.used_bytes <= 4 * 2**21


async def test_views_of_its_input_that_process_returns_stay_as_they_are() -> None:
    graph = graph_of(Views)
    async with Engine(graph, pool(graph, workers=2)) as engine:
        kept = await asyncio.gather(*map(engine.submit, range(40)))
        for _ in range(3):  # others that would get the memory
            await asyncio.gather(*map(engine.submit, range(100, 140)))
        for value, array in enumerate(kept):
            assert array.shape == (10, 300) and (array == value).all()


async def test_results_that_fill_the_memory_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(Busy)
    settings = merge(graph.name, {"busy": {}}, Source("test", {"dag": {"cpu_workers": 1, "shared_mb": 8}}))
    async with Engine(graph, settings) as engine:
        kept = [await engine.submit(("array", 1_000_000), timeout=20) for _ in range(3)]
        waiting = asyncio.create_task(engine.submit(("array", 1_000_000), timeout=20))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.shield(waiting)
        kept.clear()
        assert (await waiting).size == 1_000_000


async def test_descriptors_do_not_grow_with_tasks() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        for size in (10, 100_000, 1_000_000) * 10:
            assert (await engine.submit(("array", size))).size == size
        before = len(os.listdir("/proc/self/fd"))
        for size in (10, 100_000, 1_000_000) * 100:
            assert (await engine.submit(("array", size))).size == size
        assert len(os.listdir("/proc/self/fd")) <= before + 2


async def learn_that_it_is_short(engine: Engine) -> None:
    for number in range(60):  # what is expected falls slowly from the first time, in which much is imported
        assert await engine.submit(("add", number)) == number


async def test_short_jobs_lie_at_a_worker_and_a_crash_costs_none_of_those_behind_it() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        await learn_that_it_is_short(engine)
        got = await outcomes(engine, ("add", 1), ("kill", None), *(("add", number) for number in range(10)))
        assert isinstance(got[1], WorkerCrashed)
        assert [got[0], *got[2:]] == [1, *range(10)]
        assert engine.statistics().lanes["process"].replaced == 1


async def test_jobs_behind_one_that_takes_unexpectedly_long_go_to_another_worker() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph, workers=2)) as engine:
        await learn_that_it_is_short(engine)
        long = asyncio.create_task(engine.submit(("hang", 600)))
        assert await outcomes(engine, *(("add", number) for number in range(20))) == list(range(20))
        assert not long.done()
        long.cancel()


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_job_of_a_millisecond_lies_behind_another_while_enough_wait_for_all_workers() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        lane = lane_of(engine)
        lane._costs[0, "preprocess"] = 1e-3
        for many, lie in ((2, 1), (4, 2)):
            tasks = [asyncio.create_task(engine.submit(("hang", 0.05), timeout=20)) for _ in range(many)]
            await turns()
            assert len(lane.crew.workers[0].jobs) == lie
            assert await asyncio.gather(*tasks) == [0.05] * many
            lane._costs[0, "preprocess"] = 1e-3


async def test_jobs_of_a_millisecond_behind_one_that_takes_unexpectedly_long_go_to_another_worker() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph, workers=2)) as engine:
        lane_of(engine)._costs[0, "preprocess"] = 1e-3
        long = asyncio.create_task(engine.submit(("hang", 600)))
        assert await outcomes(engine, *(("add", number) for number in range(20))) == list(range(20))
        assert not long.done()
        long.cancel()


async def test_the_next_jobs_arguments_lie_ready_when_a_long_one_ends() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        lane, array = lane_of(engine), np.zeros(100_000)
        for is_wanted in (True, False):
            long = asyncio.create_task(engine.submit(("hang", 0.1), timeout=20))
            size = asyncio.create_task(engine.submit(("size", array), timeout=20))
            await turns()
            assert len(lane.crew.workers[0].jobs) == 1
            assert lane.segments.used_bytes >= array.nbytes
            if is_wanted:
                assert await size == array.nbytes
            else:
                size.cancel()
            await long
            await engine.submit(("add", 1))  # holds go back with the next message
            lane.segments.sweep()
            assert lane.segments.used_bytes == 0


async def test_arguments_that_lie_ready_make_room_for_those_of_a_job_whose_turn_is_before() -> None:
    graph = graph_of(Busy)
    settings = merge(graph.name, {"busy": {}}, Source("test", {"dag": {"cpu_workers": 1, "shared_mb": 8}}))
    async with Engine(graph, settings) as engine:
        lane, arrays = lane_of(engine), [np.zeros(3 * 2**20, np.uint8), np.zeros(3 * 2**20 - 1, np.uint8)]
        long = asyncio.create_task(engine.submit(("hang", 0.1), timeout=20))
        sizes = [asyncio.create_task(engine.submit(("size", array), timeout=20)) for array in arrays]
        await turns()
        assert lane.segments.used_bytes >= 3 * 2**20
        lane._entering.reverse()
        assert await asyncio.gather(*sizes) == [array.nbytes for array in arrays]
        await long


async def test_an_argument_that_cannot_cross_is_refused_when_its_turn_comes() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        orders = [("hang", 0.1), ("size", lambda: None), ("add", 3)]
        _, refused, added = await outcomes(engine, *orders)
        assert isinstance(refused, OpError) and "its arguments cannot enter the CPU pool" in refused.message
        assert added == 3


async def test_jobs_that_were_withdrawn_or_came_too_late_leave_no_memory_behind() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        await learn_that_it_is_short(engine)
        lane = engine.works.lanes["process"]
        assert isinstance(lane, ProcessLane)
        array = np.zeros(100_000)
        # A hook that turns out to be slow, and what lies behind it: some of that expires meanwhile.
        slow = asyncio.create_task(engine.submit(("hang", 0.2)))
        late = [asyncio.create_task(engine.submit(("size", array), timeout=0.1)) for _ in range(4)]
        good = [asyncio.create_task(engine.submit(("size", array))) for _ in range(4)]
        await slow
        assert all(isinstance(got, DeadlineExceeded) for got in await asyncio.gather(*late, return_exceptions=True))
        assert await asyncio.gather(*good) == [array.nbytes] * 4
        await engine.submit(("add", 1))  # holds go back with the next message
        lane.segments.sweep()
        assert lane.segments.used_bytes == 0


async def test_an_op_that_kills_worker_after_worker_is_refused_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "DEATHS", 2)
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        for _ in range(2):
            with pytest.raises(WorkerCrashed):
                await engine.submit(("kill", None), timeout=20)
        with pytest.raises(Unavailable, match="op 'busy': kills its worker processes") as refused:
            await engine.submit(("add", 1))
        assert refused.value.retry_after_s >= 1
        assert "refuses op 'busy'" in str(engine.problem())
        lane = engine.works.lanes["process"]
        assert isinstance(lane, ProcessLane)
        lane._breakers["busy"].open_until = 0.0  # the time has passed
        assert await engine.submit(("add", 1), timeout=20) == 1
        assert not lane._breakers["busy"].is_open and engine.problem() is None


async def test_a_hook_that_asks_for_too_much_memory_gets_an_error_and_its_worker_lives() -> None:
    graph = graph_of(Busy)
    settings = merge("test", {"busy": {}}, Source("test", {"dag": {"cpu_workers": 1, "worker_memory_mb": 1000}}))
    async with Engine(graph, settings) as engine:
        with pytest.raises(OpError, match=r"op 'busy' preprocess: .*MemoryError"):
            await engine.submit(("array", 4_000_000_000))
        assert await engine.submit(("add", 1)) == 1
        assert engine.statistics().lanes["process"].replaced == 0


async def test_a_worker_that_has_grown_is_replaced_and_no_request_waits_for_that() -> None:
    graph = graph_of(Busy)
    settings = merge("test", {"busy": {}}, Source("test", {"dag": {"cpu_workers": 1, "worker_memory_mb": 1000}}))
    async with Engine(graph, settings) as engine:
        old = (await engine.submit(("pid", None)))[0]
        async with asyncio.timeout(20):
            while (await engine.submit(("leak", 600_000_000))) and (await engine.submit(("pid", None)))[0] == old:
                pass
        await gone(old)
        assert engine.statistics().lanes["process"].alive == 1


async def test_hooks_that_run_as_one_task_in_a_worker_have_their_own_outcomes() -> None:
    request = Request()
    graph = Graph("test", Busy(Busy(request, name="first"), name="second"))
    async with Engine(graph, pool(graph)) as engine:
        assert engine.plan.nodes[0].chains
        assert await engine.submit(("pass", ("add", 7))) == 7
        assert await engine.submit(("reply", 3)) == 3
        with pytest.raises(OpError, match="op 'second' preprocess: ValueError: no"):
            await engine.submit(("pass", ("raise", "no")))
        with pytest.raises(OpError, match="op 'first' preprocess: ValueError: no"):
            await engine.submit(("raise", "no"))
        with pytest.raises(WorkerCrashed, match="op 'second' preprocess"):
            await engine.submit(("pass", ("kill", None)))
        with pytest.raises(WorkerCrashed, match="op 'first' preprocess"):
            await engine.submit(("kill", None), timeout=20)
        array = await engine.submit(("pass", ("array", 100_000)), timeout=20)
        assert array.sum() == 700_000


@pytest.mark.parametrize("fuse", [True, False])
async def test_a_value_that_a_later_hook_changes_crosses_as_it_was(fuse: bool) -> None:
    made = Make(Request())
    graph = Graph("test", made=made, spoiled=Spoil(made))
    settings = merge("test", {"make": {}, "spoil": {}}, Source("test", {"dag": {"cpu_workers": 1, "fuse": fuse}}))
    async with Engine(graph, settings) as engine:
        assert bool(engine.plan.fused) is fuse
        got = await engine.submit(10)
        assert (got["made"].sum(), got["spoiled"].sum()) == (0, 10)
        with pytest.raises(OpError, match="op 'spoil' preprocess: ValueError: output array is read-only"):
            await engine.submit(10_000)  # beside the message, where others may read it


async def test_a_result_that_cannot_cross_is_the_error_of_the_hook_that_made_it() -> None:
    first = Busy(Request(), name="first")
    graph = Graph("test", kept=first, last=Busy(first, name="second"))
    async with Engine(graph, pool(graph)) as engine:
        with pytest.raises(OpError, match="op 'second' preprocess: its result cannot leave the CPU pool"):
            await engine.submit(("pass", ("lambda", 1)))
        with pytest.raises(OpError, match="op 'first' preprocess: its result cannot leave the CPU pool"):
            await engine.submit(("lambda", 1))


class Warm(Op):
    """Notes the batches that it runs before any request."""

    cpu = "inline"

    def load_model(self, device: str) -> list[int]:
        return []

    def example(self) -> int:
        return 5

    def preprocess(self, x: int) -> int:
        return 10 * x

    def process(self, batch: list[int]) -> list[Any]:
        assert set(batch) <= {50, 10}
        self.model.append(len(batch))
        return [list(self.model)] * len(batch)


async def test_an_example_warms_a_replica_up() -> None:
    async with Engine(graph_of(Warm, batch_size=8)) as engine:
        assert await engine.submit(1) == [1, 8, 1]


async def test_an_example_that_fails_fails_the_start() -> None:
    class Cold(Warm):
        def example(self) -> int:
            return 1_000

    with pytest.raises(LoadError, match="op 'cold' example: AssertionError"):
        await Engine(graph_of(Cold)).start()


async def test_a_model_is_closed_in_the_thread_that_loaded_it() -> None:
    threads: list[int] = []

    class Closing:
        def close(self) -> None:
            threads.append(threading.get_ident())

    class Holding(Op):
        cpu = "inline"

        def load_model(self, device: str) -> Closing:
            threads.append(threading.get_ident())
            return Closing()

        def process(self, batch: list[Any]) -> list[Any]:
            return batch

    async with Engine(graph_of(Holding)) as engine:
        assert await engine.submit(1) == 1
    loaded, closed = threads
    assert loaded == closed != threading.get_ident()


def lane_of(engine: Engine) -> ProcessLane:
    lane = engine.works.lanes["process"]
    assert isinstance(lane, ProcessLane)
    return lane


class Held(Op):
    """A replica that lets an Item's value wait outside of the pool."""

    cpu = "inline"
    gate = threading.Event()

    def process(self, batch: list[Any]) -> list[Any]:
        assert self.gate.wait(20)
        return batch


async def test_a_value_of_a_worker_that_has_died_is_handed_on_to_another() -> None:
    graph = Graph("test", Busy(Held(Busy(Request(), name="first")), name="second"))
    watching = Watching()
    async with Engine(graph, pool(graph), observers=[watching]) as engine:
        Held.gate.clear()
        item = asyncio.create_task(engine.submit(("pass", ("size", ("array", 100_000))), timeout=20))
        made = asyncio.create_task(engine.submit(("pass", ("pass", np.zeros(100_000))), timeout=20))
        processing = engine.runners[1].processing
        assert processing is not None
        while not processing.batcher.count:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
        lane_of(engine).crew.workers[0].kill("for the test")
        await watching.one_lost.wait()
        Held.gate.set()
        assert (await made).sum() == 0
        with pytest.raises(OpError):
            await item  # a tuple has no nbytes
        assert await engine.submit(("pass", ("add", 1)), timeout=20) == 1


@pytest.mark.parametrize("is_under_way", [False, True])
async def test_a_start_that_is_given_up_leaves_nothing(is_under_way: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before a thread has begun to spawn the process, nor while it does."""
    loop = asyncio.get_running_loop()
    began, go_on = asyncio.Event(), threading.Event()
    sockets: list[socket.socket] = []

    def pair(*args: Any) -> tuple[socket.socket, socket.socket]:
        made: tuple[socket.socket, socket.socket] = socket_pair(*args)
        sockets.extend(made)
        return made

    def wait() -> None:
        loop.call_soon_threadsafe(began.set)
        assert go_on.wait(20)

    def slow(*args: Any, **options: Any) -> ProcessPoolExecutor:
        wait()
        return ProcessPoolExecutor(*args, **options)

    loop.set_default_executor(ThreadPoolExecutor(1))
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        fresh = lane_of(engine).crew._make(0)
        socket_pair = socket.socketpair
        monkeypatch.setattr(socket, "socketpair", pair)
        if is_under_way:
            monkeypatch.setattr(pool_worker, "ProcessPoolExecutor", slow)
            starting = asyncio.create_task(fresh.start())
        else:
            blocking = loop.run_in_executor(None, wait)
            starting = asyncio.create_task(fresh.start())
        await began.wait()
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        fresh.discard()
        go_on.set()
        if not is_under_way:
            await blocking
        assert fresh.ended is not None
        await fresh.ended
        assert [each.fileno() for each in sockets] == [-1] * 4
        assert await engine.submit(("add", 1), timeout=20) == 1


async def test_answers_that_lie_unread_when_a_worker_dies_are_read_first() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        await learn_that_it_is_short(engine)
        lane = lane_of(engine)
        for _ in range(3):
            lane._costs[0, "preprocess"] = 1e-5
            first = asyncio.create_task(engine.submit(("add", 1), timeout=20))
            dies = asyncio.create_task(engine.submit(("kill", 0), timeout=20))
            await asyncio.sleep(0)
            lane._flush()
            later = asyncio.create_task(engine.submit(("add", 2), timeout=20))
            assert await first == 1 and await later == 2
            with pytest.raises(WorkerCrashed):
                await dies
        assert engine.runners[0]._preparing == 0


async def test_hooks_that_hand_back_their_arguments_do_not_fill_the_memory() -> None:
    graph = graph_of(Busy)
    settings = merge(graph.name, {"busy": {}}, Source("test", {"dag": {"cpu_workers": 1, "shared_mb": 8}}))
    async with Engine(graph, settings) as engine:
        for _ in range(6):
            got = await outcomes(engine, *((("pass"), np.zeros(100_000)) for _ in range(3)))
            assert all(isinstance(one, np.ndarray) for one in got)
            del got


async def test_a_result_as_large_as_the_memory_for_results_fits() -> None:
    graph = graph_of(Busy)
    settings = merge(graph.name, {"busy": {}}, Source("test", {"dag": {"cpu_workers": 1, "shared_mb": 8}}))
    async with Engine(graph, settings) as engine:
        assert (await engine.submit(("array", 5_000_000), timeout=20)).size == 5_000_000


async def test_results_that_wait_behind_work_for_them_do_not_stop_the_pool() -> None:
    graph = Graph("test", Busy(Held(Busy(Request(), name="first")), name="second"))
    settings = merge(
        graph.name,
        {o.name: o.code_settings for o in graph.ops},
        Source("t", {"dag": {"cpu_workers": 1, "shared_mb": 8}}),
    )
    async with Engine(graph, settings) as engine:
        Held.gate.set()
        orders = [("pass", ("size", np.zeros(60_000))) for _ in range(30)]
        got = await outcomes(engine, *orders)
        assert {type(one) for one in got} <= {int, Overloaded} and got.count(480_000) > 10


async def test_a_value_that_no_packet_can_hold_costs_no_worker() -> None:
    graph = graph_of(Busy)
    async with Engine(graph, pool(graph)) as engine:
        huge = 1 << 8_000_000
        assert await engine.submit(("pass", huge), timeout=20) == huge
        with pytest.raises(ValueError, match="log_id or traceparent of more than"):
            await engine.submit(("add", 1), log_id="x" * 300_000)
        assert engine.statistics().lanes["process"].replaced == 0


async def test_an_op_that_kills_in_the_task_of_another_is_refused_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "DEATHS", 2)
    graph = Graph("test", Busy(Busy(Request(), name="first"), name="second"))
    async with Engine(graph, pool(graph)) as engine:
        for _ in range(2):
            with pytest.raises(WorkerCrashed, match="op 'second'"):
                await engine.submit(("pass", ("kill", None)), timeout=20)
        with pytest.raises(Unavailable, match="op 'second': kills"):
            await engine.submit(("pass", ("add", 1)))
        lane_of(engine)._breakers["second"].open_until = 0.0
        # The one that tries dies in the first Op: the second has not been tried.
        with pytest.raises(WorkerCrashed, match="op 'first'"):
            await engine.submit(("kill", None), timeout=20)
        assert await engine.submit(("pass", ("add", 1)), timeout=20) == 1
        assert not lane_of(engine)._breakers["second"].is_open


@pytest.mark.parametrize("cpu", ["thread", "inline", "process"])
async def test_a_request_that_failed_keeps_none_of_its_arrays(cpu: str) -> None:
    graph = graph_of(Busy, cpu=cpu)
    written = {"dag": {"cpu_workers": 1, "cpu_threads": 1}}
    settings = merge(graph.name, {"busy": {"cpu": cpu}}, Source("test", written))
    gc.disable()
    try:
        async with Engine(graph, settings) as engine:
            array = np.zeros(1000)
            alive = weakref.ref(array)
            with pytest.raises(OpError):
                await engine.submit(("raise", array))
            del array
            assert await engine.submit(("add", 1)) == 1
            assert alive() is None
    finally:
        gc.enable()


class Narrow(Op):
    """Fails where more of its hooks run at once than it allows."""

    cpu = "thread"
    cpu_concurrency = 2

    def __init__(self, *inputs: Any, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self.room = threading.Semaphore(2)
        self.both = threading.Barrier(2, timeout=5)

    def _run(self, value: Any) -> Any:
        if not self.room.acquire(blocking=False):
            raise RuntimeError("three at once")
        self.both.wait()  # two at once there are
        self.room.release()
        return value

    def preprocess(self, value: Any) -> Any:
        return self._run(value)

    def process(self, batch: list[Any]) -> list[Any]:
        return batch

    def postprocess(self, result: Any, value: Any) -> Any:
        return self._run(result)


async def test_an_op_bounds_its_hooks_in_the_thread_lane() -> None:
    graph = graph_of(Narrow)
    written = {"dag": {"cpu_threads": 8}}
    settings = merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", written))
    async with Engine(graph, settings) as engine:
        assert await outcomes(engine, *range(40)) == list(range(40))
        statistics = engine.statistics().lanes["thread"]
    assert (statistics.running, statistics.waiting) == (0, 0)


class Counting(Op):
    """Keeps how many of its hooks ran at once, at most."""

    cpu = "thread"

    def init_op(self) -> None:
        self.lock = threading.Lock()
        self.running = self.most = 0

    def _count(self, step: int) -> None:
        with self.lock:
            self.running += step
            self.most = max(self.most, self.running)

    def preprocess(self, value: Any) -> Any:
        self._count(1)
        try:
            os.sched_yield()  # lets go of the interpreter, so that others run meanwhile
            return value
        finally:
            self._count(-1)


@pytest.mark.parametrize("settings", [{"concurrency": 1}, {"concurrency": 3}, {"concurrency": 3, "timeout_ms": 20_000}])
async def test_the_thread_lane_runs_every_job_and_no_more_at_once_than_concurrency_says(settings: Any) -> None:
    graph = graph_of(Counting, **settings)
    (counting,) = graph.ops
    written = {"dag": {"cpu_threads": 8}}
    merged = merge(graph.name, {o.name: o.code_settings for o in graph.ops}, Source("test", written))
    async with Engine(graph, merged) as engine:
        for _ in range(10):
            assert await outcomes(engine, *range(200)) == list(range(200))
        statistics = engine.statistics().lanes["thread"]
    assert counting.most <= settings["concurrency"]  # type: ignore[attr-defined]
    assert (statistics.running, statistics.waiting) == (0, 0)


def test_a_place_of_a_bound_goes_to_the_job_that_came_first() -> None:
    bound, jobs = Bound(1), [object(), object()]
    bound.waiting.extend(jobs)  # type: ignore[arg-type]
    assert (bound.next(), bound.next()) == (jobs[0], None)
    bound.leave()
    assert bound.next() is jobs[1]
    bound.leave()
    assert (bound.next(), len(bound.places)) == (None, 1)


@pytest.mark.parametrize("lane", ["thread", "process"])
async def test_an_outcome_that_cannot_be_handed_back_does_not_keep_those_after_it(lane: str) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(str(context["exception"])))

    def on_done(item: Any) -> None:
        raise RuntimeError("a defect")

    graph = graph_of(Busy)
    settings = merge(graph.name, {"busy": {"cpu": lane}}, Source("test", {"dag": {"cpu_workers": 1}}))
    async with Engine(graph, settings) as engine:
        if lane == "process":
            await learn_that_it_is_short(engine)
        for number in range(3):
            engine.begin(("add", number), on_done=on_done)
        assert await outcomes(engine, *(("add", number) for number in range(5))) == [*range(5)]
    assert told == ["a defect"] * 3
