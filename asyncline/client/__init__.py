"""Calls to other servers.

remote.py       Remote: a model that another server holds, as an Op
signature.py    what such a model takes and gives: samples to requests and back, pure
pool.py         its endpoints: which one is asked, and when another
endpoints.py    that choice, pure
budget.py       how often a request may be sent again, pure
address.py      an endpoint's address
base.py         Connection: the contract of a way to an endpoint
rest.py         the Open Inference Protocol over HTTP, by aiohttp
grpc.py         the same over gRPC, by grpclib

aiohttp and grpclib are imported when a connection is made.
"""

from asyncline.client.remote import Remote

__all__ = ["Remote"]
