"""An ONNX file of a Net, written as onnx.proto says: neither serving nor this needs the onnx package."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtest.models_nets import INPUT, KERNEL, OUTPUT, Array, Net

IR_VERSION, OPSET = 8, 17
Attributes = Mapping[str, int | Sequence[int]]
_FLOAT, _INT, _INTS = 1, 2, 7
"""TensorProto.FLOAT; AttributeProto.INT and INTS."""


def save(net: Net, path: Path) -> Path:
    """Write `net` with an open batch; returns `path`."""
    nodes: list[bytes] = []
    weights: list[bytes] = []
    value = INPUT

    def add(kind: str, attributes: Attributes, *arrays: Array, output: str = "") -> None:
        nonlocal value
        names = [f"w{len(weights) + place}" for place in range(len(arrays))]
        weights.extend(map(_tensor, names, arrays))
        output = output or f"v{len(nodes)}"
        nodes.append(_node(kind, [value, *names], output, attributes))
        value = output

    for kernel, bias, stride in net.convolutions:
        attributes = {"kernel_shape": [KERNEL] * 2, "pads": [KERNEL // 2] * 4, "strides": [stride] * 2}
        add("Conv", attributes, kernel, bias)
        add("Relu", {})
    if net.convolutions:
        add("GlobalAveragePool", {})
        add("Flatten", {})
    for place, (matrix, bias) in enumerate(net.dense, 1):
        is_last = place == len(net.dense)
        add("Gemm", {"transB": 1}, matrix, bias, output=OUTPUT if is_last else "")
        if not is_last:
            add("Relu", {})
    (entry,), (end,) = net.info.inputs, net.info.outputs
    graph = _message(
        *((1, node) for node in nodes),
        (2, "net"),
        *((5, tensor) for tensor in weights),
        (11, _value(INPUT, entry.row)),
        (12, _value(OUTPUT, end.row)),
    )
    path.write_bytes(_message((1, IR_VERSION), (7, graph), (8, _message((1, ""), (2, OPSET)))))
    return path


def _node(kind: str, inputs: list[str], output: str, attributes: Attributes) -> bytes:
    fields = [_attribute(name, value) for name, value in attributes.items()]
    return _message(*((1, name) for name in inputs), (2, output), (4, kind), *((5, field) for field in fields))


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, _INT))
    return _message((1, name), *((8, number) for number in value), (20, _INTS))


def _tensor(name: str, array: Array) -> bytes:
    return _message(*((1, length) for length in array.shape), (2, _FLOAT), (8, name), (9, array.tobytes()))


def _value(name: str, row: tuple[int, ...]) -> bytes:
    lengths = [_message((2, "n")), *(_message((1, length)) for length in row)]
    shape = _message(*((1, length) for length in lengths))
    return _message((1, name), (2, _message((1, _message((1, _FLOAT), (2, shape))))))


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """Fields by number; protobuf's wire format."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint(number << 3), _varint(value)]
        else:
            data = value.encode() if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2), _varint(len(data)), data]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
