"""The protobuf schema: what is generated fits what is written, and stays out of others' way."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from asyncline.wire.oip import schema
from tests.wire.generate_oip_descriptor import FOLDER

PROTO = (FOLDER / "open_inference.proto").read_text()
KINDS = {
    1: "double",
    2: "float",
    3: "int64",
    4: "uint64",
    5: "int32",
    8: "bool",
    9: "string",
    12: "bytes",
    13: "uint32",
}


def declared() -> dict[str, set[tuple[str, int, str]]]:
    """The fields of every message, as the .proto has them: {"ServerLiveResponse": {("live", 1, "bool")}}."""
    found: dict[str, set[tuple[str, int, str]]] = {}
    path: list[str] = []
    for line in PROTO.splitlines():
        line = line.partition("//")[0].strip()
        if opens := re.match(r"(message|oneof|enum|service) (\w+) \{", line):
            path.append(opens[2] if opens[1] == "message" else f"({opens[2]})")
            if opens[1] == "message":
                found[".".join(path)] = set()
            if line.endswith("}"):
                path.pop()
        elif line == "}":
            path.pop()
        elif field := re.match(r"(repeated |map<string, )?([\w.]+)>? (\w+) = (\d+);", line):
            owner = ".".join(part for part in path if not part.startswith("("))
            found[owner].add((field[3], int(field[4]), (field[1] or "") + field[2]))
    return found


def generated(message: Any, prefix: str = "") -> dict[str, set[tuple[str, int, str]]]:
    name = f"{prefix}{message.name}"
    found = {name: {(field.name, field.number, kind(field)) for field in message.fields}}
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            found |= generated(nested, f"{name}.")
    return found


def kind(field: Any) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return f"map<string, {kind(message.fields_by_name['value'])}"
    typed = message or field.enum_type
    return ("repeated " if field.is_repeated else "") + (typed.name if typed else KINDS[field.type])


def test_what_is_generated_is_what_is_written() -> None:
    file = schema.pool.FindFileByName("open_inference.proto")
    found: dict[str, set[tuple[str, int, str]]] = {}
    for message in file.message_types_by_name.values():
        found |= generated(message)
    assert found == declared()
    assert len(found) > 40
    assert set(re.findall(r"rpc (\w+)\(", PROTO)) == {
        each.name for each in file.services_by_name["GRPCInferenceService"].methods
    }


def test_the_messages_are_not_in_the_pool_of_all() -> None:
    """A client library of the protocol in the same process puts messages of the same names there; so may tests here."""
    code = (
        "from google.protobuf import descriptor_pool\n"
        "from asyncline.wire.grpc import health, schema as of_grpc\n"
        "from asyncline.wire.oip import schema\n"
        "ours = [schema.message('ModelInferRequest'), of_grpc.message('grpc.health.v1.HealthCheckRequest')]\n"
        "for each in ours:\n"
        "    try:\n"
        "        descriptor_pool.Default().FindMessageTypeByName(each.DESCRIPTOR.full_name)\n"
        "    except KeyError:\n"
        "        print('not there')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split("\n") == ["not there", "not there", ""]


def test_a_method_has_its_path() -> None:
    assert schema.method("ModelInfer") == "/inference.GRPCInferenceService/ModelInfer"
