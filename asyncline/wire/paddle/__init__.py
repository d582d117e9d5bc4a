"""Paddle Serving's pipeline protocol: requests and answers to bytes and back, the same for gRPC and its REST gateway.

messages.py   what is said: PipelineRequest, PipelineResponse, PaddleTensor
tensors.py    Paddle's element types, and tensors as typed numbers
npy.py        arrays as .npy streams, without pickle
printed.py    arrays as the text that Python prints, which Paddle's client sends by default
numbers.py    Paddle's error numbers for our errors, and back
grpc.py       the messages as protobuf, in the numbering of 0.7 and later and in that of 0.4-0.6 and the Java SDK
schema.py     their descriptors, in a pool of their own
rest.py       the messages as JSON, as the gateway reads and writes it

A graph sees `PipelineRequest.values()`, a dict by key, through its fields. One that wants the messages themselves
has a Request whose class says so, and answers with a PipelineResponse, which goes out as it is:

    class RequestOp(Request):
        takes_pipeline = True       # unpack(payload) gets the PipelineRequest as it came

    class ResponseOp(Response):
        def pack(self, outputs): return PipelineResponse(key=["price"], value=["18.9"])

`PipelineRequest` and `PipelineResponse` have the names and lists of Paddle's protobuf messages, so that code written
for those reads `request.key`, `request.value[i]` and `request.logid`, and appends to `response.key`. An error of the
graph becomes its number by `number_of`; raise `PipelineError(7000, "...")` for a number of one's own choosing, a
`ProductError` for the business's. What came in and does not fit is a BadRequest, or a BadPackage where Paddle
answers 8000.
"""

from asyncline.wire.paddle.messages import PaddleTensor, PipelineRequest, PipelineResponse
from asyncline.wire.paddle.numbers import BadPackage, ErrNo, PipelineError, error_of, number_of
from asyncline.wire.paddle.tensors import ElemType

__all__ = [
    "BadPackage",
    "ElemType",
    "ErrNo",
    "PaddleTensor",
    "PipelineError",
    "PipelineRequest",
    "PipelineResponse",
    "error_of",
    "number_of",
]
