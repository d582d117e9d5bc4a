"""Calls to other servers: to ours, and to models that others hold.

async_client.py AsyncClient: the graphs of our servers, whatever the wire
blocking.py     Client: the same for who has no event loop
loop_thread.py  its event loop
retry.py        whether and when a call is sent again, pure
wires/          HTTP, gRPC, msgpack over TCP
tcp.py          TcpConnection: one connection of the last
frame_socket.py FrameSocket: frames in and out of its socket
tcp_calls.py    calls that wait for their answers there

remote.py       Remote: a model that another server holds, as an Op
signature.py    what such a model takes and gives: samples to requests and back, pure
joined.py       requests that are batches share one to such a model
pool.py         its endpoints: which one is asked, and when another
base.py         Connection: the contract of a way to an endpoint
rest.py         the Open Inference Protocol over HTTP
grpc.py         the same over gRPC
pipeline.py     PipelinePeers: a pipeline of Paddle's, over gRPC

balancer.py     Balancer: asks one of several servers, and another, or again
endpoints.py    which of several servers is asked, pure
budget.py       how often requests may be sent again, pure
address.py      a server's address
http.py         HttpPeer: HTTP requests to one server, by aiohttp
http2.py        GrpcPeer: gRPC calls to one server, by grpclib
goaway.py       what grpclib lacks to let a server finish that is stopping

Whatever is heavy is imported when it is first needed, and only Remote needs the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncline.client.async_client import AsyncClient
    from asyncline.client.base import Malformed, Refused
    from asyncline.client.blocking import Client
    from asyncline.client.remote import Remote

__all__ = ["AsyncClient", "Client", "Malformed", "Refused", "Remote"]

_HOMES = {
    "AsyncClient": "async_client",
    "Client": "blocking",
    "Malformed": "base",
    "Refused": "base",
    "Remote": "remote",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
