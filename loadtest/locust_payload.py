"""What locust's users send: a page or a tensor, in the form of each wire, as the served graph takes it."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAGE, TENSOR = "page", "tensor"
DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


class NothingToAsk(Exception):
    """The graph takes neither a page nor tensors."""


@dataclass(frozen=True)
class Payload:
    """One request, in the form of each wire."""

    native: Any
    """Of our own clients: arrays and bytes as they are."""
    json: bytes
    """The body of `POST /{graph}`."""
    oip: bytes
    """The body of `POST /v2/models/{graph}/infer`, its tensors in binary."""
    oip_header_nbytes: int
    """Of the JSON in front of them."""


def payloads(inputs: Sequence[Mapping[str, Any]], page: Path, floats: int) -> dict[str, Payload]:
    """The payloads that a graph takes, by kind.

    :param inputs: the graph's, as `GET /v2/models/{graph}` says.
    :param page: an image.
    :param floats: the length of a dimension that the graph leaves open.
    :raises NothingToAsk: there are none; names the inputs.
    """
    numbers = {each["name"]: _array(each, floats) for each in inputs if each["datatype"] in DTYPES}
    texts = [each for each in inputs if each["datatype"] == "BYTES"]
    if len(inputs) == 1 and texts and texts[0]["name"] == "input":  # of a bare Request, which takes anything
        array = _array({"datatype": "FP32", "shape": [-1]}, floats)
        image = {"image": page.read_bytes()}
        return {
            PAGE: _payload(image, [("input", [1], "BYTES", _element(_json(image)))]),
            TENSOR: _payload({"x": array}, [("input", array.shape, "FP32", array.tobytes())]),
        }
    if len(inputs) == 1 and texts:
        name, image = texts[0]["name"], page.read_bytes()
        return {PAGE: _payload({name: image}, [(name, [1], "BYTES", _element(image))])}
    if inputs and len(numbers) == len(inputs):
        tensors = [(each["name"], numbers[each["name"]], each["datatype"]) for each in inputs]
        sections = [(name, array.shape, datatype, array.tobytes()) for name, array, datatype in tensors]
        return {TENSOR: _payload(numbers, sections)}
    listed = ", ".join(f"{each['name']} {each['datatype']} {each['shape']}" for each in inputs)
    raise NothingToAsk(f"its inputs are neither one image nor tensors of numbers: {listed or 'none'}")


def _array(described: Mapping[str, Any], floats: int) -> np.ndarray:
    """Only the last open dimension is as long as `floats` says; the others are 1."""
    shape = list(described["shape"])
    open_at = [place for place, length in enumerate(shape) if length < 0]
    for place in open_at:
        shape[place] = 1
    if open_at and open_at[-1] == len(shape) - 1:
        shape[-1] = floats
    return np.random.default_rng(1).random(shape).astype(DTYPES[described["datatype"]])


def _payload(native: Any, sections: Sequence[tuple[str, Sequence[int], str, bytes]]) -> Payload:
    described = [
        {"name": name, "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
        for name, shape, datatype, data in sections
    ]
    header = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    return Payload(native, _json(native), b"".join([header, *(section[3] for section in sections)]), len(header))


def _json(value: Any) -> bytes:
    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else b64encode(value).decode()

    return json.dumps(value, default=plain).encode()


def _element(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data
