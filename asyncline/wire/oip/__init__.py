"""The Open Inference Protocol (KServe v2, as Triton speaks it): requests and answers to bytes and back.

messages.py            what is said, the same for both wires: InferRequest, InferResponse, ModelMetadata, ...
models.py              what a server says of its models: ModelConfig, ModelStatistics, ModelIndex
datatypes.py           its datatypes, tensors as raw bytes and as JSON lists
rest.py                JSON bodies of inference, with tensors as lists or as raw bytes behind the JSON
rest_metadata.py       other bodies: metadata, configuration, errors
native.py              any values as tensors and back, between a client and a server of ours
spans.py               long lists of numbers in JSON, read piece by piece
objects.py             values out of JSON objects
grpc.py                messages of the gRPC service for inference, with tensors as raw bytes or as typed contents
grpc_metadata.py       its other messages: metadata, configuration
schema.py              its protobuf messages, in a pool of their own
open_inference.proto   where they are declared; descriptor.py is made from it

Both directions are here, for clients and for servers. What came in and does not fit is a BadRequest that names the
tensor, whoever sent it; what cannot be written is an OpError, or a BadRequest where the reader asked for a form that
it does not have. Raw tensors are not copied: arrays are views of the message. protobuf is imported
with the gRPC part only.
"""

from asyncline.wire.oip.messages import (
    InferRequest,
    InferResponse,
    InferTensor,
    ModelMetadata,
    RequestedOutput,
    ServerMetadata,
    TensorMetadata,
)

__all__ = [
    "InferRequest",
    "InferResponse",
    "InferTensor",
    "ModelMetadata",
    "RequestedOutput",
    "ServerMetadata",
    "TensorMetadata",
]
