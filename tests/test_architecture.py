"""The borders of DESIGN.md §6, read from the imports of every module; and the public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import asyncline

PACKAGE = Path(asyncline.__file__).parent

# Left to right: a group imports those to its right. `asyncline` itself, the public names, stands in front
# of the engine. `settings` stands in front of `errors`, where its SettingsError lives.
LAYERS = (
    ("__main__",),
    ("cli", "paddle"),
    ("server", "tools"),
    ("loader", "testing"),
    ("transports", "client", "observe", "images", "backends", "distributed"),
    ("asyncline",),
    ("engine", "wire"),
    ("graph",),
    ("settings",),
    ("errors", "deadline", "exits", "tuning"),
)
LAYER = {name: place for place, names in enumerate(LAYERS) for name in names}

HOMES = {
    "torch": {"backends"},
    "onnxruntime": {"backends"},
    "tensorrt": {"backends"},
    "pycuda": {"backends"},
    "aiohttp": {"transports", "client", "images"},
    "grpclib": {"transports", "client"},
    "h2": {"transports", "client"},
    "google": {"wire"},
    "opentelemetry": {"observe"},
    "ray": {"distributed"},
    "ops": set(),
}
"""Heavy packages, and the groups that may import them."""
LAZY = {"torch", "onnxruntime", "tensorrt", "pycuda"}

PUBLIC = [
    "AsynclineError",
    "BadImage",
    "BadRequest",
    "Cancelled",
    "Context",
    "DeadlineExceeded",
    "Each",
    "Engine",
    "FetchFailed",
    "Graph",
    "GraphError",
    "Image",
    "Json",
    "LoadError",
    "Observer",
    "Op",
    "OpError",
    "Overloaded",
    "Pad",
    "ProductError",
    "Reply",
    "Request",
    "RequestError",
    "Response",
    "Rows",
    "SettingsError",
    "Skip",
    "Stack",
    "Tensor",
    "Text",
    "Unavailable",
    "UrlForbidden",
    "WorkerCrashed",
    "__version__",
    "context",
    "empty",
    "op",
]


@dataclass(frozen=True)
class Import:
    """One `import` of one name in one module of the package."""

    file: str
    line: int
    group: str
    """Of the module that imports."""
    target: str
    """The module that is imported, dotted."""
    lazy: bool
    """Inside a function."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]

    @property
    def target_group(self) -> str:
        """Within asyncline: `asyncline.graph.op` is of `graph`."""
        return group_of(self.target.split(".")[1:])


def group_of(parts: list[str]) -> str:
    return parts[0] if parts and parts[0] in LAYER else "asyncline" if not parts or parts == ["__init__"] else parts[0]


def imports_of(path: Path) -> Iterator[Import]:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    tree = ast.parse(path.read_text(), path.name)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ["asyncline", *parts][: -node.level]
            targets = [".".join([*base, node.module] if node.module else base)]
        elif isinstance(node, ast.ImportFrom):
            # `from asyncline import cli` may name a module as well as a public name.
            targets = [
                f"asyncline.{alias.name}" if node.module == "asyncline" and alias.name in LAYER else node.module or ""
                for alias in node.names
            ]
        else:
            continue
        for target in targets:
            yield Import("/".join(parts), node.lineno, group_of(parts), target, id(node) in inside)


# The template of `asyncline new` is a user's app.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "new_app" not in path.parts)
IMPORTS = [found for path in MODULES for found in imports_of(path)]
INNER = [found for found in IMPORTS if found.package == "asyncline"]


def test_every_module_belongs_to_a_group() -> None:
    groups = {group_of(list(path.relative_to(PACKAGE).with_suffix("").parts)) for path in MODULES}
    assert groups <= set(LAYER), "a new group needs its place in LAYERS and in DESIGN.md §6"


def test_imports_are_found() -> None:
    assert len(MODULES) > 40
    found = {(each.file, each.target, each.lazy) for each in IMPORTS}
    assert ("graph/op", "asyncline.errors", False) in found
    assert ("backends/onnx", "onnxruntime", True) in found


def test_imports_point_right_only() -> None:
    left = [
        str(each)
        for each in INNER
        if each.group != each.target_group and LAYER[each.target_group] <= LAYER[each.group]
    ]  # fmt: skip
    assert not left


@pytest.mark.parametrize("package", HOMES)
def test_a_heavy_package_is_imported_at_home_only(package: str) -> None:
    assert not [str(each) for each in IMPORTS if each.package == package and each.group not in HOMES[package]]


def test_model_runtimes_are_imported_inside_functions_only() -> None:
    assert not [str(each) for each in IMPORTS if each.package in LAZY and not each.lazy]


def test_the_package_itself_imports_the_engine_and_what_is_right_of_it() -> None:
    groups = {each.target_group for each in INNER if each.group == "asyncline"}
    assert groups <= {name for name, place in LAYER.items() if place > LAYER["asyncline"]}


# -- public names


def test_the_public_names_are_these() -> None:
    assert asyncline.__all__ == PUBLIC


def test_every_public_name_is_there() -> None:
    assert [name for name in PUBLIC if not hasattr(asyncline, name)] == []


def test_importing_asyncline_is_light() -> None:
    heavy = ["aiohttp", "onnxruntime", "torch", "PIL", "rich", "grpclib", "google.protobuf"]
    code = f"from asyncline import *; import asyncline.client, sys; print(*[n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == []
