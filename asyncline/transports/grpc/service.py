"""Service: methods that the server answers by gRPC.

    class Greeter(Service):
        files = (GREETER_PROTO,)                    # for reflection: FileDescriptorProtos, as bytes

        def __init__(self, engine): ...

        def __mapping__(self):
            return {
                "/demo.Greeter/Hello": Handler(self.hello, Cardinality.UNARY_UNARY, bytes, bytes),
                "/demo.Greeter/Chat": Handler(self.chat, Cardinality.STREAM_STREAM, bytes, bytes),
            }

        def hello(self, call: Call, data: Bytes) -> None:            # a plain function: no task, so it is cheap
            call.run(decode(data), lambda item: encode(item.result()))

        async def chat(self, call: Call) -> None:                    # a coroutine function: a task of its own
            async for data in call:
                await call.send_message(data)

`GrpcTransport(engine, settings, [Greeter(engine)])` serves it. `Handler` and `Cardinality` are grpclib's, and so is the
contract of `__mapping__`: what grpclib's plug-in of protoc makes is a service too, to which the Call is its stream.

`call.run(payload, encode)` starts an Item, whose deadline, log id, traceparent and priority are what the call's headers
say, and answers with what `encode(item)` returns, its ids and times in the trailers. `encode` gets Items that failed,
too: one that answers errors with a message of its own looks at `item.error`. Where it raises, as `item.result()` does,
the call ends with the status of that error. A RequestError or a grpclib GRPCError that a method raises, be it
`call.run`'s because of a refusal at the door, ends the call likewise; any other exception is logged and becomes
INTERNAL. A client that leaves cancels the Items of its call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from grpclib.const import Handler


class Service(ABC):
    """Methods by path; see above."""

    files: Collection[bytes] = ()
    """The FileDescriptorProtos that declare it, for reflection."""
    open_methods: Collection[str] = ()
    """Paths of methods that need no token."""

    @abstractmethod
    def __mapping__(self) -> Mapping[str, Handler]: ...
