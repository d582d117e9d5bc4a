"""Reflection: what services there are and how they are declared, for grpcurl and the like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from grpclib.const import Cardinality, Handler

from asyncline.transports.grpc.call import Call
from asyncline.transports.grpc.service import Service
from asyncline.wire.grpc import reflection


class Reflection(Service):
    """grpc.reflection, in v1 and v1alpha.

    :param services: those to tell of, besides itself.
    """

    files = reflection.files()
    open_methods = tuple(f"/{reflection.service(version)}/ServerReflectionInfo" for version in reflection.VERSIONS)

    def __init__(self, services: Iterable[Service]) -> None:
        declared = [file for service in services for file in service.files]
        self._catalogue = reflection.Catalogue([*dict.fromkeys(declared), *self.files])

    @property
    def names(self) -> set[str]:
        """Of all services."""
        return set(self._catalogue.services)

    def __mapping__(self) -> Mapping[str, Handler]:
        handler = Handler(self._info, Cardinality.STREAM_STREAM, bytes, bytes)
        return dict.fromkeys(self.open_methods, handler)

    async def _info(self, call: Call) -> None:
        async for request in call:
            await call.send_message(self._catalogue.answer(request))
