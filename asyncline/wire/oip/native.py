"""Any values as tensors of the Open Inference Protocol, and back without loss: how a client and a server of ours speak.

A request that has the parameter `native` says that its tensors are these, and wants such in the answer. Fields are
tensors of their names. A whole payload that is no dict of fields is the tensor `input`, and the request's `native` is
then `value`, else `fields`; so it is with an answer, whose one tensor is `output`.

    an array         a tensor of its datatype and shape
    str, bytes       one element of BYTES; the parameter `form` of the tensor is `text`, `bytes`
    anything else    one element of BYTES: msgpack, where arrays are extensions; `form` is `msgpack`

A server that knows nothing of this ignores the parameters, and finds arrays, texts and bytes where it expects them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from asyncline.errors import BadRequest, OpError
from asyncline.wire import msgpack
from asyncline.wire.oip.datatypes import DTYPES, Array, datatype_of
from asyncline.wire.oip.messages import MOST_TENSORS, InferTensor, of
from asyncline.wire.weight import Scale

NATIVE = "native"
FIELDS, VALUE = "fields", "value"
INPUT, OUTPUT = "input", "output"
_FORM = "form"


def to_tensors(value: Any, lone: str) -> tuple[tuple[InferTensor, ...], str]:
    """The tensors, and FIELDS or VALUE.

    :param lone: the name of one that is no field.
    :raises OpError: something has no form; names the tensor.
    """
    if isinstance(value, dict) and len(value) <= MOST_TENSORS and all(type(key) is str and key for key in value):
        return tuple(_tensor(name, each) for name, each in value.items()), FIELDS
    return (_tensor(lone, value),), VALUE


def from_tensors(tensors: Iterable[InferTensor], kind: Any, scale: Scale | None = None, *, answer: bool = False) -> Any:
    """The value.

    :param kind: FIELDS or VALUE; what else there is, is taken for FIELDS.
    :param scale: weighs msgpack; of a request.
    :param answer: it is one: arrays are read-only, and keys of maps need not be texts.
    :raises BadRequest: a tensor is not what it says, or there are several, or none, of a VALUE.
    """
    found = {tensor.name: _value(tensor, scale, answer) for tensor in tensors}
    if kind != VALUE:
        return found
    if len(found) != 1:
        raise BadRequest(f"{len(found)} tensors are said to be one value")
    return found.popitem()[1]


def _tensor(name: str, value: Any) -> InferTensor:
    with of("tensor", name):
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            datatype = datatype_of(value)
            return InferTensor(name, datatype, value.astype(DTYPES[datatype], copy=False))
        if isinstance(value, str):
            try:
                return _element(name, value.encode(), "text")
            except UnicodeEncodeError as error:
                raise OpError(str(error)) from error
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _element(name, bytes(value), "bytes")
        return _element(name, msgpack.encode(value, tensors=True), "msgpack")


def _element(name: str, data: bytes, form: str) -> InferTensor:
    array: Array = np.empty(1, object)
    array[0] = data
    return InferTensor(name, "BYTES", array, {_FORM: form})


def _value(tensor: InferTensor, scale: Scale | None, answer: bool) -> Any:
    form = tensor.parameters.get(_FORM)
    if form is None:
        array = tensor.array if answer or tensor.array.flags.writeable else tensor.array.copy()
        array.flags.writeable = not answer
        return array
    with of("tensor", tensor.name):
        if tensor.datatype != "BYTES" or tensor.array.size != 1:
            raise BadRequest(f"form {form!r} is of one element of BYTES")
        data: bytes = tensor.array.reshape(-1)[0]
        if form == "bytes":
            return data
        if form == "msgpack":
            return msgpack.decode(data, scale, answer=answer)
        if form != "text":
            raise BadRequest(f"form {form!r}: there are text, bytes and msgpack")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise BadRequest("the text is no UTF-8") from None


def is_native(parameters: Mapping[str, Any]) -> bool:
    """Whether a request or an answer says that it is of this kind."""
    return parameters.get(NATIVE) in (FIELDS, VALUE)
