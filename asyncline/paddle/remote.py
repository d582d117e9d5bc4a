"""Models of Ops at other servers: what `server_endpoints` names, opened once for all replicas of an Op.

    RemoteModel      Open Inference Protocol, by HTTP or gRPC: Triton, KServe, asyncline
    RemotePipeline   another pipeline of Paddle's or of asyncline.paddle, by gRPC

`process` blocks its replica until the answer is there, or the deadline of the requests.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from asyncline.backends import Session, TensorInfo
from asyncline.backends.base import Array
from asyncline.client.address import Address
from asyncline.client.loop_thread import LoopThread
from asyncline.client.pipeline import PipelinePeers
from asyncline.client.pool import Pool
from asyncline.client.signature import Sample, Signature
from asyncline.paddle.hooks import remaining_s
from asyncline.paddle.pipeline_client import PipelineClient
from asyncline.paddle.predictor import Predictor

MAX_ANSWER_NBYTES = 256 * 2**20
"""Paddle's limit of a message."""

AT_ONCE = 16
"""Most requests for the rows of one feed, of a model that takes them one by one."""

T = TypeVar("T")


class Shared(ABC, Generic[T]):
    """What replicas share: the first one to load opens it, in an event loop of its own, and the last closes it."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread: LoopThread | None = None
        self._opened: Any = None

    @abstractmethod
    async def open(self) -> T: ...

    @abstractmethod
    async def close(self, opened: T) -> None: ...

    def acquire(self) -> tuple[LoopThread, T]:
        with self._lock:
            if self._thread is None:
                thread = LoopThread()
                try:
                    self._opened = thread.run(self.open())
                except BaseException:
                    thread.stop()
                    raise
                self._thread = thread
            self._users += 1
            return self._thread, self._opened

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._thread is not None:
                thread, self._thread = self._thread, None
                thread.run(self.close(self._opened))
                thread.stop()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, which opens nothing."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


class RemoteModel(Shared[tuple[Pool, Signature]]):
    """:param model: its name there.
    :param fetch: the outputs that are wanted; all by default.
    """

    def __init__(self, addresses: tuple[Address, ...], model: str, fetch: Sequence[str]) -> None:
        super().__init__()
        self.addresses = addresses
        self.model = model
        self.fetch = tuple(fetch)

    def load(self, device: str) -> Predictor:
        """:raises LoadError: nobody is there, or knows the model; or it has no such output."""
        session = RemoteSession(self)
        try:
            return Predictor(session, self.fetch)
        except BaseException:
            session.close()
            raise

    async def open(self) -> tuple[Pool, Signature]:
        pool = Pool(self.model, "", self.addresses, {}, MAX_ANSWER_NBYTES)
        try:
            return pool, Signature(await pool.open(), self.model)
        except BaseException:
            await pool.close()
            raise

    async def close(self, opened: tuple[Pool, Signature]) -> None:
        await opened[0].close()


class RemoteSession(Session):
    """A model that another server holds, as if it were here."""

    def __init__(self, model: RemoteModel) -> None:
        self._model = model
        self._thread, (self._pool, self._signature) = model.acquire()
        description = self._signature.description
        self.inputs, self.outputs = (
            tuple(TensorInfo(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)
            for tensors in (description.metadata.inputs, description.metadata.outputs)
        )
        self.max_batch_size = description.max_batch_size
        self.metadata = {}

    def run_named(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        signature = self._signature
        values = [inputs[each.name] for each in signature.inputs]
        if signature.description.batches:
            columns = signature.rows(values)
            return self._thread.run(self._ask(columns, len(columns[0]), remaining_s()))
        if all(value.ndim == len(info.shape) + 1 for value, info in zip(values, self.inputs, strict=True)):
            samples = [signature.sample(row) for row in zip(*values, strict=True)]
            return self._thread.run(self._ask_one_by_one(samples, remaining_s()))
        return self._thread.run(self._ask(signature.sample(values), 1, remaining_s()))

    async def _ask(self, columns: Sample, count: int, timeout_s: float) -> dict[str, Array]:
        response = await self._pool.infer(self._signature.request_of(columns), timeout_s)
        return self._signature.columns(response, count)

    async def _ask_one_by_one(self, samples: Sequence[Sample], timeout_s: float) -> dict[str, Array]:
        """Rows for a model that takes no batches: a request for each, and the results as rows again."""
        loop = asyncio.get_running_loop()
        expires_at = loop.time() + timeout_s
        found: list[dict[str, Array]] = []
        for start in range(0, len(samples), AT_ONCE):
            left_s = max(0.001, expires_at - loop.time())
            asked = [self._ask(each, 1, left_s) for each in samples[start : start + AT_ONCE]]
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
                found.append(outcome)
        return {name: np.stack([each[name] for each in found]) for name in found[0]} if found else {}

    def close(self) -> None:
        self._model.release()


class RemotePipeline(Shared[PipelinePeers]):
    """:param sends_tensors: whether arrays go as tensors rather than as text."""

    def __init__(self, addresses: tuple[Address, ...], *, sends_tensors: bool) -> None:
        super().__init__()
        self.addresses = addresses
        self.sends_tensors = sends_tensors

    def load(self, device: str) -> PipelineClient:
        thread, peers = self.acquire()
        return PipelineClient(thread, peers, self.release, sends_tensors=self.sends_tensors)

    async def open(self) -> PipelinePeers:
        return await PipelinePeers.open(self.addresses, MAX_ANSWER_NBYTES)

    async def close(self, opened: PipelinePeers) -> None:
        await opened.close()
