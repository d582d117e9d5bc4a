"""What an exported torch program (.pt2) says of itself, read without torch and without its weights.

The file is a zip; `models/model.json` in it describes the program. Names and numbers of its fields are those of
torch/_export/serde/schema.py, schema version 8.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from asyncline.backends.base import ModelInfo, TensorInfo, fixed_batch_size, with_batch_axis
from asyncline.errors import LoadError

_DTYPES = {
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64", 12: "BOOL", 13: "BF16",
    28: "UINT16", 34: "UINT32", 35: "UINT64",
}  # fmt: skip
"""ScalarType to the names of the Open Inference Protocol."""

SCHEMA_VERSION = 8
UNBOUNDED = 2**31 - 1
"""From here on a length has no limit: torch writes several large numbers for that."""


def read(path: Path) -> ModelInfo:
    """Look into an exported program.

    :raises LoadError: it is missing, no exported program, or of a version that is not known here.
    """
    if not path.is_file():
        raise LoadError(f"there is no model file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith("/models/model.json")), None)
            if name is None:
                raise LoadError(f"{path.name} is no exported program: save it with torch.export.save")
            program = json.loads(archive.read(name))
        version = program["schema_version"]["major"]
        if version != SCHEMA_VERSION:
            raise LoadError(
                f"{path.name} has version {version} of torch.export's schema; known here is {SCHEMA_VERSION}: "
                "export it again, or give its tensors, info=ModelInfo(inputs=...)"
            )
        return _info(program)
    except (
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise LoadError(f"{path.name} is no exported program: {type(error).__name__}: {error}") from error
    except OSError as error:
        raise LoadError(f"cannot read the model file {path}: {error.strerror}") from error


def _info(program: dict[str, Any]) -> ModelInfo:
    module = program["graph_module"]
    values, signature = module["graph"]["tensor_values"], module["signature"]
    found = [_name(spec["user_input"]["arg"]) for spec in signature["input_specs"] if "user_input" in spec]
    made = [_name(spec["user_output"]["arg"]) for spec in signature["output_specs"] if "user_output" in spec]
    call = module["module_call_graph"][0]["signature"]
    inputs = tuple(_tensor(name, values[name]) for name in found)
    names = output_names(json.loads(call["out_spec"])[1], len(made))
    if len(names) != len(made):
        raise LoadError("the exported program returns tensors within a dict or a list of others: return them flat")
    batch = next((symbol for name in found if (symbol := _symbol(values[name]["sizes"][:1])) is not None), None)
    outputs = tuple(
        with_batch_axis(_tensor(name, values[value]), [_symbol([size]) for size in values[value]["sizes"]], batch)
        for name, value in zip(names, made, strict=True)
    )
    most = [
        program["range_constraints"].get(symbol, {}).get("max_val")
        for name in found
        if (symbol := _symbol(values[name]["sizes"][:1])) is not None
    ]
    limits = [limit for limit in most if limit is not None and limit < UNBOUNDED]
    return ModelInfo(inputs, outputs, {}, fixed_batch_size(inputs) or min(limits, default=None))


def output_names(spec: dict[str, Any], count: int) -> list[str]:
    """Names of what a module returns: the keys of a dict, else `output`, or `output_0` and so on."""
    if str(spec["type"]).endswith("dict"):
        return [str(key) for key in json.loads(spec["context"])]
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _name(argument: dict[str, Any]) -> str:
    """The name of a tensor that goes in or comes out."""
    if "as_tensor" not in argument:
        kind = next(iter(argument), "nothing").removeprefix("as_")
        raise LoadError(f"the exported program takes or returns what is no tensor: {kind}")
    return str(argument["as_tensor"]["name"])


def _tensor(name: str, value: dict[str, Any]) -> TensorInfo:
    shape = tuple(size.get("as_int", -1) for size in value["sizes"])
    return TensorInfo(name, _DTYPES.get(value["dtype"], "OTHER"), shape)


def _symbol(sizes: list[dict[str, Any]]) -> str | None:
    """The name of an open length, as in `Symbol('s40', positive=True, integer=True)`."""
    for size in sizes:
        if "as_expr" in size:
            text = str(size["as_expr"]["expr_str"])
            return text.split("'")[1] if "'" in text else text
    return None
