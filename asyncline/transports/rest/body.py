"""A request body, of whatever media type the graph takes, to the payload for `Request.unpack`."""

from __future__ import annotations

from typing import Any

from aiohttp import BodyPartReader, web

from asyncline.errors import BadRequest, TooLarge, Unsupported
from asyncline.graph.fields import Field, Image, Text
from asyncline.graph.request import Request
from asyncline.wire import json, msgpack
from asyncline.wire.weight import Scale

RAW = ("image/", "application/octet-stream", "text/plain")
MAX_PARTS = 64
CHUNK_BYTES = 64 * 1024


def media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


class BodyDecoder:
    """Decodes the bodies that one graph accepts.

    `application/json` and `application/msgpack` carry the fields as an object, `multipart/form-data` one
    part for each. A raw body (`image/*`, `application/octet-stream`, `text/plain`) is the value of the
    graph's only required field, where that is an Image or a Text, or the payload of a bare Request.
    """

    def __init__(self, request: Request) -> None:
        self.fields = request.fields
        required = [name for name, field in request.fields.items() if field.required]
        alone = required[0] if len(required) == 1 else next(iter(request.fields), None)
        takes_raw = len(required) <= 1 and alone is not None and isinstance(request.fields[alone], (Image, Text))
        #: The field that a raw body is the value of.
        self.raw_field = alone if takes_raw else None
        #: The media types of a raw body.
        self.raw_types: tuple[str, ...] = ()
        if self.raw_field is not None:
            self.raw_types = (self.fields[self.raw_field].media_type, "application/octet-stream")
        elif not self.fields:
            self.raw_types = ("text/plain", "image/*", "application/octet-stream")

    def decode(self, body: bytes, header: str, scale: Scale | None = None) -> Any:
        """Decode a whole body that is no form.

        :param scale: weighs it.
        :raises BadRequest: malformed.
        :raises TooLarge: it weighs too much.
        :raises Unsupported: a media type that this graph does not take.
        """
        if header == "application/json":
            return json.decode(body, scale=scale)
        kind = media_type(header)
        if kind == "application/json" or kind.endswith("+json"):
            return json.decode(body, scale=scale)
        if kind in ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack"):
            return msgpack.decode(body, scale)
        if not kind and self.raw_field is None:
            return json.decode(body, scale=scale)
        if not kind or kind.startswith(RAW):
            if self.raw_field is not None:
                return {self.raw_field: body}
            if not self.fields:
                if scale is not None and kind == "text/plain":
                    scale.add_text(body)
                return Text(max_length=len(body)).parse(body) if kind == "text/plain" else body
        raise Unsupported(f"media type {kind!r} is not accepted here: send {self.accepted()}")

    def accepted(self) -> str:
        """The media types that this graph takes, for a person."""
        kinds = ["application/json", "application/msgpack"]
        if self.fields:
            kinds.append("multipart/form-data")
        return ", ".join([*kinds, *self.raw_types])

    async def form(self, request: web.BaseRequest, max_bytes: int, scale: Scale | None = None) -> dict[str, Any]:
        """Read and decode a `multipart/form-data` body of at most `max_bytes`.

        :param scale: weighs it.
        :raises BadRequest: malformed, or a part without a name or twice.
        :raises TooLarge: over the limit, or it weighs too much.
        """
        values: dict[str, Any] = {}
        try:
            reader = await request.multipart()
            while (part := await reader.next()) is not None:
                if not isinstance(part, BodyPartReader) or not part.name:
                    raise BadRequest("a part of the form has no name")
                if part.name in values:
                    raise BadRequest(f"field {part.name[:64]!r} is there twice")
                if len(values) >= MAX_PARTS:
                    raise TooLarge(f"a form has at most {MAX_PARTS} parts")
                data = bytearray()
                while chunk := await part.read_chunk(CHUNK_BYTES):
                    max_bytes -= len(chunk)
                    if max_bytes < 0:
                        raise TooLarge("the form is over the limit of a body")
                    data += chunk
                values[part.name] = self._part(part.name, bytes(data), scale)
        except (ValueError, AssertionError, RuntimeError) as error:
            raise BadRequest(f"the form is malformed: {error}") from None
        return values

    def _part(self, name: str, data: bytes, scale: Scale | None) -> Any:
        field: Field | None = self.fields.get(name)
        if field is None or isinstance(field, (Image, Text)):
            return data
        try:
            return json.decode(data, scale=scale)
        except BadRequest as error:
            raise BadRequest(f"field {name!r}: {error}") from None
