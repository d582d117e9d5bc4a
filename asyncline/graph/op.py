"""Op: one step of a pipeline, written by the user."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from asyncline.errors import GraphError, SettingsError
from asyncline.graph.collate import Collate
from asyncline.graph.fields import Tensor
from asyncline.graph.request import Input, Request
from asyncline.settings import Cpu, OpSettings, check_op_settings

HOOKS = ("preprocess", "process", "postprocess")
OTHER_HOOKS = ("init_op", "close_op", "load_model", "bucket", "cost", "example")

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Op(Input):
    """One step: `preprocess` (one request), `process` (one batch), `postprocess` (one request).

    Any of the three may be absent, and any may be `async def`. Where the last is `preprocess` or `postprocess`, it may
    also `yield`, as an async generator: then each value is one part of the answer, and goes out at once. Such an Op
    is the one output of its graph. The other hooks are `init_op(self)`,
    `close_op(self)`, `load_model(self, device)`, `bucket(self, sample)` and `example(self)`. Wiring is by call:
    `Detect(page, batch_size=2)`.

    `example(self)` returns a value that the Op's input may have, or a tuple of as many values as it has
    inputs: what `preprocess` would get. It is called after `init_op`, wherever the Op is to be tried out.

    A subclass with its own `__init__` passes the inputs and the settings on:
    `def __init__(self, *inputs, threshold=0.5, **settings): super().__init__(*inputs, **settings)`.
    Its arguments have to be picklable where hooks run in the CPU pool: a worker makes its own Op from them.
    """

    collate: Collate | None = None
    """How the samples of a batch are laid together for `process`; None: it gets the list."""

    warms_up: ClassVar[bool] = False
    """Whether `load_model` leaves a model that has run already; one that has not is tried on the `example`."""

    returns: Mapping[str, Tensor | None] = MappingProxyType({})
    """What the result is, where that is known beforehand: one tensor, or a dict of several by name; None for one of
    which only the name is known. For the metadata of the Open Inference Protocol."""

    takes_rows: bool = False
    """Whether a value is a batch, an array `[n, ...]`, and the result has as many rows."""

    cpu_concurrency: int | None = None
    """Most of its `preprocess` and `postprocess` at once in the thread lane; None: as many as that has threads."""

    jumps_to: Input | None = None
    """Another Op, or the whole Request, in whose place the result is handed on where the hook `jumps(self, result)`
    says so, which runs on the loop; see `graph/jump.py`. Set before there is a Graph."""

    model: Any = None
    """What `load_model` returned, in the thread that runs `process`."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _settings_in_class: ClassVar[dict[str, Any]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Op:
        self = super().__new__(cls)
        self._arguments = (args, kwargs)
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # From every class in between, nearest last: a mixin may carry settings too.
        cls._settings_in_class = {
            key: vars(base)[key]
            for base in reversed(cls.__mro__)
            if base is not Op
            for key in OpSettings.model_fields
            if key in vars(base)
        }

    def __init__(self, *inputs: Input, name: str | None = None, **settings: Any) -> None:
        self.name = snake_case(type(self).__name__) if name is None else name
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise GraphError(f"op {self.name!r}: a name has letters, digits and underscores only; give one, name='...'")
        self.code_settings = {**self._settings_in_class, **settings}
        try:
            #: The settings in force: those of the code until an Engine merges in the other sources.
            self.settings: OpSettings = check_op_settings(self.name, self.code_settings)
        except SettingsError as error:
            raise GraphError(str(error)) from error
        if not inputs:
            raise GraphError(f"op {self.name!r} has no input: pass an Op, request.field or the Request")
        for position, value in enumerate(inputs, 1):
            if not isinstance(value, Input):
                raise GraphError(f"op {self.name!r}: input {position} is {value!r}; expected an Op or request.field")
            if value is value.request and value.fields:
                raise GraphError(f"op {self.name!r} takes the whole Request, which has fields: take request.field")
        self.inputs = inputs
        self.request = inputs[0].request
        if any(value.request is not self.request for value in inputs):
            raise GraphError(f"op {self.name!r}: its inputs come from different Requests")
        self._check_hooks()
        self.request.consumers.add(self)

    def hook(self, name: str) -> Callable[..., Any] | None:
        """The bound hook of that name, or None where the Op has none."""
        return getattr(self, name, None)

    @property
    def stream_hook(self) -> str | None:
        """The hook whose parts are the answer, an async generator; None where the Op does not stream."""
        return next((name for name in HOOKS if is_stream(self.hook(name))), None)

    def _check_hooks(self) -> None:
        count = len(self.inputs)
        if not isinstance(self.collate, Collate | None):
            raise GraphError(f"op {self.name!r}: collate is {self.collate!r}; expected Stack() or Pad(to=...)")
        names = ", ".join(value._label() for value in self.inputs)
        for hook, expected, got in (
            ("preprocess", count, f"{_values(count)} ({names})"),
            ("process", 1, "one batch: a list of samples")
            if self.collate is None
            else ("process", self.collate.arguments, f"what {type(self.collate).__name__} makes of a batch"),
            ("postprocess", count + 1, f"the result and {_values(count)} ({names})"),
            ("example", 0, "nothing: it returns what preprocess would get"),
        ):
            function = self.hook(hook)
            if hook == "example" and function is not None and not callable(function):
                raise GraphError(f"op {self.name!r}: example is {function!r}; write def example(self)")
            if function is not None and not _accepts(function, expected):
                raise GraphError(f"op {self.name!r}: {hook}{inspect.signature(function)} does not fit: it gets {got}")
        waits = ["init_op", "bucket", "cost", "example"]
        if not is_async(self.hook("process")):
            waits.append("load_model")
        for hook in waits:
            if is_async(self.hook(hook)):
                raise GraphError(f"op {self.name!r}: {hook} cannot be async: nothing would wait for it")
        self._check_generators()
        if self.hook("process") is None:
            for key in ("batch_size", "max_batch_cost", "max_delay_ms", "retry"):
                if self.code_settings.get(key):
                    raise GraphError(
                        f"op {self.name!r}: {key} without `process`: only `process` takes batches; "
                        "write process(self, batch) or remove the setting"
                    )
            if self.collate is not None:
                raise GraphError(f"op {self.name!r}: collate without `process`: only `process` takes batches")
            if self.hook("load_model") is not None:
                raise GraphError(f"op {self.name!r}: load_model without `process`: only `process` has a model")
            if self.hook("preprocess") is None and self.hook("postprocess") is None:
                raise GraphError(f"op {self.name!r} has no hook: write preprocess, process or postprocess")

    def _check_generators(self) -> None:
        last = [hook for hook in HOOKS if self.hook(hook) is not None][-1:]
        for hook in (*HOOKS, *OTHER_HOOKS):
            function = self.hook(hook)
            if hook in ("preprocess", "postprocess"):
                _refuse_sync_generator(self.name, hook, function)
            if not is_stream(function):
                continue
            if hook == "process" or hook not in HOOKS:
                raise GraphError(
                    f"op {self.name!r}: {hook} cannot be an async generator: only preprocess and postprocess stream"
                )
            if [hook] != last:
                raise GraphError(
                    f"op {self.name!r}: {hook} is an async generator, but {last[0]} comes after it: "
                    "only the last hook of an Op streams"
                )

    def _label(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {', '.join(value._label() for value in self.inputs)}>"


def op(*, cpu: Cpu = "process", **settings: Any) -> Callable[[_Function], type[Op]]:
    """Make an Op of a function: its only hook is `preprocess`.

    `@op(cpu="inline")` over `def combine(bow, cnn)` lets the graph say `combine(bow, cnn)`.
    """

    def make(function: _Function) -> type[Op]:
        try:
            check_op_settings(function.__name__, {"cpu": cpu, **settings})
        except SettingsError as error:
            raise GraphError(str(error)) from error

        def run(self: Op, *values: Any) -> Any:
            return function(*values)

        async def run_async(self: Op, *values: Any) -> Any:
            return await function(*values)

        async def stream(self: Op, *values: Any) -> AsyncIterator[Any]:
            async with aclosing(function(*values)) as parts:
                async for part in parts:
                    yield part

        _refuse_sync_generator(function.__name__, "preprocess", function)
        preprocess: Any = run_async if is_async(function) else stream if is_stream(function) else run
        # The wiring is checked against the function's own parameters.
        signature = inspect.signature(function)
        me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        preprocess.__signature__ = signature.replace(parameters=[me, *signature.parameters.values()])
        return type(
            function.__name__.strip("<>"),  # a lambda's name is no name for an Op
            (Op,),
            {
                "__module__": function.__module__,
                "__qualname__": function.__qualname__,
                "__doc__": function.__doc__,
                "preprocess": preprocess,
                "cpu": cpu,
                **settings,
            },
        )

    return make


class Placeholder(Input):
    """Stands for an input where an Op is made again in a worker process."""

    def __init__(self) -> None:
        self.request = Request()

    def _label(self) -> str:
        return "input"


def recipe(made: Op) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments to make `made` again elsewhere; markers stand for its inputs."""
    args, kwargs = made._arguments
    return tuple(map(_mark, args)), {key: _mark(value) for key, value in kwargs.items()}


def remake(cls: type[Op], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op:
    """Make an Op from its class and `recipe`."""
    stand_in = Placeholder()

    def fill(value: Any) -> Any:
        return stand_in if value is _Marker.INPUT else value

    return cls(*map(fill, args), **{key: fill(value) for key, value in kwargs.items()})


class _Marker(enum.Enum):
    """Stands for an input in a recipe; an enum member stays itself through pickle."""

    INPUT = "input"


def _mark(value: Any) -> Any:
    return _Marker.INPUT if isinstance(value, Input) else value


def snake_case(name: str) -> str:
    """`TextLines` is `text_lines`, `OCRPage` is `ocr_page`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def is_async(hook: Callable[..., Any] | None) -> bool:
    return hook is not None and inspect.iscoroutinefunction(hook)


def is_stream(hook: Callable[..., Any] | None) -> bool:
    """Whether it is an async generator."""
    return hook is not None and inspect.isasyncgenfunction(hook)


def _refuse_sync_generator(name: str, hook: str, function: Callable[..., Any] | None) -> None:
    if function is not None and inspect.isgeneratorfunction(function):
        raise GraphError(
            f"op {name!r}: {hook} is a generator: to stream the answer write it as `async def`, else return a list"
        )


def _accepts(function: Callable[..., Any], count: int) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _values(count: int) -> str:
    return "one value" if count == 1 else f"{count} values"
