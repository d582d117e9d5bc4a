"""Paddle Serving's pipeline classes on this engine: an existing pipeline runs after changing its imports.

    from paddle_serving_server.web_service import WebService, Op
    from paddle_serving_server.pipeline import PipelineServer, RequestOp, ResponseOp
    from paddle_serving_server.pipeline.proto import pipeline_service_pb2
    from paddle_serving_server.pipeline.channel import ChannelDataErrcode
    from paddle_serving_server.pipeline.error_catch import CustomException, ProductErrCode
    from paddle_serving_server.util import ArgsParser

become

    from asyncline.paddle import WebService, Op, PipelineServer, RequestOp, ResponseOp, ...     # all of them

and in config.yml each `model_config` to the model as an ONNX file (`paddle2onnx --model_dir ... --save_file
model.onnx`) or an exported torch program (.pt2). Then, as before, `python web_service.py`, `curl -d
'{"key": [...], "value": [...]}' http://host:http_port/name/prediction`, or Paddle's PipelineClient.

Hooks of all releases since 0.4 are taken: with `data_id` and `log_id` or without, returning tuples of all their values
or fewer. Anything that config.yml may say is read; what has no meaning here is a warning, as is an unknown key. The
environment wins over it: `ASYNCLINE_HTTP_PORT=8080`, `ASYNCLINE_OP_DET_BATCH_SIZE=8`.

What differs
    self              what a hook sets on `self` belongs to its request, so that thread Ops do not mix requests up
    concurrency       of the hooks, and of a `process` of one's own. A model has one copy a GPU, and on the CPU as many
                      as `thread_num` leaves room for
    is_thread_op      False: hooks run in the processes of the CPU pool, where the Op's class can be imported, which
                      one in the script itself cannot: its hooks run in threads, and a warning says so
    process           runs where there is a model, or where a subclass overrides it; Paddle never calls it without one
    timeout           of the whole Op, not of `process` alone; a request lives 60 s at most (`ASYNCLINE_TIMEOUT_MS`)
    retry             `process` is tried again after any exception
    batch_size        a batch that fails is split until only the bad request does; feeds of other shapes wait for their
                      like; auto_batching_timeout is only waited for where it is given
    worker_num        requests beyond it wait; beyond 512, or worker_num if that is more, they are refused at once.
                      With a channel_size, beyond that
    times             of an Op without `process` are one, of preprocess and postprocess together
    edges             may skip levels; branches get copies of what they share
    jump_to_ops       one Op, for each request by itself; check_jumping gets its ChannelData by its data_id. A loop
                      ends by the deadline at the latest, and its rounds are one time of each Op. A jump that leaves an
                      Op waiting is refused at the start
    errors            numbers are the same, texts nearly. An exception ends its request, never the service
    start             an init_op or a model that fails ends the start, and says which Op it was
    server_endpoints  with client_type pipeline_grpc, of another pipeline; else addresses of servers of the Open
                      Inference Protocol (asyncline, Triton, KServe), http://host:8000 or grpc://host:8001, and
                      client_config is the model's name there, by default the Op's. Several share the requests
    answers           arrays print with all their digits; `set_pack_format(True)` sends them as tensors
    pack_response_package   is asked for answers only; an error goes out as its number and text
    logs              go to stderr, times to /metrics; readiness is at /readyz. tracer.interval_s is 60 at most

What is refused, with what to do instead: `dag.channel_recv_frist_arrive`, `server_endpoints` of brpc, Kunlun and
Ascend devices, folders of Paddle's own models.

    op.py            Op                       hooks.py       calls of hooks, and what they set on self
    request_op.py    RequestOp                adapter.py     these Ops as Ops of ours
    response_op.py   ResponseOp               ends.py        RequestOp and ResponseOp as Ops of ours
    channel_data.py  ChannelData              feeds.py       requests laid together and taken apart
    errors.py        numbers and exceptions   predictor.py   the model of an Op; remote.py, that at another server,
                                              pipeline_client.py, that is another pipeline
                                              translate.py   settings of an Op
    server.py        PipelineServer, WebService
    keys.py, config.py, arguments.py          config.yml and -o
    build.py         from Ops to a Graph
"""

from asyncline.paddle import pipeline_service_pb2
from asyncline.paddle.arguments import ArgsParser
from asyncline.paddle.channel_data import ChannelData, ChannelDataType
from asyncline.paddle.errors import (
    ChannelDataEcode,
    ChannelDataErrcode,
    CustomException,
    CustomExceptionCode,
    ProductErrCode,
)
from asyncline.paddle.op import Op
from asyncline.paddle.request_op import RequestOp
from asyncline.paddle.response_op import ResponseOp
from asyncline.paddle.server import PipelineServer, WebService

__all__ = [
    "ArgsParser",
    "ChannelData",
    "ChannelDataEcode",
    "ChannelDataErrcode",
    "ChannelDataType",
    "CustomException",
    "CustomExceptionCode",
    "Op",
    "PipelineServer",
    "ProductErrCode",
    "RequestOp",
    "ResponseOp",
    "WebService",
    "pipeline_service_pb2",
]
