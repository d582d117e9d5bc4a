"""GrpcPeer: gRPC calls to one server, by grpclib. Messages are bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from grpclib.client import Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error

from asyncline.client.address import Address
from asyncline.client.base import CONNECT_S, broken_off, malformed, no_room, too_late, unreachable
from asyncline.client.goaway import LeavingChannel, NotRun
from asyncline.errors import RequestError

WINDOW = 16 * 2**20
"""How much the server may send before we have read it: with grpclib's 4 MiB, a larger tensor takes round trips."""

AHEAD = 8
"""Most messages of a stream that lie ready for a caller who does not take them yet."""
_PREFIX_NBYTES = 5


class BytesCodec(CodecBase):
    """Messages are bytes already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


def h2_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context


class CallFailed(GRPCError):
    """A server ended a call with a status that is not OK."""

    def __init__(self, error: GRPCError, trailers: Mapping[str, Any]) -> None:
        super().__init__(error.status, error.message)
        self.trailers = trailers


class GrpcPeer:
    """One HTTP/2 connection, made again when it is lost. Belongs to the loop on which it is made.

    :param headers: sent with every call.
    :param max_answer_nbytes: longer answers are refused.
    """

    def __init__(
        self,
        address: Address,
        headers: Mapping[str, str],
        max_answer_nbytes: int,
        tls: ssl.SSLContext | None = None,
        *,
        connect_s: float = CONNECT_S,
    ) -> None:
        self._connect_s = connect_s
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._max_answer_nbytes = max_answer_nbytes
        self._metadata = {key.lower(): value for key, value in headers.items()}
        config = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)
        self._channel = LeavingChannel(address.host, address.port, codec=BytesCodec(), ssl=tls, config=config)

    async def call(
        self, method: str, data: bytes, whom: str, timeout_s: float, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        """Call a method that takes one message and gives one.

        :param method: its path.
        :param whom: who that is, in messages.
        :param metadata: besides the headers of all calls.
        :raises CallFailed: what the server says went wrong.
        :raises Refused: there is nobody.
        :raises Unavailable: the connection broke off.
        :raises DeadlineExceeded: it took longer than `timeout_s`.
        :raises Malformed: the answer is no gRPC, compressed or too long.
        """
        # grpclib ends a call by cancelling the task that waits for it: here that task is one of its own, so that a
        # cancel of ours stays what it is.
        waiting = asyncio.current_task()
        assert waiting is not None
        cancels = waiting.cancelling()
        try:
            return await self._loop.create_task(
                self._call_here(method, data, whom, timeout_s, metadata or {}), name=f"asyncline client {method} {whom}"
            )
        except Exception:
            if waiting.cancelling() > cancels:
                raise asyncio.CancelledError from None
            raise

    async def stream(
        self, method: str, data: bytes, whom: str, timeout_s: float, metadata: Mapping[str, str] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Call a method with one message, and yield those that come.

        :raises RequestError: as of `call`; CallFailed likewise.
        """
        came: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(AHEAD)

        async def receive() -> None:
            try:
                async with self._begun(method, data, whom, timeout_s, metadata or {}, Cardinality.UNARY_STREAM) as call:
                    await call.recv_initial_metadata()
                    while (message := await self._message(call, whom)) is not None:
                        await came.put(message)
                    await call.recv_trailing_metadata()
            except Exception as error:
                await came.put(error)
            else:
                await came.put(None)

        receiving = self._loop.create_task(receive(), name=f"asyncline client {method} {whom}")
        try:
            while (message := await came.get()) is not None:
                if isinstance(message, Exception):
                    raise message
                yield message
        finally:
            receiving.cancel()
            await asyncio.wait([receiving])

    async def _call_here(
        self, method: str, data: bytes, whom: str, timeout_s: float, metadata: Mapping[str, str]
    ) -> bytes:
        async with self._begun(method, data, whom, timeout_s, metadata, Cardinality.UNARY_UNARY) as call:
            await call.recv_initial_metadata()
            message = await self._message(call, whom)
            await call.recv_trailing_metadata()
            if message is None:
                raise malformed(whom, "it is empty")
            return message

    @asynccontextmanager
    async def _begun(
        self,
        method: str,
        data: bytes,
        whom: str,
        timeout_s: float,
        metadata: Mapping[str, str],
        cardinality: Cardinality,
    ) -> AsyncIterator[Stream[bytes, bytes]]:
        """A call whose only message is sent; with the errors of grpclib made ours."""
        expires_at = self._loop.time() + timeout_s
        if not self._channel._connected:
            await self._connect(whom, timeout_s)
        call: Stream[bytes, bytes] = self._channel.request(
            method,
            cardinality,
            bytes,
            bytes,
            timeout=max(0.001, expires_at - self._loop.time()),
            metadata={**self._metadata, **metadata},
        )
        try:
            async with call:
                await call.send_message(data, end=True)
                yield call
        except TimeoutError:
            raise too_late(whom, timeout_s) from None
        except NotRun as error:
            raise no_room(whom, str(error)) from None
        except (StreamTerminatedError, OSError):
            raise broken_off(whom) from None
        except H2Error:
            # Used up, or in a state that h2 knows no way out of: the next call makes a new one.
            self._channel.close()
            raise broken_off(whom) from None
        except GRPCError as error:
            # Of a call that was cut off after its status, grpclib says the status only.
            raise CallFailed(error, dict(call._stream.trailers or call._stream.headers or ())) from None
        except RequestError:
            raise
        except AssertionError:  # of grpclib's buffer
            raise malformed(whom, "it is cut off") from None
        except Exception as error:  # grpclib and h2 take the other side's word for what headers and data are there
            raise malformed(whom, type(error).__name__) from error

    async def _connect(self, whom: str, timeout_s: float) -> None:
        """grpclib would do so by itself, but for as long as the system tries, and without telling it from a call."""
        try:
            async with asyncio.timeout(min(self._connect_s, timeout_s)):
                await self._channel.__connect__()
            if self._is_closed:
                self._channel.close()
                raise unreachable(whom)
        except OSError as error:  # TimeoutError and SSLError are such
            if isinstance(error, TimeoutError) and timeout_s <= self._connect_s:
                raise too_late(whom, timeout_s) from None
            raise unreachable(whom) from error  # which says why

    async def _message(self, call: Stream[bytes, bytes], whom: str) -> bytes | None:
        """grpclib's own `recv_message` has no limit: it takes in what the four bytes of the prefix announce."""
        with call._wrapper:
            prefix = await call._stream.recv_data(_PREFIX_NBYTES)
            if not prefix:
                return None
            if prefix[0]:
                raise malformed(whom, "it is compressed, which was not asked for")
            nbytes = int.from_bytes(prefix[1:], "big")
            if nbytes > self._max_answer_nbytes:
                raise malformed(whom, f"{nbytes} bytes are over the limit of {self._max_answer_nbytes}")
            data: bytes = await call._stream.recv_data(nbytes)
            return data

    async def close(self) -> None:
        """End the connection; what is outstanding fails."""
        self._is_closed = True
        self._channel.close()
        await asyncio.sleep(0)  # in which the transport closes its socket
