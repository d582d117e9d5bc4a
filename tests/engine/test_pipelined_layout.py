"""Buckets, and the Layout of a model's batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncline import Op, Request, op
from asyncline.backends import TensorInfo
from asyncline.backends.fake_cuda import FakeDeviceSession
from asyncline.engine.lanes.accelerator import DeviceLost
from asyncline.engine.lanes.layout import Layout, NoLayout, Row, bucket_sizes, find_layout, next_bucket

from .pipelines import ROW, Device, Piped, X, Y, doubler, row


@pytest.mark.parametrize(
    ("most", "preferred", "sizes"),
    [
        (1, (), (1,)),
        (2, (), (1, 2)),
        (8, (), (1, 2, 3, 4, 6, 8)),
        (23, (), (1, 2, 3, 4, 6, 8, 12, 16, 23)),
        (40, (), (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40)),
        (8, (5, 7, 100), (1, 2, 3, 4, 5, 6, 7, 8)),
    ],
)
def test_buckets_are_these(most: int, preferred: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    assert bucket_sizes(most, preferred) == sizes


def test_less_than_a_third_of_a_bucket_is_padding() -> None:
    for most in range(1, 600):
        sizes = bucket_sizes(most)
        for count in range(1, most + 1):
            bucket = next_bucket(sizes, count)
            assert bucket is not None and 0 <= bucket - count < bucket / 3


def test_more_rows_than_the_largest_bucket_have_none() -> None:
    assert next_bucket((1, 2, 4), 5) is None


def test_a_sample_fits_by_dtypes_and_shapes() -> None:
    layout = Layout((Row("x", np.dtype(np.float32), (ROW,)), Row("n", np.dtype(np.int64), ())), {})
    number = np.array(3)
    assert layout.fits((row(1), number))
    assert not layout.fits((row(1),))
    assert not layout.fits((row(1)[:2], number))
    assert not layout.fits((row(1).astype(np.float64), number))


def piped(**settings: Any) -> Op:
    return Piped(Request(), load=lambda: None, **settings)


def test_shapes_come_from_the_model() -> None:
    layout = find_layout(piped(), doubler(Device(), batch_sizes=(5,)), 6)
    assert layout.inputs == (Row("x", np.dtype(np.float32), (ROW,)),)
    assert list(layout.outputs) == [1, 2, 3, 4, 5, 6]
    assert layout.outputs[5] == {"y": (np.dtype(np.float32), (5, ROW))}


def test_a_model_of_fewer_rows_than_batches_may_have_bounds_them() -> None:
    assert max(find_layout(piped(), doubler(Device(), max_batch_size=3), 8).outputs) == 3


OPEN = TensorInfo("x", "FP32", (-1, -1))


class Wide(FakeDeviceSession):
    """As many columns out as in."""

    def infer_outputs(self, shapes: Any) -> Any:
        return {"y": (np.dtype(np.float32), shapes["x"])}


def wide() -> FakeDeviceSession:
    return Wide(Device(), inputs=(OPEN,), outputs=(OPEN,))


def test_open_lengths_come_from_the_example_as_preprocess_makes_it() -> None:
    class Exemplary(Piped):
        def example(self) -> list[float]:
            return [1, 2, 3]

        def preprocess(self, value: list[float]) -> Any:
            return np.array(value, np.float32)

    layout = find_layout(Exemplary(Request(), load=lambda: None), wide(), 2)
    assert layout.inputs == (Row("x", np.dtype(np.float32), (3,)),)


def test_an_example_of_several_inputs_is_a_tuple() -> None:
    @op(cpu="inline")
    def same(x: Any) -> Any:
        return x

    class Exemplary(Piped):
        def example(self) -> tuple[Any, Any]:
            return row(1), row(2)[:2]

        def preprocess(self, left: Any, right: Any) -> Any:
            return np.concatenate([left, right])

    request = Request()
    layout = find_layout(Exemplary(same(request), same(request, name="other"), load=lambda: None), wide(), 2)
    assert layout.inputs[0].shape == (ROW + 2,)


class Failing(Piped):
    def example(self) -> Any:
        raise ValueError("there is none")


class Async(Piped):
    def example(self) -> Any:
        return row(1)

    async def preprocess(self, x: Any) -> Any:
        return x


class Two(Piped):
    def example(self) -> Any:
        return row(1), row(2)

    def preprocess(self, x: Any) -> Any:
        return x


class Refusing(FakeDeviceSession):
    def infer_outputs(self, shapes: Any) -> Any:
        raise RuntimeError("no")


class Summing(FakeDeviceSession):
    def infer_outputs(self, shapes: Any) -> Any:
        return {"y": (np.dtype(np.float32), ())}


@pytest.mark.parametrize(
    ("made", "model", "reason"),
    [
        (piped(), doubler(Device(), outputs=(OPEN,)), "the outputs have lengths that depend on the data"),
        (piped(), doubler(Device(), inputs=(TensorInfo("x", "BYTES", (-1,)),)), "input 'x' is of strings"),
        (piped(), wide(), "an input has open lengths, and there is no example of one"),
        (Failing(Request(), load=lambda: None), wide(), "its example fails: ValueError: there is none"),
        (Async(Request(), load=lambda: None), wide(), "there is no example of one"),
        (Two(Request(), load=lambda: None), wide(), "its example makes 2 arrays, for 1 inputs"),
        (piped(), Refusing(Device(), inputs=(X,), outputs=(Y,)), "the model runs no size of batch"),
        (piped(), Summing(Device(), inputs=(X,), outputs=(Y,)), r"output 'y' is \[\] for a batch of 1"),
    ],
)
def test_there_is_no_layout_where(made: Op, model: Any, reason: str) -> None:
    with pytest.raises(NoLayout, match=reason):
        find_layout(made, model, 4)


def test_a_lost_device_is_not_taken_for_a_size_that_the_model_refuses() -> None:
    class Losing(FakeDeviceSession):
        def infer_outputs(self, shapes: Any) -> Any:
            raise DeviceLost("cuda:0 is lost")

    with pytest.raises(DeviceLost):
        find_layout(piped(), Losing(Device(), inputs=(X,), outputs=(Y,)), 4)
