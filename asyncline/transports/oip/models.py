"""Models: the served graph and each of its Ops, as the Open Inference Protocol sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from asyncline.engine.engine import Engine
from asyncline.engine.item import Item
from asyncline.engine.processing import MOST_SAMPLES
from asyncline.errors import BadRequest, NotFound
from asyncline.graph.op import Op
from asyncline.graph.plan import Node
from asyncline.graph.request import FieldInput, Input
from asyncline.settings import devices
from asyncline.transports.oip.inputs import BARE, MOST_ROWS, Inputs, describe
from asyncline.transports.oip.outputs import Outputs, lone, returned
from asyncline.wire.oip import InferRequest, InferResponse, ModelMetadata, ServerMetadata, TensorMetadata, native
from asyncline.wire.oip.models import ModelConfig, ModelIndex, ModelStatistics, Step, Usage
from asyncline.wire.weight import Scale

VERSION = "1"
"""Of every model; a decimal number, as clients parse it as one."""
BACKEND = "asyncline"
EXTENSIONS = ("model_repository", "model_configuration", "binary_tensor_data", "parameters", "statistics")
MOST_TIMEOUT_US = 10**12


@dataclass(frozen=True)
class Options:
    """What a request asks for beside its outputs; as `Engine.begin` takes it."""

    timeout_s: float | None
    priority: int


class Models:
    """The served graph, an ensemble, and each of its Ops, a composing model of it.

    An Op has its own name, or `graph.op` where the graph has that name too. Versions are "1", or empty for whichever
    there is; any other, and any other name, is NotFound.

    :param usage: counts of the graph, by the name `""`, and of each Op by its name.
    """

    def __init__(self, engine: Engine, usage: Callable[[], Mapping[str, Usage]]) -> None:
        self._engine = engine
        self._usage = usage
        graph, settings = engine.graph, engine.plan.settings.service
        nodes = engine.plan.nodes
        sizes = [node.settings.batch_size for node in nodes if "process" in node.lanes]
        most_rows = min(sizes, default=MOST_ROWS) * MOST_SAMPLES
        self._inputs = Inputs(graph, settings.max_body_nbytes, most_rows)
        self._outputs = Outputs(graph)
        self._max_weight = settings.max_decoded_nbytes
        self._priorities = settings.priorities
        self._nodes = {self._op_name(node.op): node for node in nodes}
        #: The graph's first.
        self.names = (graph.name, *self._nodes)

    def _op_name(self, op: Op) -> str:
        graph = self._engine.graph.name
        return op.name if op.name != graph else f"{graph}.{op.name}"

    # -- what is said of models

    @property
    def server_metadata(self) -> ServerMetadata:
        from asyncline import __version__

        return ServerMetadata("asyncline", __version__, EXTENSIONS)

    def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """:raises NotFound: there is no such model."""
        node = self._find(name, version)
        if node is None:
            inputs, outputs, platform = self._inputs.metadata, self._outputs.metadata, "ensemble"
        else:
            inputs = tuple(describe(label, lone(value)) for label, value in _labels(node.op).items())
            outputs = tuple(describe(each, field) for each, field in returned(node.op).items())
            platform = BACKEND
            if "process" in node.lanes and not node.op.takes_rows:
                inputs, outputs = _with_batch(inputs), _with_batch(outputs)
        return ModelMetadata(name, inputs, outputs, (VERSION,), platform)

    def config(self, name: str, version: str = "") -> ModelConfig:
        """:raises NotFound: there is no such model."""
        metadata = self.metadata(name, version)
        node = self._nodes.get(name)
        max_batch_size = self._inputs.max_batch_size
        if node is not None:
            max_batch_size = node.settings.batch_size if "process" in node.lanes else 0
        config = ModelConfig(
            name=name,
            platform=metadata.platform,
            inputs=_without_batch(metadata.inputs) if max_batch_size else metadata.inputs,
            outputs=_without_batch(metadata.outputs) if max_batch_size else metadata.outputs,
            max_batch_size=max_batch_size,
        )
        if node is None:
            steps = tuple(map(self._step, self._nodes.values()))
            decoupled = self._engine.graph.streams
            return replace(config, optional=self._inputs.optional, steps=steps, decoupled=decoupled)
        config = replace(config, backend=BACKEND, instances=node.settings.replicas)
        if not max_batch_size:
            return config
        return replace(
            config,
            gpus=_gpus(node.settings.device),
            dynamic_batching=True,
            max_queue_delay_us=int(node.settings.max_delay_ms * 1e3),
        )

    def _step(self, node: Node) -> Step:
        inputs = {label: self._tensor(value, label) for label, value in _labels(node.op).items()}
        outputs = {each: self._tensor(node.op, each) for each in returned(node.op)}
        return Step(self._op_name(node.op), inputs, outputs)

    def _tensor(self, value: Input, part: str) -> str:
        """The ensemble's tensor that a part of a value is: an output of it, or else named as the Op or the input."""
        for name, output in self._engine.graph.response.outputs.items():
            if output is value and (found := part if name is None else name) in self._outputs.known:
                return found
        return _label(value)

    def is_ready(self, name: str, version: str = "") -> bool:
        """:raises NotFound: there is no such model."""
        self._find(name, version)
        return self._engine.problem() is None

    def statistics(self, name: str = "", version: str = "") -> tuple[ModelStatistics, ...]:
        """Of one model, or of all.

        :raises NotFound: there is no such model.
        """
        if name:
            self._find(name, version)
        usage = self._usage()
        return tuple(
            ModelStatistics(each, VERSION, usage[self._nodes[each].name if each in self._nodes else ""])
            for each in ((name,) if name else self.names)
        )

    def index(self, *, ready: bool = False) -> tuple[ModelIndex, ...]:
        """The repository's index.

        :param ready: only of models that are.
        """
        problem = self._engine.problem()
        if problem is None:
            return tuple(ModelIndex(name, VERSION, "READY") for name in self.names)
        return () if ready else tuple(ModelIndex(name, VERSION, "UNAVAILABLE", problem) for name in self.names)

    def _find(self, name: str, version: str) -> Node | None:
        """The Op of that name; None for the graph."""
        if name not in self.names:
            raise NotFound(f"there is no model {name[:64]!r} (there are: {', '.join(self.names)})")
        if version not in ("", VERSION):
            raise NotFound(f"model {name!r} has no version {version[:32]!r} (there is: {VERSION})")
        return self._nodes.get(name)

    # -- one request

    def raw_input(self, name: str, version: str = "") -> TensorMetadata:
        """The only input of the graph, whose raw bytes a request may be as they are.

        :raises BadRequest: it has several.
        """
        self.check_runs(name, version)
        if len(self._inputs.metadata) != 1:
            raise BadRequest(f"model {name!r} has {len(self._inputs.metadata)} inputs: raw bytes do not tell which")
        return self._inputs.metadata[0]

    @property
    def batches(self) -> bool:
        """Whether the first length of the graph's tensors is a batch."""
        return self._inputs.max_batch_size > 0

    def check_runs(self, name: str, version: str = "") -> None:
        """:raises NotFound: there is no such model.
        :raises BadRequest: it is that of an Op.
        """
        if self._find(name, version) is not None:
            graph = self._engine.graph.name
            raise BadRequest(f"model {name!r} is an op of graph {graph!r} and is not run alone: infer {graph!r}")

    def scale(self) -> Scale:
        """For what a request is decoded to."""
        return Scale(self._max_weight)

    def payload(self, request: InferRequest, scale: Scale | None = None) -> Any:
        """What `Engine.begin` takes.

        :param scale: weighs what is in elements of BYTES.
        :raises NotFound: there is no such model.
        :raises BadRequest: a tensor is missing, unknown, or of a wrong datatype or shape; an output is unknown.
        :raises TooLarge: it weighs too much.
        """
        self.check_runs(request.model_name, request.model_version)
        if request.parameters.get("sequence_id"):
            raise BadRequest("parameter 'sequence_id': sequences are not served; every request stands alone")
        if native.is_native(request.parameters):
            return native.from_tensors(request.inputs, request.parameters[native.NATIVE], scale)
        self._outputs.check(request.outputs)
        return self._inputs.payload(request.inputs, scale)

    def options(self, request: InferRequest) -> Options:
        """The parameters `timeout` (µs; 0: none) and `priority` (1 is the highest; 0: the default).

        :raises BadRequest: one is no such number.
        """
        timeout_us = _number(request, "timeout", MOST_TIMEOUT_US)
        priority = _number(request, "priority", 2**32)
        return Options(timeout_us / 1e6 if timeout_us else None, min(priority or 1, self._priorities))

    def response(self, request: InferRequest, answer: Any) -> InferResponse:
        """The answer to `request`: from the Item that has it, where it came in parts the list of them; or from a value,
        which may be one part.

        :raises RequestError: the Item has no answer.
        :raises OpError: the answer lacks an output, or has one that the protocol cannot carry; names it.
        """
        value = answer.result() if isinstance(answer, Item) else answer
        if native.is_native(request.parameters):
            tensors, kind = native.to_tensors(value, native.OUTPUT)
            return InferResponse(tensors, request.model_name, VERSION, request.id, {native.NATIVE: kind})
        if isinstance(answer, Item) and self._engine.graph.streams:
            outputs = self._outputs.listed(value, request.outputs)
        else:
            outputs = self._outputs.tensors(value, request.outputs)
        return InferResponse(
            outputs,
            model_name=request.model_name,
            model_version=VERSION,
            id=request.id,
        )


def _number(request: InferRequest, name: str, most: int) -> int:
    value = request.parameters.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise BadRequest(f"parameter {name!r}: expected a whole number from 0 to {most}")
    return value


def _labels(op: Op) -> dict[str, Input]:
    """The inputs of an Op by names of their own: one that it takes twice is `x` and `x_2`."""
    found: dict[str, Input] = {}
    for value in op.inputs:
        label, count = _label(value), 1
        while label in found:
            count += 1
            label = f"{_label(value)}_{count}"
        found[label] = value
    return found


def _label(value: Input) -> str:
    return value.name if isinstance(value, (Op, FieldInput)) else BARE


def _with_batch(tensors: tuple[TensorMetadata, ...]) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(each.name, each.datatype, (-1, *each.shape)) for each in tensors)


def _without_batch(tensors: tuple[TensorMetadata, ...]) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(each.name, each.datatype, each.shape[1:]) for each in tensors)


def _gpus(device: str) -> tuple[int, ...]:
    return tuple(int(each.partition(":")[2]) for each in devices(device) if each != "cpu")
