"""Remote: a model that another server holds, as an Op."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from asyncline.client.address import Address
from asyncline.client.joined import Joined, JoinedRows
from asyncline.client.pool import Pool
from asyncline.client.signature import Sample, Signature
from asyncline.engine.context import context
from asyncline.errors import (
    BadRequest,
    DeadlineExceeded,
    GraphError,
    LoadError,
    Overloaded,
    RequestError,
    Unavailable,
)
from asyncline.graph.collate import gather
from asyncline.graph.op import Op, snake_case
from asyncline.graph.outcomes import Rows
from asyncline.graph.request import Input
from asyncline.wire.oip.datatypes import Array

TIMEOUT_MS = 10_000
"""Longest time of a batch, where the Op's `timeout_ms` does not say."""

_HEADER = re.compile(r"[\w.-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[ -~]+")

_NOT_THEIRS = (Unavailable, Overloaded, DeadlineExceeded)
"""Errors that say nothing about the samples of a batch."""


ROWS = 64
"""Most rows of a request of rows, where neither the Op's `batch_size` nor the model says."""


class _Checked(tuple[Array, ...]):
    """A Sample that has been checked."""

    __slots__ = ()


@dataclass(frozen=True)
class RemoteModel:
    """What `load_model` makes: where to ask, and what."""

    pool: Pool
    signature: Signature


class Remote(Op):
    """A model of Triton, KServe, MLServer or another asyncline: `Remote("http://gpu:8000", "resnet50", x)`.

    Batches are formed here, and each goes there as one request where the model takes batches, else sample by sample.
    A value is an array without the batch, checked by what the model says of itself, so that a wrong one fails alone.
    The result is the output's row; where there are several outputs, a dict of them by name. BF16 is taken and given
    as FP32, BYTES as arrays of `bytes`.

    Of several endpoints the one with the fewest requests outstanding is asked. One that fails is left alone for a
    growing while, up to 10 s. A request that was not run, because an endpoint could not be reached or had no room,
    is sent once more to another one, if that is not more than a tenth of all requests; or to the same when there is no
    other and it said when to come back (Retry-After of HTTP), within the deadline.

    :param endpoints: `http://host:8000`, `grpc://host:8001` (with TLS `https`, `grpcs`), or a list of them.
    :param model: its name there; also that of the Op, unless `name` says otherwise.
    :param inputs: one Op or field for each input of the model, in the order of its metadata.
    :param version: empty: the server chooses.
    :param outputs: the names of the outputs to ask for; all by default.
    :param rows: every request brings a batch of its own: `[n, ...]` of every input, equal n, and so comes the result.
        It goes as one request where it has no more rows than `batch_size`, by default 64, and the model take; larger
        ones are cut, smaller ones share a request with others.
    :param headers: sent with every request, as `{"Authorization": "Bearer ..."}`.
    :param max_answer_mb: largest answer in MB (10⁶ bytes).
    :raises GraphError: an endpoint or a header is malformed.
    """

    cpu = "inline"
    concurrency = 8

    def __init__(
        self,
        endpoints: str | Sequence[str],
        model: str,
        *inputs: Input,
        version: str = "",
        outputs: str | Sequence[str] = (),
        rows: bool = False,
        headers: Mapping[str, str] | None = None,
        max_answer_mb: float = 64,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        self._takes_rows = rows
        if rows:
            self.collate = JoinedRows()
            if "batch_size" not in self._settings_in_class:
                settings.setdefault("batch_size", ROWS)
        super().__init__(*inputs, name=_name(model) if name is None else name, **settings)
        try:
            addresses = tuple(map(Address.parse, [endpoints] if isinstance(endpoints, str) else endpoints))
        except ValueError as error:
            raise GraphError(f"op {self.name!r}: {error}") from error
        if not addresses:
            raise GraphError(f"op {self.name!r} has no endpoint")
        if len(set(addresses)) < len(addresses):
            raise GraphError(f"op {self.name!r}: an endpoint is there twice")
        for key, value in (headers or {}).items():
            if not _HEADER.fullmatch(key) or not _HEADER_VALUE.fullmatch(value):
                raise GraphError(f"op {self.name!r}: header {key!r} cannot be sent")  # its value may be a secret
        self._remote = _Shared(
            addresses,
            model,
            str(version),
            (outputs,) if isinstance(outputs, str) else tuple(outputs),
            dict(headers or {}),
            int(max_answer_mb * 1e6),
        )

    async def load_model(self, device: str) -> RemoteModel:
        remote = await self._remote.open()
        expected = [each.name for each in remote.signature.inputs]
        # A `preprocess` of one's own may make the values of several inputs from one.
        if type(self).preprocess is Remote.preprocess and len(self.inputs) != len(expected):
            names = ", ".join(expected)
            raise LoadError(
                f"remote model {self._remote.model!r} has {len(expected)} inputs ({names}), got {len(self.inputs)}"
            )
        if self._takes_rows and not remote.signature.description.batches:
            raise LoadError(f"remote model {self._remote.model!r} takes no batches, so no rows either")
        return remote

    def preprocess(self, *values: Any) -> Any:
        signature = self._remote.signature
        return Rows(signature.rows(values)) if self._takes_rows else _Checked(signature.sample(values))

    def bucket(self, sample: Any) -> Hashable:
        """By the shapes: one batch is one request."""
        if self._takes_rows:
            return None  # JoinedRows knows
        arrays = sample if isinstance(sample, tuple) else (sample,)
        return tuple([getattr(array, "shape", None) for array in arrays])

    async def process(self, batch: Any) -> Any:
        """Run samples: what `preprocess` made, or where it is one's own, arrays or tuples of one for each input.

        The time for it ends with the last deadline among them, or with the Op's `timeout_ms`.

        :raises RequestError: the one request that they made failed by what they are; where they made several, or
            where the endpoint is at fault, the samples get the error as their result: to try them one by one, as is
            done with a batch that raises, would not help them, and still less the endpoint.
        """
        if isinstance(batch, Joined):
            return await self._ask_rows(batch)
        signature: Signature = self.model.signature
        results: list[Any] = [None] * len(batch)
        samples: list[tuple[int, Sample]] = []
        for index, sample in enumerate(batch):
            if isinstance(sample, _Checked):
                samples.append((index, sample))
                continue
            try:
                samples.append((index, signature.sample(sample if isinstance(sample, tuple) else (sample,))))
            except BadRequest as error:
                results[index] = error
        groups = signature.groups(samples)
        timeout_s = self._timeout_s()
        if len(groups) == 1:
            await self._ask(results, groups[0], timeout_s, alone=True)
            return results
        async with asyncio.TaskGroup() as tasks:
            for group in groups:
                asking = self._ask(results, group, timeout_s, alone=False)
                tasks.create_task(asking, name=f"asyncline {self.name}.process")
        return results

    async def _ask_rows(self, joined: Joined) -> Any:
        """The outputs, or where the endpoint is at fault the error of every sample."""
        remote: RemoteModel = self.model
        signature, timeout_s = remote.signature, self._timeout_s()
        # A `preprocess` of one's own has not checked them.
        checked = type(self).preprocess is Remote.preprocess
        columns = joined.columns if checked else signature.rows(joined.columns)
        count = len(columns[0])
        most = signature.description.max_batch_size or count

        async def ask(start: int) -> dict[str, Array] | RequestError:
            part = [column[start : start + most] for column in columns]
            try:
                response = await remote.pool.infer(signature.request_of(part), timeout_s, _traceparent())
                return signature.columns(response, len(part[0]))
            except RequestError as error:
                return error

        starts = range(0, count, most)
        if len(starts) == 1:
            found = [await ask(0)]
        else:
            async with asyncio.TaskGroup() as tasks:
                name = f"asyncline {self.name}.process"
                asked = [tasks.create_task(ask(start), name=name) for start in starts]
            found = [each.result() for each in asked]
        errors = [each for each in found if isinstance(each, RequestError)]
        for error in errors:
            if not isinstance(error, _NOT_THEIRS):
                raise error
        if errors:
            return [copy(errors[0]) for _ in range(joined.samples)]
        outputs = gather(found, [min(most, count - start) for start in starts])
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _timeout_s(self) -> float:
        timeout_s: float = (self.settings.timeout_ms or TIMEOUT_MS) / 1e3
        try:
            return min(timeout_s, max(0.001, context().remaining_s))  # until the last deadline of the batch
        except LookupError:  # called by hand
            return timeout_s

    async def _ask(self, results: list[Any], group: list[tuple[int, Sample]], timeout_s: float, *, alone: bool) -> None:
        remote: RemoteModel = self.model
        found: list[Any]
        try:
            response = await remote.pool.infer(
                remote.signature.request([sample for _, sample in group]), timeout_s, _traceparent()
            )
            found = remote.signature.results(response, len(group))
        except RequestError as error:
            if alone and not isinstance(error, _NOT_THEIRS):
                raise
            found = [copy(error) for _ in group]
        for (index, _), result in zip(group, found, strict=True):
            results[index] = result

    async def close_op(self) -> None:
        await self._remote.close()


class _Shared:
    """What the replicas of a Remote have in common: one pool of connections, and what the model said of itself."""

    def __init__(
        self,
        addresses: tuple[Address, ...],
        model: str,
        version: str,
        outputs: tuple[str, ...],
        headers: Mapping[str, str],
        max_answer_nbytes: int,
    ) -> None:
        self.model = model
        self._addresses = addresses
        self._version = version
        self._outputs = outputs
        self._headers = headers
        self._max_answer_nbytes = max_answer_nbytes
        self._opening: asyncio.Future[RemoteModel] | None = None

    @property
    def signature(self) -> Signature:
        assert self._opening is not None, "load_model comes first"
        return self._opening.result().signature

    async def open(self) -> RemoteModel:
        """The first replica asks; the others wait for what it finds.

        :raises LoadError: as of Pool and Signature.
        """
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name=f"asyncline client opens {self.model}")
        return await asyncio.shield(self._opening)

    async def _open(self) -> RemoteModel:
        pool = Pool(self.model, self._version, self._addresses, self._headers, self._max_answer_nbytes)
        try:
            return RemoteModel(pool, Signature(await pool.open(), self.model, self._version, self._outputs))
        except BaseException:
            await pool.close()
            raise

    async def close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().pool.close()


def _traceparent() -> str | None:
    """The W3C trace context of the request that a batch is of; None of several: a header holds no more than one."""
    try:
        return context().traceparent
    except LookupError:  # called by hand
        return None


def _name(model: str) -> str:
    """A name for the Op: `resnet-50` is `resnet_50`."""
    words = snake_case(re.sub(r"\W", "_", model, flags=re.ASCII))
    return words if re.match(r"[a-z_]", words) else f"model_{words}"
