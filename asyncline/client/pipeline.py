"""PipelinePeers: a pipeline of Paddle's at other servers, by gRPC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from grpclib.exceptions import GRPCError

from asyncline.client.address import Address
from asyncline.client.balancer import Balancer
from asyncline.client.base import Malformed, malformed
from asyncline.client.endpoints import Endpoint
from asyncline.client.grpc import outcome_of
from asyncline.client.http2 import GrpcPeer, h2_context
from asyncline.client.retry import RetryPolicy
from asyncline.errors import BadRequest, DeadlineExceeded, Unavailable
from asyncline.wire.paddle import PipelineRequest, PipelineResponse, grpc

WHOM = "the remote pipeline"


class PipelinePeers:
    """The servers of one pipeline, a gRPC connection each. Belongs to the loop on which it is made."""

    def __init__(self, peers: dict[Address, GrpcPeer]) -> None:
        policy = RetryPolicy(1, random.random, comes_back=False)
        self._peers = peers
        self._balancer = Balancer(list(peers), policy, (Unavailable, DeadlineExceeded, Malformed), insists=True)

    @classmethod
    async def open(cls, addresses: Sequence[Address], max_answer_nbytes: int) -> PipelinePeers:
        """Nothing is sent yet."""
        tls = await asyncio.to_thread(h2_context) if any(address.tls for address in addresses) else None
        return cls({each: GrpcPeer(each, {}, max_answer_nbytes, tls if each.tls else None) for each in addresses})

    async def ask(self, request: PipelineRequest, timeout_s: float) -> PipelineResponse:
        """:raises RequestError: there is no answer; one whose `err_no` is not 0 is one."""
        data = grpc.encode_request(request)

        async def ask(endpoint: Endpoint, remaining_s: float) -> bytes:
            try:
                return await self._peers[endpoint.address].call(grpc.METHOD, data, WHOM, remaining_s)
            except GRPCError as error:
                raise outcome_of(error, WHOM, timeout_s) from None

        answer, _ = await self._balancer.run(ask, asyncio.get_running_loop().time() + timeout_s)
        try:
            return grpc.decode_response(answer)
        except BadRequest as error:
            raise malformed(WHOM, str(error)) from error

    async def close(self) -> None:
        for peer in self._peers.values():
            await peer.close()
