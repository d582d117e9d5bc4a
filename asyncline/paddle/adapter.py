"""Steps: Paddle's Ops between the ends of a pipeline, as Ops of ours.

    Step              preprocess and postprocess, in one hook
    ModelStep         preprocess, process, postprocess

The last of them packs the answer too, unless others jump to it. A sample of a ModelStep is `(feed, state, inputs,
data_id, log_id, expires_at)`, its result `(fetched, state, inputs)`: `state` is what the hooks have set on `self`,
`inputs` what `preprocess` got, or None where it is made again for `postprocess`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable, Mapping
from typing import Any

from asyncline.engine.context import Context, current, worker_place
from asyncline.errors import RequestError
from asyncline.graph.op import Op as EngineOp
from asyncline.graph.outcomes import Each, Skip
from asyncline.graph.request import Input
from asyncline.paddle import feeds
from asyncline.paddle.channel_data import ChannelData
from asyncline.paddle.ends import Packer, Value
from asyncline.paddle.errors import (
    CustomExceptionCode,
    HookError,
    caused_by,
    check_product_error,
    hook_failed,
    number,
    told,
)
from asyncline.paddle.hooks import NOTHING, Hook, filled, item_now
from asyncline.paddle.op import Op
from asyncline.paddle.predictor import Model
from asyncline.paddle.response_op import ResponseOp

IDS = ("data_id", "log_id")


class Step(EngineOp):
    """An Op without a model.

    :param paddle: the Op itself.
    :param sources: the names of its inputs, and whether others take the same value.
    :param response: packs the answer, where this is the last Op.
    :param may_jump: whether `jumps_to` will be set.
    """

    def __init__(
        self,
        *inputs: Input,
        paddle: Op,
        sources: tuple[tuple[str, bool], ...],
        response: ResponseOp | None = None,
        may_jump: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(*inputs, **settings)
        self.paddle = paddle
        self._sources = sources
        self._packer = None if response is None else Packer(response)
        self._where = type(paddle).__qualname__
        self._preprocess = Hook(paddle, Op, "preprocess", 1, IDS)
        self._postprocess = Hook(paddle, Op, "postprocess", 2, IDS)
        self._check_jumping = Hook(paddle, Op, "check_jumping", 1) if may_jump else None

    def init_op(self) -> None:
        self.paddle.concurrency_idx = worker_place.get()
        self.paddle.init_op()
        if self._packer is not None:
            self._packer.init()

    def preprocess(self, *values: Value) -> Any:
        """Both hooks, as nothing comes between them."""
        inputs = self._input_dicts(values)
        data_id, log_id = item_now().data_id, values[0][1]
        data, _, state = self._prepare(inputs, data_id, log_id)
        return self._finish(data, state, inputs, data_id, log_id)

    def _prepare(self, inputs: dict[str, Any], data_id: int, log_id: int) -> tuple[Any, bool, Mapping[str, Any]]:
        """What `preprocess` made: data, whether to skip, and the state."""
        try:
            returned, state = self._preprocess.run({}, inputs, ids=(data_id, log_id))
            is_full = type(returned) is tuple and len(returned) == 4
            data, skips, code, info = returned if is_full else filled(returned, (None, False, None, ""))
        except Exception as error:
            raise hook_failed(error, self._where, "preprocess", log_id) from error
        if code is not None:
            check_product_error(code, info)
        return data, skips is True, state

    def _finish(self, fetched: Any, state: Mapping[str, Any], inputs: dict[str, Any], data_id: int, log_id: int) -> Any:
        """What `postprocess` made of the result, as a Value or, of the last Op, as the answer."""
        fresh = NOTHING
        if self._postprocess.is_default and type(fetched) is dict:
            data = fetched  # as it would return it
        else:
            try:
                returned, fresh = self._postprocess.run(state, inputs, fetched, ids=(data_id, log_id))
                data, code, info = filled(returned, (None, None, ""))
            except Exception as error:
                raise hook_failed(error, self._where, "postprocess", log_id) from error
            if code is not None:
                check_product_error(code, info)
            if not isinstance(data, dict):
                text = f"Log_id: {log_id}  Raise_msg: postprocess should return dict  ClassName: {self._where}"
                raise HookError(CustomExceptionCode.TYPE_ERROR.value, text)
        if self._check_jumping is not None:
            result = ChannelData(data, data_id, log_id)
            if self._has_to_jump(self._check_jumping, result, {**state, **fresh}):
                return data, log_id, self.paddle.name
        return (data, log_id) if self._packer is None else self._packer.pack(data, data_id, log_id)

    def _has_to_jump(self, check: Hook, result: ChannelData, state: Mapping[str, Any]) -> bool:
        try:
            jumps, _ = check.run(state, {result.id: result})
        except Exception as error:
            raise hook_failed(error, self._where, "check_jumping", result.log_id) from error
        return jumps is True

    def jumps(self, value: Any) -> bool:
        return type(value) is tuple and len(value) == 3

    def _input_dicts(self, values: tuple[Value, ...]) -> dict[str, Any]:
        if len(values) == 1 and not self._sources[0][1]:
            return {_name(values[0], self._sources[0][0]): values[0][0]}
        pairs = zip(self._sources, values, strict=True)
        # A hook may change what it gets, and others that get it must not see that.
        return {_name(value, name): copy.deepcopy(value[0]) if shared else value[0] for (name, shared), value in pairs}


class ModelStep(Step):
    """An Op with a model, or a `process` of its own.

    :param model: loaded once per replica.
    """

    def __init__(self, *inputs: Input, model: Model | None, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self._model = model
        self._process = Hook(self.paddle, Op, "process", 1, ("typical_logid",))

    def load_model(self, device: str) -> Any:
        """What is `self.client` in `process`."""
        return None if self._model is None else self._model.load(device)

    def preprocess(self, *values: Value) -> Any:
        given = self._input_dicts(values)
        item, log_id = item_now(), values[0][1]
        data_id, until = item.data_id, item.expires_at
        data, skips, state = self._prepare(given, data_id, log_id)
        # To a worker process and back they would go in full.
        inputs = None if self.settings.cpu == "process" else given
        if skips:
            return Skip((data, state, inputs))
        if isinstance(data, list):
            if not data:
                return Skip(([], state, inputs))
            return Each((feed, state, inputs, data_id, log_id, until) for feed in data)
        if not isinstance(data, dict):
            text = f"[{self.paddle.name}] expect input type is dict or list, but get {type(data).__name__}"
            raise HookError(CustomExceptionCode.TYPE_ERROR.value, text)
        return data, state, inputs, data_id, log_id, until

    def bucket(self, sample: Any) -> Hashable:
        return None if self.settings.batch_size == 1 else feeds.signature(sample[0])

    def process(self, batch: list[Any]) -> list[Any]:
        if len(batch) > 1 and feeds.signature(batch[0][0]) is not None:
            feed, rows = feeds.join([sample[0] for sample in batch])
            fetched, changed = self._run(feed, batch)
            parts = feeds.split(fetched, rows)
            if parts is not None:
                return [(part, {**each[1], **changed}, each[2]) for part, each in zip(parts, batch, strict=True)]
        if len(batch) == 1:
            return [self._run_alone(batch[0])]
        results: list[Any] = []
        for sample in batch:
            try:
                results.append(self._run_alone(sample))
            except RequestError as error:
                results.append(error)
        return results

    def postprocess(self, result: Any, *values: Value) -> Any:
        if isinstance(result, list):  # of a mini-batch
            _, _, inputs = result[0]
            state = {name: value for _, each, _ in result for name, value in each.items()}
            result = [fetched for fetched, _, _ in result], state, inputs
        fetched, state, inputs = result
        inputs = self._input_dicts(values) if inputs is None else inputs
        return self._finish(fetched, state, inputs, item_now().data_id, values[0][1])

    def _context(self, batch: list[Any]) -> Context:
        """Of a batch: until when its result is of use, which a model at another server has to know."""
        expires_at = max([sample[5] for sample in batch])
        timeout_ms = self.settings.timeout_ms
        if timeout_ms is not None:
            expires_at = min(expires_at, time.monotonic() + timeout_ms / 1e3)
        return Context(0, "", None, expires_at)

    def _run_alone(self, sample: Any) -> Any:
        fetched, changed = self._run(sample[0], [sample])
        return fetched, {**sample[1], **changed}, sample[2]

    def _run(self, feed: Any, batch: list[Any]) -> tuple[Any, Mapping[str, Any]]:
        """Call `process` for the requests of `batch`: its result, and what it set on the Op.

        :raises RequestError: it failed, in Paddle's words.
        """
        _, state, _, data_id, log_id, _ = batch[0]
        given = state if self.model is None else {**state, "client": self.model}
        name = self.paddle.name
        current.set(self._context(batch))
        try:
            returned, changed = self._process.run(given, [feed], ids=(log_id,))
            fetched, code, info = filled(returned, (None, 0, ""))
            err_no = number(code) if code is not None else 0
        except RequestError:
            raise
        except Exception as error:
            failed_no, words = told(error)
            ids = [sample[3] for sample in batch]
            why = f"(data_id={data_id} log_id={log_id}) [{name}] Failed to process(batch: {ids}): {words}"
            raise caused_by(error, failed_no, _failed_to_predict(name, why)) from error
        if err_no or fetched is None:
            raise HookError(err_no or CustomExceptionCode.UNKNOW.value, _failed_to_predict(name, info))
        if not isinstance(fetched, dict):
            why = f"process should return dict, got {type(fetched).__name__}"
            raise HookError(CustomExceptionCode.TYPE_ERROR.value, _failed_to_predict(name, why))
        return fetched, changed


def _name(value: Value, name: str) -> str:
    """Of the Op that a value is of: that which it jumped from, if it did."""
    return value[2] if len(value) == 3 else name


def _failed_to_predict(name: str, why: object) -> str:
    return f"[{name}] failed to predict. {why}. Please check the input dict."
