"""What a remote model takes and gives: samples to requests, answers to results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, LoadError
from asyncline.client.base import Description, Malformed
from asyncline.client.signature import Signature
from asyncline.wire.oip import InferResponse, InferTensor, ModelMetadata, TensorMetadata
from tests.wire.tensors import bytes_array

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def signature(
    inputs: Tensors,
    has: Tensors,
    max_batch_size: int | None = None,
    *,
    binary: bool = True,
    version: str = "",
    outputs: tuple[str, ...] = (),
) -> Signature:
    """Of a model that takes `inputs` and has `has` for outputs."""
    metadata = ModelMetadata(
        "m",
        tuple(TensorMetadata(name, *each) for name, each in inputs.items()),
        tuple(TensorMetadata(name, *each) for name, each in has.items()),
    )
    return Signature(Description.of(metadata, max_batch_size, binary=binary), "m", version, outputs)


def answer(**outputs: np.ndarray[Any, Any]) -> InferResponse:
    names = {"float32": "FP32", "int64": "INT64", "object": "BYTES", "uint16": "BF16"}
    return InferResponse(tuple(InferTensor(name, names[a.dtype.name], a) for name, a in outputs.items()))


ONE = signature({"x": ("FP32", (-1, 2))}, {"y": ("FP32", (-1, 2))})


def array(*numbers: float) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.float32)


# -- whether it takes batches


@pytest.mark.parametrize(
    ("x", "y", "max_batch_size", "batches", "most"),
    [
        ((-1, 2), (-1, 2), 8, True, 8),
        ((-1, 2), (-1, 2), 0, False, None),  # a length that is open, and no batch
        ((-1, 2), (-1, 2), None, True, None),
        ((1, 2), (-1, 2), None, False, None),
        ((-1, 2), (2,), None, False, None),
        ((), (-1,), None, False, None),
    ],
)
def test_batches_are_as_the_configuration_says_or_else_the_shapes(
    x: tuple[int, ...], y: tuple[int, ...], max_batch_size: int | None, batches: bool, most: int | None
) -> None:
    found = signature({"x": ("FP32", x)}, {"y": ("FP32", y)}, max_batch_size).description
    assert (found.batches, found.max_batch_size) == (batches, most)


# -- samples


@pytest.mark.parametrize(
    ("value", "dtype"),
    [([1, 2], np.float32), (np.array([1, 2], np.float64), np.float32), (np.array([1, 2], np.int8), np.float32)],
)
def test_a_sample_becomes_an_array_of_the_inputs_type(value: Any, dtype: type) -> None:
    (found,) = ONE.sample((value,))
    assert (found.dtype, found.tolist()) == (dtype, [1, 2])


def test_an_array_that_is_right_is_taken_as_it_is() -> None:
    value = array(1, 2)
    assert ONE.sample((value,))[0] is value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((array(1, 2, 3),), "input 'x': expected shape [2], got [3]"),
        ((array(1, 2)[None],), "input 'x': expected shape [2], got [1, 2]"),
        ((np.array(["a", "b"]),), "input 'x': expected FP32, got"),
        (("ab",), "input 'x': expected nested lists of numbers, got a string"),
        ((array(1, 2), array(1, 2)), "remote model 'm' has 1 inputs, got 2"),
    ],
)
def test_a_sample_that_does_not_fit_names_the_input(values: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BadRequest) as error:
        ONE.sample(values)
    assert words in error.value.message


def test_without_batches_a_sample_is_all_there_is() -> None:
    whole = signature({"x": ("FP32", (1, 2))}, {"y": ("FP32", (1, 2))})
    (found,) = whole.sample((array(1, 2)[None],))
    assert whole.request([(found,)]).inputs[0].shape == (1, 2)


@pytest.mark.parametrize("value", [b"\xff", "ü", [b"\xff"], bytes_array("a"), np.array(["a"]), np.str_("a")])
def test_strings_and_bytes_are_a_sample_of_bytes(value: Any) -> None:
    texts = signature({"x": ("BYTES", (-1, 1))}, {"y": ("FP32", (-1, 1))})
    (found,) = texts.sample((value,))
    assert found.shape == (1,)
    assert isinstance(found[0], bytes)


@pytest.mark.parametrize("value", [5, [5], [["a"]], ["a", "b"], ["a", ["b"]], None])
def test_what_is_no_string_is_no_sample_of_bytes(value: Any) -> None:
    texts = signature({"x": ("BYTES", (-1, 1))}, {"y": ("FP32", (-1, 1))})
    with pytest.raises(BadRequest, match="input 'x': expected s"):
        texts.sample((value,))


# -- requests


def test_samples_are_stacked_along_a_new_first_length() -> None:
    request = ONE.request([(array(1, 2),), (array(3, 4),)])
    assert request.inputs[0].array.tolist() == [[1, 2], [3, 4]]
    assert (request.model_name, request.outputs, request.binary_output) == ("m", (), True)


def test_the_outputs_that_are_wanted_are_asked_for() -> None:
    some = signature(
        {"x": ("FP32", (-1, 2))}, {"y": ("FP32", (-1,)), "z": ("FP32", (-1,))}, version="3", outputs=("z",)
    )
    request = some.request([(array(1, 2),)])
    assert [(output.name, output.binary) for output in request.outputs] == [("z", True)]
    assert request.model_version == "3"


def test_a_server_without_binary_tensors_is_asked_for_lists() -> None:
    plain = signature({"x": ("FP32", (-1, 2))}, {"y": ("FP32", (-1,))}, binary=False, outputs=("y",))
    request = plain.request([(array(1, 2),)])
    assert not request.wants_binary("y")


def test_several_inputs_keep_their_order() -> None:
    two = signature({"a": ("FP32", (-1, 1)), "b": ("INT64", (-1,))}, {"y": ("FP32", (-1,))})
    samples = [two.sample((array(1), np.int64(2))), two.sample((array(3), np.int64(4)))]
    assert [(each.name, each.array.tolist()) for each in two.request(samples).inputs] == [
        ("a", [[1], [3]]),
        ("b", [2, 4]),
    ]


def test_bf16_is_sent_as_its_bits_and_comes_back_as_fp32() -> None:
    half = signature({"x": ("BF16", (-1, 1))}, {"y": ("BF16", (-1, 1))})
    sample = half.sample(([1.0],))
    assert half.sample(sample)[0].tolist() == [1.0]
    request = half.request([sample])
    assert request.inputs[0].array.tolist() == [[0x3F80]]
    (result,) = half.results(answer(y=np.array([[0x4000]], np.uint16)), 1)
    assert (result.dtype, result.tolist()) == (np.float32, [2.0])


def groups(found: Signature, *samples: np.ndarray[Any, Any]) -> list[list[int]]:
    numbered = [(index, (sample,)) for index, sample in enumerate(samples)]
    return [[index for index, _ in group] for group in found.groups(numbered)]


def test_samples_of_equal_shapes_share_a_request() -> None:
    found = signature({"x": ("FP32", (-1, -1))}, {"y": ("FP32", (-1,))})
    assert groups(found, array(1), array(1, 2), array(3)) == [[0, 2], [1]]


def test_no_request_has_more_rows_than_the_model_takes() -> None:
    found = signature({"x": ("FP32", (-1, 1))}, {"y": ("FP32", (-1,))}, max_batch_size=2)
    assert groups(found, *[array(1)] * 5) == [[0, 1], [2, 3], [4]]


def test_without_batches_each_sample_is_a_request() -> None:
    found = signature({"x": ("FP32", (1,))}, {"y": ("FP32", (1,))})
    assert groups(found, array(1), array(2)) == [[0], [1]]


# -- results


def test_the_results_are_the_rows_of_the_output() -> None:
    assert [row.tolist() for row in ONE.results(answer(y=np.stack([array(1, 2), array(3, 4)])), 2)] == [[1, 2], [3, 4]]


def test_several_outputs_are_a_dict_for_each_sample() -> None:
    two = signature({"x": ("FP32", (-1, 2))}, {"y": ("FP32", (-1,)), "z": ("INT64", (-1, 1))})
    assert two.results(answer(z=np.array([[3], [4]]), y=array(1, 2), more=array(0)), 2) == [
        {"y": 1, "z": [3]},
        {"y": 2, "z": [4]},
    ]


def test_outputs_that_the_model_does_not_speak_of_are_taken_as_they_come() -> None:
    silent = signature({"x": ("FP32", (-1, 2))}, {}, max_batch_size=8)
    assert silent.results(answer(anything=array(1, 2)), 2) == [1, 2]
    with pytest.raises(Malformed, match="remote model 'm' gave no output"):
        silent.results(answer(), 2)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "output 'y' is missing"),
        ({"z": np.zeros((2, 2), np.float32)}, "output 'y' is missing"),
        ({"y": np.zeros((3, 2), np.float32)}, "output 'y' has the shape [3, 2] for 2 samples"),
        ({"y": np.zeros((2, 3), np.float32)}, "output 'y': expected FP32 [-1, 2], got FP32 [2, 3]"),
        ({"y": np.zeros(2, np.float32)}, "output 'y': expected FP32 [-1, 2], got FP32 [2]"),
        ({"y": np.zeros((2, 2), np.int64)}, "output 'y': expected FP32 [-1, 2], got INT64 [2, 2]"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(outputs: Any, words: str) -> None:
    with pytest.raises(Malformed) as error:
        ONE.results(answer(**outputs), 2)
    assert error.value.message == f"remote model 'm' {words}"


# -- models that cannot be used


@pytest.mark.parametrize(
    ("inputs", "outputs", "more", "words"),
    [
        ({}, {}, {}, "remote model 'm' does not say what its inputs are"),
        ({"x": ("FP32", (1,))}, {"y": ("FP32", (1,))}, {"outputs": ("z",)}, "has no output 'z'; it has y"),
        ({"x": ("STRING", (1,))}, {}, {}, "tensor 'x' is STRING, which the protocol does not have"),
        ({"x": ("FP32", (1,))}, {"y": ("STRING", (1,))}, {}, "tensor 'y' is STRING"),
        ({"x": ("FP16", (1,))}, {}, {"binary": False}, "tensor 'x' is FP16, but the server takes no binary tensors"),
        ({"x": ("FP32", ())}, {}, {"max_batch_size": 4}, "tensor 'x' has no batch, though its model takes batches"),
    ],
)
def test_a_model_that_cannot_be_used_says_why(inputs: Any, outputs: Any, more: Any, words: str) -> None:
    with pytest.raises(LoadError) as error:
        signature(inputs, outputs, **more)
    assert words in str(error.value)
