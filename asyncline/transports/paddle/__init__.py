"""Paddle Serving's pipeline protocol, what its two wires share: a request to a payload, an Item to an answer.

    pipeline.py   Pipeline: the way of a request in and of its answer out
    fields.py     values of a request, as the Request's fields take them
    results.py    an answer of a graph, as Paddle's ResponseOp would pack it

    request = decode_request(...)                       # wire/paddle
    item = engine.begin(pipeline.payload(request), log_id=pipeline.log_id(request), ...)
    pipeline.answer(request, item, encode_response)     # of whatever outcome
    pipeline.refusal(error, encode_response)            # where decoding or `payload` raised

Whatever becomes of a request that could be read is a PipelineResponse, and on the wire a success: `err_no` says what
went wrong. What is refused at the door (overload, drain, size, token) is an error of the wire itself.
"""

from asyncline.transports.paddle.pipeline import Pipeline

__all__ = ["Pipeline"]
