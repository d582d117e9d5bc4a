"""What an exported program says of itself, read without torch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from asyncline import LoadError
from asyncline.backends import TensorInfo
from asyncline.backends.torch_file import read


def write(path: Path, program: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/models/model.json", json.dumps(program))
    return path


def test_two_inputs_of_one_open_batch_and_a_dict_of_outputs(tmp_path: Path) -> None:
    torch_models = pytest.importorskip("tests.backends.torch_models")
    torch = torch_models.torch
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        torch_models.Two().eval(),
        (torch.zeros(3, 3), torch.zeros(3, 1)),
        dynamic_shapes={"left": {0: batch}, "right": {0: batch}},
    )
    torch.export.save(program, tmp_path / "net.pt2")
    info = read(tmp_path / "net.pt2")
    assert info.inputs == (TensorInfo("left", "FP32", (-1, 3)), TensorInfo("right", "FP32", (-1, 1)))
    assert info.outputs == (TensorInfo("sum", "FP32", (-1, 3)), TensorInfo("product", "FP32", (-1, 3)))
    assert info.max_batch_size is None


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "uint8", "int8", "int16", "int32", "int64", "bool", "bfloat16"]
)
def test_dtypes_have_the_names_of_the_protocol(tmp_path: Path, dtype: str) -> None:
    torch_models = pytest.importorskip("tests.backends.torch_models")
    torch = torch_models.torch
    program = torch.export.export(torch_models.Same(), (torch.zeros(3, 2, dtype=getattr(torch, dtype)),))
    torch.export.save(program, tmp_path / "net.pt2")
    short = dtype.replace("bfloat", "bf").replace("float", "fp").upper()
    assert read(tmp_path / "net.pt2").inputs == (TensorInfo("x", short, (3, 2)),)


def test_a_schema_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt2", {"schema_version": {"major": 9, "minor": 0}})
    with pytest.raises(LoadError, match=r"^net\.pt2 has version 9 of torch\.export's schema; known here is 8"):
        read(path)


@pytest.mark.parametrize("program", [{}, [], 7, None, {"schema_version": {"major": 8}}, {"schema_version": 8}])
def test_a_description_that_is_none_is_refused(tmp_path: Path, program: Any) -> None:
    with pytest.raises(LoadError, match=r"^net\.pt2 is no exported program: "):
        read(write(tmp_path / "net.pt2", program))


def test_another_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(LoadError, match=r"^net\.pt2 is no exported program: save it with torch\.export\.save$"):
        read(tmp_path / "net.pt2")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^there is no model file .*net\.pt2$"):
        read(tmp_path / "net.pt2")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"schema_version": {"major": 8}, "graph_module": {"graph": true}}']
)
def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("net/models/model.json", content)
    with pytest.raises(LoadError, match=r"^net\.pt2 is no exported program: "):
        read(tmp_path / "net.pt2")


def test_a_damaged_head_of_the_zip_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tests.backends.torch_models").export(tmp_path / "net.pt2")
    whole = bytearray((tmp_path / "net.pt2").read_bytes())
    entry = whole.index(b"PK\x01\x02")
    while not whole[entry + 46 :].startswith(b"net/models/model.json"):
        entry = whole.index(b"PK\x01\x02", entry + 4)
    whole[entry + 10] = 77  # a way to compress that nobody knows
    (tmp_path / "net.pt2").write_bytes(whole)
    with pytest.raises(LoadError, match=r"^net\.pt2 is no exported program: NotImplementedError"):
        read(tmp_path / "net.pt2")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda x: (x + 1, None), "the exported program takes or returns what is no tensor: none"),
        (lambda x: {"a": {"b": x + 1, "c": x}}, "the exported program returns tensors within a dict or a list"),
    ],
)
def test_what_is_not_tensors_alone_is_said(tmp_path: Path, made: Any, says: str) -> None:
    torch_models = pytest.importorskip("tests.backends.torch_models")
    torch = torch_models.torch
    torch.export.save(torch.export.export(torch_models.Made(made), (torch.ones(2, 4),)), tmp_path / "net.pt2")
    with pytest.raises(LoadError, match=f"^{says}"):
        read(tmp_path / "net.pt2")


def test_an_output_whose_batch_is_not_first_says_where_it_is(tmp_path: Path) -> None:
    torch_models = pytest.importorskip("tests.backends.torch_models")
    torch = torch_models.torch
    shapes = ({0: torch.export.Dim("n"), 1: torch.export.Dim("length")},)
    program = torch.export.export(torch_models.Made(lambda x: x.T + 1), (torch.ones(2, 4),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    (output,) = read(tmp_path / "net.pt2").outputs
    assert output.batch_axis == 1
