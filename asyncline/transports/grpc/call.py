"""Call: one call of a method, from its headers to its trailers."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from grpclib.const import Handler
from grpclib.exceptions import GRPCError

from asyncline.engine.item import Item
from asyncline.engine.parts import OnPart
from asyncline.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    OpError,
    RequestError,
    Unauthenticated,
    Unavailable,
    Unsupported,
    hook_error,
)
from asyncline.transports.grpc import compression
from asyncline.transports.grpc.head import Head
from asyncline.transports.grpc.inbox import Bytes, Inbox, Message
from asyncline.transports.grpc.outbox import Outbox
from asyncline.transports.grpc.status import OK, Headers, trailers
from asyncline.transports.inflate import inflate, inflate_nowait
from asyncline.transports.threads import in_thread

if TYPE_CHECKING:
    from asyncline.transports.grpc.connection import Connection

log = logging.getLogger("asyncline.grpc")

T = TypeVar("T")

MESSAGE = "a message"


class Options(TypedDict, total=False):
    """How to run an Item otherwise than as the headers of its call say."""

    log_id: str | None
    timeout_s: float | None
    """If shorter."""
    priority: int
    """If lower, which is a larger number."""
    on_part: OnPart
    """As for `Engine.begin`."""


class Call:
    """One call, for the method that serves it.

    A method that is a plain function is called with the Call and the client's one message, when that is here, and sees
    to it that `answer` or `fail` is called in the end; `run` does so for an Item. One that is a coroutine function
    is called with the Call alone, as a task: to it the Call is what grpclib calls a stream.
    """

    def __init__(self, connection: Connection, stream_id: int, head: Head, now: float) -> None:
        self._connection = connection
        self._shared = connection.shared
        self._loop = asyncio.get_running_loop()
        self.stream_id = stream_id
        self.head = head
        self.began_at = now
        self.received_nbytes = 0
        #: When the client stops to wait, on the loop's clock; None: never.
        self.expires_at: float | None = None
        self.inbox = Inbox(
            self._shared.max_body_nbytes,
            head.encoding,
            self._shared.engine.admission.reserve,
            self._shared.engine.admission.release,
        )
        self._handler: Handler | None = None
        #: Whether the client has said all that it will.
        self.is_ended = False
        #: Whether there is nothing more to say to it, or nobody to say it to.
        self.is_done = False
        self._task: asyncio.Task[None] | None = None
        self._items: set[Item] = set()
        self._arrived: asyncio.Future[None] | None = None
        #: Called when all of `out` is written, or never will be.
        self.on_drained: Callable[[], None] | None = None
        #: Resolved when all of `out` is written, or never will be.
        self._written: asyncio.Future[None] | None = None
        #: Bytes of DATA that are here, but for which the client gets no new window yet.
        self._unacked_nbytes = 0
        #: Whether the task is one that waits for a thread, and ends soon.
        self._is_working = False
        #: For the connection, what is to be written.
        self.out = Outbox()

    @property
    def metadata(self) -> dict[str, str]:
        """All headers, by names in lower case."""
        return self.head.metadata

    # -- for the connection -------------------------------------------------------------------------

    def open(self) -> None:
        """Find the method, and start it if it is a coroutine."""
        shared, head = self._shared, self.head
        try:
            handler = self._handler = shared.methods.get(head.path)
            if handler is None:
                raise Unsupported(f"there is no method {head.path[1:129].replace('/', '.')}")
            token = shared.token
            if token is not None and head.path not in shared.open_methods:
                if not hmac.compare_digest(head.token.encode(errors="replace"), token):
                    raise Unauthenticated("a bearer token is required: send authorization: Bearer TOKEN")
            if "grpc-encoding" in head.metadata:
                compression.check(head.encoding)
                self.out.encoding = compression.chosen(head.encoding, head.accepted)
            timeout_s = head.timeout_s
            if timeout_s is not None:
                self.expires_at = self.began_at + timeout_s
        except RequestError as error:
            self.fail(error)
            return
        if asyncio.iscoroutinefunction(handler.func):
            self._task = shared.spawn(self._live(handler), f"asyncline grpc {head.path}")

    @property
    def is_settled(self) -> bool:
        """Whether the outcome is known, be it written or not."""
        return self.is_done or self.out.trailers is not None

    @property
    def is_receiving(self) -> bool:
        """Whether the client owes something: the rest of a message, or its only one."""
        if self.is_ended:
            return False
        handler = self._handler
        return self.inbox.is_partial or (handler is not None and not handler.cardinality.client_streaming)

    def received(self, data: bytes, nbytes: int) -> None:
        """:param nbytes: of the window, padding and all."""
        self.received_nbytes += nbytes
        if self.is_settled:
            self._connection.ack(self, nbytes)
            return
        inbox = self.inbox
        try:
            inbox.feed(data)
        except RequestError as error:
            self._connection.ack(self, nbytes)
            self.fail(error)
            return
        # A client that streams has to wait until what it sent has been taken.
        if inbox.messages and self._task is not None:
            self._unacked_nbytes += nbytes
            self._wake()
        else:
            self._connection.ack(self, nbytes)

    def ended(self) -> None:
        """The client has said all."""
        self.is_ended = True
        if self.is_settled:
            return
        handler = self._handler
        assert handler is not None
        inbox = self.inbox
        if inbox.is_partial:
            self.fail(BadRequest("the call ended within a message"))
        elif not handler.cardinality.client_streaming and len(inbox.messages) != 1:
            self.fail(BadRequest(f"expected one message, got {len(inbox.messages)}"))
        elif self._task is not None:
            self._wake()
        else:
            try:
                self._serve(handler, inbox.messages[0])
            except RequestError as error:
                self.fail(error)
            except Exception as error:
                self._failed(error)

    def _serve(self, handler: Handler, message: Message) -> None:
        """Call a method that is a plain function."""
        if not message.wbits:
            handler.func(self, message.data)
            return
        inflation = (message.data, message.wbits, self._shared.max_body_nbytes, MESSAGE)
        data = inflate_nowait(*inflation)
        if data is None:
            self.work(partial(inflate, *inflation), partial(self._serve_inflated, handler))
        else:
            self._serve_inflated(handler, data)

    def _serve_inflated(self, handler: Handler, data: bytes) -> None:
        messages = self.inbox.messages
        messages[0] = self._inflated(messages[0], data)
        handler.func(self, data)

    def gone(self) -> None:
        """Nobody waits for the answer any more, or it is on its way: let go of everything."""
        self.is_done = True
        self.inbox.clear()
        for item in tuple(self._items):
            item.cancel()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self.out.clear()
        self.drained()

    def drained(self) -> None:
        """All of `out` is written."""
        if self._written is not None and not self._written.done():
            self._written.set_result(None)
        if self.on_drained is not None:
            self.on_drained()

    # -- for a method: one answer -------------------------------------------------------------------

    def run(
        self, payload: Any, encode: Callable[[Item], Bytes], *, weight: int = 0, **options: Unpack[Options]
    ) -> None:
        """Run one request through the graph, and answer with what `encode` makes of its Item, however that ended;
        where `encode` raises, as `item.result()` does for an Item that failed, with that error.

        :param weight: of the payload, besides the message.
        :raises RequestError: it was refused at the door.
        """
        engine = self._shared.engine
        if weight:
            engine.reserve(weight, sum(message.nbytes for message in self.inbox.messages))
        try:
            self.begin(payload, partial(self._answer_item, encode), nbytes=weight, **options)
        except BaseException:
            engine.admission.release(weight)
            raise

    def begin(
        self, payload: Any, on_done: Callable[[Item], None], *, nbytes: int = 0, **options: Unpack[Options]
    ) -> Item:
        """Start one request; its deadline is the call's, and so are its ids. It is cancelled when the call ends.

        :param on_done: is called with the outcome, perhaps before this returns; not if the call ends first.
        :param nbytes: of the budget, given back when the Item is done.
        :raises RequestError: it was refused at the door, and `nbytes` are still the caller's.
        """
        head, shared = self.head, self._shared
        timeout_s = options.get("timeout_s")
        if self.expires_at is not None:
            left_s = self.expires_at - self._loop.time()
            if left_s <= 0:
                raise DeadlineExceeded("the deadline passed before the request was here")
            timeout_s = left_s if timeout_s is None else min(left_s, timeout_s)
        log_id = options.get("log_id")
        priority = head.priority(shared.settings.priorities)
        item = shared.engine.begin(
            payload,
            timeout_s=timeout_s,
            log_id=head.log_id if log_id is None else log_id,
            traceparent=head.traceparent,
            priority=max(priority, options.get("priority", 1)),
            wire="grpc",
            on_part=options.get("on_part"),
        )
        if item.done:
            shared.engine.admission.release(nbytes)
            on_done(item)
        else:
            self._items.add(item)
            item.on_done = partial(self._item_done, on_done, nbytes)
        return item

    def _item_done(self, on_done: Callable[[Item], None], nbytes: int, item: Item) -> None:
        self._items.discard(item)
        self._shared.engine.admission.release(nbytes)
        if self.is_settled:
            return
        try:
            on_done(item)
        except Exception as error:
            self._failed(error)

    def _answer_item(self, encode: Callable[[Item], Bytes], item: Item) -> None:
        about = self._shared.about(item, self.head)
        try:
            message = encode(item)
        except RequestError as error:
            self.fail(error, about)
        except Exception as unexpected:
            self.fail(hook_error(unexpected, "response", "encode"), about)
        else:
            self.answer(message, about)

    def answer(self, message: Bytes, about: Headers | None = None) -> None:
        """Answer with one message, and that is all.

        :param about: goes into the trailers.
        """
        if self.is_settled:
            return
        if self.out.compresses(message):
            # Off the loop: a message of the largest size takes a tenth of a second.
            compress = partial(asyncio.to_thread, compression.compress, message, self.out.encoding)
            self.work(compress, partial(self._put_last, 1, about))
        else:
            self._put_last(0, about, message)

    def _put_last(self, flag: int, about: Headers | None, message: Bytes) -> None:
        self._put(flag, message)
        self.finish(about)

    def decode(self, decode: Callable[[Bytes], T], data: Bytes, then: Callable[[T], None]) -> None:
        """Decode a long message in a thread, and then go on; the call ends with what either raises."""
        self.work(partial(in_thread, decode, data), then)

    def work(self, work: Callable[[], Awaitable[T]], then: Callable[[T], None]) -> None:
        """Wait for what threads do, and then go on; the call ends with what either raises."""
        self._is_working = True
        self._task = self._shared.spawn(self._work(work, then), f"asyncline grpc {self.head.path} in a thread")

    async def _work(self, work: Callable[[], Awaitable[T]], then: Callable[[T], None]) -> None:
        try:
            then(await work())
        except RequestError as error:
            self.fail(error)
        except Exception as error:
            self._failed(error)
        except asyncio.CancelledError:
            self.fail(Unavailable("the server is stopping"))  # if not the client left

    def finish(self, about: Headers | None = None) -> None:
        """End the call well."""
        if not self.is_settled:
            self.out.trailers = OK + about if about else OK
            self._connection.pump(self)

    def fail(self, error: RequestError | GRPCError, about: Headers | None = None) -> None:
        """End the call with an error; what was said before still goes out."""
        if self.is_settled:
            return
        if about is None and isinstance(error, RequestError):
            self._shared.engine.note_rejected(error)
            about = [("x-data-id", str(next(self._shared.engine.ids))), ("x-refused", "true")]  # nothing was run
        found = trailers(error) + (about or [])
        if isinstance(error, Unsupported):
            found.append(("grpc-accept-encoding", compression.ACCEPTED))
        self.out.trailers = found
        self._connection.pump(self)

    def _failed(self, error: Exception) -> None:
        log.error("%s: the server failed", self.head.path, exc_info=error)
        self.fail(OpError("the server failed; its log says how"))

    def _put(self, flag: int, message: Bytes) -> None:
        self._connection.added(self, self.out.put(message, flag))

    # -- for a method that is a coroutine: grpclib's stream --------------------------------------------

    async def _live(self, handler: Handler) -> None:
        try:
            async with asyncio.timeout_at(self.expires_at) as timeout:
                await handler.func(self)
            if not handler.cardinality.server_streaming and not self.out.has_begun and not self.out:
                raise OpError("the method has no answer")
        except TimeoutError as error:
            if timeout.expired():
                self.fail(DeadlineExceeded("the deadline passed"))
            else:
                self._failed(error)
        except (RequestError, GRPCError) as error:
            self.fail(error)
        except Exception as error:
            self._failed(error)
        except asyncio.CancelledError:
            self.fail(Unavailable("the server is stopping"))  # if not the client left
        else:
            self.finish()

    def stop(self) -> None:
        """The server is stopping, and what is in flight has its outcome: end a call that has no end of its own."""
        if self._task is not None and not self._is_working:
            self._task.cancel()

    async def receive(self) -> Message | None:
        """Wait for the client's next message; None after the last. Its bytes stay in the budget, until the caller
        releases them.
        """
        messages = self.inbox.messages
        while not messages:
            if self.is_done:
                raise Cancelled("the client left")
            if self.is_ended:
                return None
            self._arrived = self._loop.create_future()
            await self._arrived
        found = messages.popleft()
        if not messages and self._unacked_nbytes:
            nbytes, self._unacked_nbytes = self._unacked_nbytes, 0
            self._connection.ack(self, nbytes)
        if not found.wbits:
            return found
        try:
            data = await inflate(found.data, found.wbits, self._shared.max_body_nbytes, MESSAGE)
        except BaseException:
            self._shared.engine.admission.release(found.nbytes)
            raise
        return self._inflated(found, data)

    def _inflated(self, message: Message, data: bytes) -> Message:
        """The same message as it was, and no more of the budget than it takes."""
        self._shared.engine.admission.release(message.nbytes - len(data))
        return Message(data, len(data))

    async def recv_message(self) -> Any:
        """The client's next message, of the handler's `request_type`: parsed, or bytes. None after the last."""
        found = await self.receive()
        if found is None:
            return None
        self._shared.engine.admission.release(found.nbytes)
        assert self._handler is not None
        kind = self._handler.request_type
        if kind is bytes:
            return found.data
        try:
            return kind.FromString(found.data)
        except Exception:  # of protobuf, which is not imported here
            raise BadRequest(f"the message is no {kind.__name__}") from None

    async def send_message(self, message: Any) -> None:
        """Send one, of bytes or of protobuf; returns when it is written as far as the client takes it."""
        if self.is_done:
            raise Cancelled("the client left")
        data = message if isinstance(message, bytes | memoryview) else message.SerializeToString()
        flag = int(self.out.compresses(data))
        if flag:
            data = await asyncio.to_thread(compression.compress, data, self.out.encoding)
        self.send(data, flag)
        await self.written()

    def send(self, message: Bytes, flag: int = 0) -> None:
        """Send one, without waiting; what the client does not take yet is in `out`.

        :param flag: 1: it is compressed.
        """
        if not self.is_settled:
            self._put(flag, message)
            self._connection.pump(self)

    async def written(self) -> None:
        """Wait until the client has taken everything, or will not any more."""
        if self.out:
            self._written = self._loop.create_future()
            await self._written

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def __repr__(self) -> str:
        state = "done" if self.is_done else "answered" if self.is_settled else "open"
        return f"<Call {self.stream_id} {self.head.path} {state}>"
