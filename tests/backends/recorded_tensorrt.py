"""A module `tensorrt` that builds and runs nothing: it keeps what it was told. Its engines double their input.

`make(10)` has the flags of TensorRT 10, `make(11)` lacks what 11 has removed. That its calls are real ones is a
test of its own, against the bindings of TensorRT-RTX.
"""

from __future__ import annotations

import enum
import json
from types import SimpleNamespace
from typing import Any

Call = tuple[Any, ...]


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


FLOAT, HALF, BF16 = Named("FLOAT"), Named("HALF"), Named("BF16")


class Context:
    def __init__(self, module: Recorded) -> None:
        self._module = module
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._module.calls.append(("set_optimization_profile_async", index, stream))
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._module.calls.append(("set_input_shape", name, shape))
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._module.calls.append(("set_tensor_address", name, address))
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._module.output_shape or self._shapes["x"]

    def execute_async_v3(self, stream: int) -> bool:
        self._module.calls.append(("execute_async_v3", stream))
        return self._module.runs


class Engine:
    """Of the profiles that its plan holds."""

    num_io_tensors = 2

    def __init__(self, module: Recorded, profiles: list[Any]) -> None:
        self._module = module
        self._profiles = profiles
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "x" else "output"

    def get_tensor_dtype(self, name: str) -> Named:
        return self._module.dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 4)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        shapes: list[list[int]] = self._profiles[index]
        return shapes

    def create_execution_context(self) -> Context | None:
        self._module.calls.append(("create_execution_context",))
        return Context(self._module)


class Runtime:
    def __init__(self, module: Recorded, logger: Any) -> None:
        self._module = module
        module.calls.append(("Runtime",))

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        self._module.calls.append(("deserialize_cuda_engine",))
        return Engine(self._module, json.loads(plan)) if plan.startswith(b"[") else None


class Network:
    num_layers = 1

    def __init__(self, module: Recorded) -> None:
        self._module = module

    def get_layer(self, index: int) -> Any:
        output = SimpleNamespace(dtype=self._module.dtype)
        return SimpleNamespace(type=self._module.layer, num_outputs=1, get_output=lambda index: output)


class Parser:
    num_errors = 1

    def __init__(self, module: Recorded) -> None:
        self._module = module

    def parse_from_file(self, path: str) -> bool:
        return self._module.parses

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(node_operator=lambda: "Foo", desc=lambda: "there is no such operator")


class Config:
    builder_optimization_level = 0

    def __init__(self, module: Recorded) -> None:
        self._module = module
        self.profiles: list[Any] = []

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self._module.calls.append(("set_memory_pool_limit", pool, size))

    def set_flag(self, flag: Any) -> None:
        self._module.calls.append(("set_flag", flag.name))

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.ranges[0])
        return len(self.profiles) - 1

    def create_timing_cache(self, blob: bytes) -> Any:
        self._module.calls.append(("create_timing_cache", blob))
        return SimpleNamespace(serialize=lambda: b"timings")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class Profile:
    def __init__(self, module: Recorded) -> None:
        self._module = module
        self.ranges: list[Any] = []

    def set_shape(self, name: str, smallest: Any, common: Any, largest: Any) -> None:
        self._module.calls.append(("set_shape", name, smallest, common, largest))
        self.ranges.append((smallest, common, largest))


class Builder:
    def __init__(self, module: Recorded) -> None:
        self._module = module

    def create_network(self, flags: int) -> Network:
        self._module.calls.append(("create_network", flags))
        return Network(self._module)

    def create_builder_config(self) -> Config:
        return Config(self._module)

    def create_optimization_profile(self) -> Profile:
        return Profile(self._module)

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        self._module.calls.append(("build_serialized_network",))
        return json.dumps(config.profiles).encode() if self._module.builds else None


class Recorded:
    """The module."""

    __name__ = "tensorrt"

    def __init__(self, version: int) -> None:
        self.__version__ = f"{version}.0"
        self.calls: list[Call] = []
        self.parses = self.builds = self.runs = True
        self.dtype, self.layer = FLOAT, "MATRIX_MULTIPLY"
        self.output_shape: tuple[int, ...] | None = None
        flags = ["TF32", "FP16", "BF16", "INT8"] if version == 10 else ["TF32"]
        self.BuilderFlag = enum.Enum("BuilderFlag", flags)
        self.NetworkDefinitionCreationFlag = enum.IntEnum("Flag", {"STRONGLY_TYPED": 1})
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.DataType = SimpleNamespace(FLOAT=FLOAT, HALF=HALF, BF16=BF16)
        self.LayerType = SimpleNamespace(QUANTIZE="QUANTIZE")
        self.TensorIOMode = SimpleNamespace(INPUT="input")

    class Logger:
        WARNING = 2

        def __init__(self, severity: int) -> None:
            pass

    def Builder(self, logger: Any) -> Builder:
        return Builder(self)

    def OnnxParser(self, network: Network, logger: Any) -> Parser:
        return Parser(self)

    def Runtime(self, logger: Any) -> Runtime:
        return Runtime(self, logger)


def make(version: int) -> Recorded:
    """A module of TensorRT 10 or 11."""
    return Recorded(version)
