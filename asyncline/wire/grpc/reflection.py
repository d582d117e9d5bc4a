"""Messages of gRPC's server reflection, and what is answered from: the files that declare services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]

from asyncline.wire.grpc.descriptors import REFLECTION
from asyncline.wire.grpc.schema import message, parse

VERSIONS = ("v1", "v1alpha")
_NOT_FOUND, _INVALID_ARGUMENT = 5, 3
_MOST_CHARACTERS = 256
_PACKAGE = "grpc.reflection.v1"


def service(version: str) -> str:
    return f"grpc.reflection.{version}.ServerReflection"


def files() -> tuple[bytes, ...]:
    """The files that declare reflection itself, in both versions."""
    file = descriptor_pb2.FileDescriptorProto.FromString(REFLECTION)
    file.name, file.package = "reflection_v1alpha.proto", "grpc.reflection.v1alpha"
    for each in file.message_type:
        for field in each.field:
            if field.type_name:
                field.type_name = _alpha(field.type_name)
    for method in file.service[0].method:
        method.input_type, method.output_type = _alpha(method.input_type), _alpha(method.output_type)
    return REFLECTION, bytes(file.SerializeToString())


def _alpha(type_name: str) -> str:
    return type_name.replace(f".{_PACKAGE}.", ".grpc.reflection.v1alpha.")


class Catalogue:
    """What the server says of its services.

    :param declared: FileDescriptorProtos, as bytes; none imports another.
    """

    def __init__(self, declared: Iterable[bytes]) -> None:
        self._files: dict[str, bytes] = {}
        #: The file of each symbol.
        self._symbols: dict[str, bytes] = {}
        self.services: list[str] = []
        for data in declared:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            self._files[file.name] = data
            prefix = f"{file.package}." if file.package else ""
            self.services += [prefix + each.name for each in file.service]
            self._symbols.update((prefix + name, data) for name in _names(file))

    def answer(self, data: bytes | memoryview) -> bytes:
        """A ServerReflectionResponse to a ServerReflectionRequest; the messages of both versions are the same.

        :raises BadRequest: it is malformed.
        """
        request = parse(f"{_PACKAGE}.ServerReflectionRequest", data)
        response = message(f"{_PACKAGE}.ServerReflectionResponse")(valid_host=request.host[:_MOST_CHARACTERS])
        response.original_request.CopyFrom(request)
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self.services:
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            self._give(response, self._files.get(request.file_by_filename))
        elif kind == "file_containing_symbol":
            self._give(response, self._symbols.get(request.file_containing_symbol))
        elif kind in ("file_containing_extension", "all_extension_numbers_of_type"):
            self._give(response, None)
        else:
            response.error_response.error_code = _INVALID_ARGUMENT
            response.error_response.error_message = "the request asks for nothing"
        return bytes(response.SerializeToString())

    @staticmethod
    def _give(response: Any, file: bytes | None) -> None:
        if file is not None:
            response.file_descriptor_response.file_descriptor_proto.append(file)
        else:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = "there is no such thing here"


def _names(file: Any) -> Iterator[str]:
    """Of all that a file declares, without its package."""
    for each in file.service:
        yield each.name
        yield from (f"{each.name}.{method.name}" for method in each.method)
    yield from (each.name for each in file.enum_type)
    yield from _message_names("", file.message_type)


def _message_names(prefix: str, messages: Any) -> Iterator[str]:
    for each in messages:
        name = prefix + each.name
        yield name
        yield from (f"{name}.{field.name}" for field in each.field)
        yield from (f"{name}.{enum.name}" for enum in each.enum_type)
        yield from _message_names(f"{name}.", each.nested_type)
