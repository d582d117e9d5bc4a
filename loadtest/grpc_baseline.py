"""What one would write without asyncline: the same service by grpclib and protobuf, on the loop that we use."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import uvloop
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from asyncline.wire.oip.schema import message, method


class Echo:
    """Answers with the tensor that it gets; takes and gives protobuf's messages."""

    async def ready(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(message("ServerReadyResponse")(ready=True))

    async def infer(self, stream: Any) -> None:
        request = await stream.recv_message()
        response = message("ModelInferResponse")(model_name=request.model_name, model_version="1", id=request.id)
        for tensor in request.inputs:
            response.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.extend(request.raw_input_contents)
        await stream.send_message(response)

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            method(f"{name}"): Handler(
                function, Cardinality.UNARY_UNARY, message(f"{name}Request"), message(f"{name}Response")
            )
            for name, function in (("ServerReady", self.ready), ("ModelInfer", self.infer))
        }


async def serve() -> None:
    server = Server([Echo()])
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    port = server._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    print(f"echo on grpc://127.0.0.1:{port}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
