"""Model: a model file as an Op, with no class to write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncline.backends.base import Array, ModelInfo, Session, TensorInfo, check, misplaced, zeros
from asyncline.backends.joined import Joined, JoinedPadded, JoinedRows
from asyncline.backends.source import Source, kind_of
from asyncline.errors import GraphError, LoadError
from asyncline.graph.collate import Collate, Pad
from asyncline.graph.fields import DTYPES, Tensor
from asyncline.graph.op import Op, snake_case
from asyncline.graph.outcomes import Rows
from asyncline.graph.request import FieldInput, Input, Request


class Model(Op):
    """A model file as an Op: `Model("file.onnx", x, batch_size=32)`.

    Names, dtypes and shapes of its inputs come from the file, when the Op is made; the model itself is loaded once
    per replica. Each value is checked before it can be part of a batch, so that a wrong one fails alone. The result
    is the output's row, an array without the batch; where the model has several outputs, a dict of them by name.

    Without inputs it makes its own Request, whose fields are the model's inputs: `Graph("iris", Model("iris.onnx"))`
    is an app. `request_for("iris.onnx")` makes that Request for a graph that does more with it.

    :param source: the path of an ONNX file, of an exported torch program (.pt2) or of TorchScript (.pt); an
        `nn.Module`; `module:attr` of one, or of a function that makes one; or a function that makes a Session for
        a device, as `functools.partial(TensorRTSession, "net.onnx")`.
    :param inputs: one Op or field for each input of the model, in the model's order.
    :param info: what the model says of itself, where the source does not; `describe` tells it of a file.
    :param rows: every request brings a batch of its own: `[n, ...]` of every input, equal n, and so comes the result.
        It is cut where it is larger than `batch_size`, and shares batches with others where it is smaller.
    :param collate: `Pad(to=32)` lays samples together that differ in a length that the model leaves open: each input
        whose length is open along that axis is filled up, and results are cut back along the first length that their
        output leaves open, if it comes out as long as the batch was padded. Without, only equal shapes share a batch.
    :param lengths: with Pad, the name of the input that gets the true lengths, integers `[n]`; no request brings it.
    :param example: a value, or a tuple of one for each input, to warm up with; by default zeros, or nothing where
        an input has open lengths beside the batch.
    :raises GraphError: the number of inputs is wrong, `batch_size` is more than the model takes, or an output has its
        batch elsewhere than first.
    :raises LoadError: the source is missing, no model, or does not say what its inputs are.
    """

    cpu = "inline"
    warms_up = True

    def __init__(
        self,
        source: Source,
        *inputs: Input,
        info: ModelInfo | None = None,
        rows: bool = False,
        collate: Pad | None = None,
        lengths: str | None = None,
        example: Any = None,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        self._kind = kind_of(source)
        #: What the model says of itself.
        self.info = describe(source) if info is None else info
        self._example = example
        self.takes_rows = rows
        self.returns = {tensor.name: _field(tensor, rows=rows) for tensor in self.info.outputs}
        name = _name(self._kind.name) if name is None else name
        # A `process` of one's own takes what a `collate` of one's own makes.
        own = None if type(self).process is not Model.process else self.collate
        self._joined = self._join(name, rows, collate or own, lengths)
        self.collate = self._joined or self.collate
        #: The inputs that requests bring.
        self.takes = self._joined.inputs if isinstance(self._joined, JoinedPadded) else self.info.inputs
        tensors = self.takes
        if not inputs:
            request = request_for(source, ModelInfo(tensors), rows=rows)
            inputs = tuple(getattr(request, tensor.name) for tensor in tensors)
        else:
            for tensor in tensors:
                tensor.field  # noqa: B018  # raises for one that cannot be checked
        if len(inputs) != len(tensors):
            names = ", ".join(tensor.name for tensor in tensors)
            raise GraphError(f"op {name!r}: {self._kind.name} has {len(tensors)} inputs ({names}), got {len(inputs)}")
        if self.info.fixed_batch_size is not None:
            # Its run takes as long for one row as for all.
            settings.setdefault("batch_size", self.info.fixed_batch_size)
        super().__init__(*inputs, name=name, **settings)
        problem = self._too_large(self.info.max_batch_size)
        if problem is None and type(self).process is Model.process:
            problem = misplaced(self.info.outputs)
        if problem:
            raise GraphError(f"op {name!r}: {problem}")
        self._open_lengths = any(-1 in tensor.row for tensor in tensors)
        if (
            type(self).preprocess is Model.preprocess
            and self.collate is None
            and all(map(_is_checked, inputs, tensors))
        ):
            self.preprocess = None  # type: ignore[method-assign, assignment]  # as a hook is left out
        if type(self).bucket is Model.bucket and (self._joined is not None or not self._open_lengths):
            self.bucket = None  # type: ignore[method-assign, assignment]

    def load_model(self, device: str) -> Session:
        session = self._kind.open(device, self.settings.session_threads, self.info, self.settings.precision)
        problem = self._too_large(session.max_batch_size)
        if problem:
            raise LoadError(problem)
        if self._example is not None or not self._open_lengths:
            values = self.example()
            sample = check(self.takes, values if len(self.takes) > 1 else (values,))
            if isinstance(self._joined, JoinedPadded):
                for count in (1, self.settings.batch_size):
                    self._joined.run(session, *self._joined.join([sample] * count, [None] * count))
            else:
                session.warmup((1, self.settings.batch_size), sample)
        return session

    def _join(self, name: str, rows: bool, collate: Collate | None, lengths: str | None) -> Joined | None:
        if rows and collate is None and lengths is None:
            return JoinedRows(self.info.inputs)
        if collate is None and lengths is None:
            return None
        if rows or not isinstance(collate, Pad):
            asked = f"rows={rows}, collate={type(collate).__name__}, lengths={lengths!r}"
            raise GraphError(f"op {name!r}: {asked}: a Model takes rows, or Pad(to=...) and lengths with it")
        try:
            return JoinedPadded(collate, self.info, lengths)
        except ValueError as error:
            raise GraphError(f"op {name!r}: collate of {self._kind.name}: {error}") from error

    def example(self) -> Any:
        """A value, or a tuple of one for each input.

        :raises LoadError: an input has open lengths beside the batch, and no example was given.
        """
        if self._example is not None:
            return self._example
        values = tuple(map(zeros, self.takes))
        return values if len(values) > 1 else values[0]

    def preprocess(self, *values: Any) -> Array | tuple[Array, ...] | Rows:
        return check(self.takes, values) if self._joined is None else self._joined.sample(values)

    def bucket(self, sample: Array | tuple[Array, ...]) -> Any:
        return tuple(array.shape for array in sample) if isinstance(sample, tuple) else sample.shape

    def process(self, batch: Any) -> Any:
        if self._joined is not None:
            return self._joined.run(self.model, batch)
        return self.results(self.model.run_rows(batch), len(batch))

    def arrays(self, sample: Array | tuple[Array, ...]) -> tuple[Array, ...]:
        """A sample as one row of every input of the model, in order."""
        return sample if isinstance(sample, tuple) else (sample,)

    def results(self, outputs: Mapping[str, Array], count: int) -> list[Any]:
        """The result of each of `count` samples, from outputs of at least as many rows."""
        if len(outputs) == 1:
            (output,) = outputs.values()
            return list(output[:count])
        return [dict(zip(outputs, row, strict=True)) for row in list(zip(*outputs.values(), strict=True))[:count]]

    def _too_large(self, most: int | None) -> str | None:
        size = self.settings.batch_size
        if most is None or size <= most:
            return None
        return f"batch_size {size} is more than {self._kind.name} takes: at most {most}"


def describe(source: Source) -> ModelInfo:
    """What a model file says of itself; it is not loaded for that.

    :raises LoadError: it is missing, no model, or says nothing of its inputs, as TorchScript and Modules do not.
    """
    kind = kind_of(source)
    info = kind.describe()
    if info.outputs and not info.inputs:
        raise LoadError(f"{kind.name} has no inputs: there is nothing that a request could bring")
    if not info.inputs:
        raise LoadError(
            f"{kind.name} does not say what its inputs are: "
            "info=ModelInfo((TensorInfo('image', 'FP32', (-1, 3, 224, 224)),))"
        )
    return info


def request_for(source: Source, info: ModelInfo | None = None, *, rows: bool = False) -> Request:
    """A Request whose fields are the inputs of a model: one sample of each, or with `rows` a batch of each.

    :raises LoadError: as of `describe`, or an input that no request can carry.
    """
    tensors = (describe(source) if info is None else info).inputs
    return Request(**{tensor.name: tensor.rows_field if rows else tensor.field for tensor in tensors})


def _is_checked(value: Input, tensor: TensorInfo) -> bool:
    """Whether the Request has checked it already, by the same field."""
    if not isinstance(value, FieldInput) or type(value.request).unpack is not Request.unpack:
        return False
    field = value.request.fields[value.name]
    return type(field) is Tensor and field.required and (field.dtype, field.shape) == (tensor.dtype, tensor.row)


def _field(output: TensorInfo, *, rows: bool) -> Tensor | None:
    """What the result is; None where the model does not say, or numpy cannot."""
    if output.dtype not in DTYPES or not output.shape:
        return None
    return output.rows_field if rows else output.field


def _name(text: str) -> str:
    """A name for the Op: `yolo-v8.n.onnx` is `yolo_v8_n`."""
    words = snake_case(re.sub(r"\W", "_", Path(text).stem, flags=re.ASCII))
    return words if re.match(r"[a-z_]", words) else f"model_{words}"
