"""Pipeline: the served graph, as Paddle's clients see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.errors import NotFound, OpError, RequestError, public_message
from asyncline.graph.fields import Image, Text
from asyncline.transports.paddle.fields import prepared
from asyncline.transports.paddle.results import packed
from asyncline.wire.paddle import ErrNo, PipelineRequest, PipelineResponse, number_of
from asyncline.wire.paddle.messages import TEXTS
from asyncline.wire.weight import Scale

Encode = Callable[[PipelineResponse], bytes]


class Pipeline:
    """The way of a request into the graph, and of its outcome out.

    The service's name is the graph's. A graph whose Request says `takes_pipeline` gets the PipelineRequest as it came;
    any other gets its values, each as its field takes it, or all of them as one dict where the Request is bare. An
    answer that is a PipelineResponse goes out as it is.
    """

    def __init__(self, engine: Engine) -> None:
        self._name = engine.graph.name
        self._fields = engine.graph.request.fields
        #: Fields that take a string as it is.
        self._plain = {name for name, field in self._fields.items() if isinstance(field, Text | Image)}
        # Of the class: a Request takes any unknown attribute for a field.
        self._takes_pipeline = getattr(type(engine.graph.request), "takes_pipeline", False)

    def of_texts(self, name: str, method: str, keys: list[str], values: list[str]) -> Any:
        """The same as `payload` of a request that is only this, a value for each key; None where more is to be done."""
        if name != self._name:
            return None
        if self._takes_pipeline:
            return PipelineRequest(name, method, keys, values)
        payload = dict(zip(keys, values))  # noqa: B905  # to say so takes as long as all else
        return payload if not self._fields or self._plain.issuperset(payload) else None

    def payload(self, request: PipelineRequest, scale: Scale | None = None) -> Any:
        """What `Engine.begin` takes.

        :param scale: weighs what values become.
        :raises NotFound: the request names another service.
        :raises BadRequest: a value is missing, or cannot be what its field is.
        :raises TooLarge: it weighs too much.
        """
        if request.name and request.name != self._name:
            raise NotFound("Failed to inference: Service name error.")
        if self._takes_pipeline:
            return request
        values = request.values()
        if not self._fields or (not request.tensors and self._plain.issuperset(values)):
            return values
        return prepared(values, self._fields, scale)

    @staticmethod
    def log_id(request: PipelineRequest) -> str:
        """For `Engine.begin`."""
        return str(request.logid) if request.logid else ""

    def answer(self, request: PipelineRequest, item: Item, encode: Encode) -> bytes:
        """What became of the request, encoded."""
        if item.error is not None:
            return self.refusal(item.error, encode)
        try:
            if isinstance(item.value, PipelineResponse):
                return encode(_checked(item.value))
            return encode(packed(item.value, request))
        except RequestError as error:
            return encode(PipelineResponse(ErrNo.TYPE_ERROR, public_message(error)))

    @staticmethod
    def refusal(error: RequestError, encode: Encode) -> bytes:
        """An error as an answer, encoded."""
        return encode(PipelineResponse(number_of(error), public_message(error)))


def _checked(response: PipelineResponse) -> PipelineResponse:
    """:raises OpError: it holds what no message does."""
    said = (*response.key, *response.value, response.err_msg)
    if type(response.err_no) is int and not response.err_no and TEXTS.issuperset(map(type, said)):
        return response  # as most are
    if type(response.err_no) is bool or not isinstance(response.err_no, int) or not -(2**31) <= response.err_no < 2**31:
        raise OpError(f"the response's err_no is no 32-bit integer: {str(response.err_no)[:32]}")
    for name, texts in (("err_msg", [response.err_msg]), ("key", response.key), ("value", response.value)):
        for text in texts:
            if not isinstance(text, str):
                raise OpError(f"the response's {name} has a {type(text).__name__}, expected str")
    return response
