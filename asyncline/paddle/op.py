"""Op: one step of a pipeline, with Paddle's constructor and hooks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from asyncline.errors import GraphError
from asyncline.paddle.channel_data import ChannelData
from asyncline.paddle.errors import HookError

_numbers = itertools.count()

ENTRY = "@DAGExecutor"
"""The name of RequestOp, under which the first Ops find the request in `input_dicts`."""

NAMES_SET = "_asyncline_names_set"
"""Of a request's copy of an Op: the names of the attributes that its hook has set."""

WIRING = frozenset({"_input_ops", "_jump_to_ops"})
"""Attributes that name other Ops: a copy that works on requests has none."""


class Op:
    """One step. Override `init_op`, `preprocess`, `process`, `postprocess`; constructor arguments win over config.yml.

    `process` runs where there is a model (`local_service_conf.model_config`), or where a subclass has its own. A hook
    may leave out the last parameters, `data_id` and `log_id`, and the last values of the tuple that it returns.

    Each request has its own copy of the Op's attributes: what `preprocess` sets on `self`, `process` and `postprocess`
    of that request find there, whatever other requests do meanwhile. What was set last is also what later requests
    begin with. What attributes refer to (a dict, a model) is shared.

    :param input_ops: a list of Ops, or one.
    :param server_endpoints: where the model is, if not here. With client_type `pipeline_grpc`, `host:port` of another
        pipeline; else `http://host:8000` or `grpc://host:8001` of a server that speaks the Open Inference Protocol.
    :param fetch_list: the outputs of the model that are wanted; all by default.
    :param client_config: the name of the model at server_endpoints; by default that of the Op.
    :param timeout: ms, of the whole Op; not above 0: none.
    :param retry: how often `process` is tried.
    :param batch_size: most requests that are laid together for `process`.
    :param auto_batching_timeout: ms that a free model may wait for a fuller batch; not above 0: it does not wait.
    :param jump_to_ops: one Op before this one (a loop: what comes after that one runs again) or after it (what is in
        between is left out). Where `check_jumping` returns True, what comes after it gets the result in its place,
        in `input_dicts` by the name of this Op.
    :raises GraphError: `input_ops` or `jump_to_ops` are no Ops.
    """

    client: Any = None
    """The model, in `process`: a Predictor or, of another pipeline, a PipelineClient."""
    concurrency_idx: int | None = None
    """Which worker process the hooks run in; None in threads."""

    def __init__(
        self,
        name: str | None = None,
        input_ops: Sequence[Op] | Op | None = None,
        server_endpoints: list[str] | None = None,
        fetch_list: list[str] | None = None,
        client_config: str | None = None,
        client_type: str | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        retry: int = 0,
        batch_size: int | None = None,
        auto_batching_timeout: float | None = None,
        local_service_handler: Any = None,
        jump_to_ops: Sequence[Op] | Op | None = None,
    ) -> None:
        self.name = f"Op{next(_numbers)}" if name is None else name
        self.set_input_ops(input_ops)
        self.set_jump_to_ops(jump_to_ops)
        if local_service_handler is not None:
            raise GraphError(f"op {self.name!r}: local_service_handler: name the model by local_service_conf instead")
        self._server_endpoints = server_endpoints
        self._fetch_names = fetch_list
        self._client_config = client_config
        self.client_type = client_type
        self.concurrency = concurrency
        self._timeout = timeout
        self._retry = retry
        self._batch_size = batch_size
        self._auto_batching_timeout = auto_batching_timeout
        self._pack_tensor_format = False
        self.dynamic_shape_info: dict[str, Any] = {}
        self.set_dynamic_shape_info()

    # -- hooks ---------------------------------------------------------------------------------------

    def init_op(self) -> None:
        """Load resources: once in every process that runs hooks."""

    def set_dynamic_shape_info(self) -> None:
        """Set `self.dynamic_shape_info`, for TensorRT: `min_input_shape`, `max_input_shape` and `opt_input_shape`, each
        a dict of shapes by input name.
        """

    def preprocess(self, input_dicts: dict[str, Any], data_id: int = 0, log_id: int = 0) -> Any:
        """From the results of the input Ops, by their names, to the feed of `process`.

        :returns: `(data, is_skip_process, prod_errcode, prod_errinfo)`; data is a dict, or a list of dicts (a
            mini-batch), which `process` gets one by one.
        """
        if len(input_dicts) != 1:
            raise NotImplementedError(f"{self.name} has {len(input_dicts)} input_ops: override preprocess")
        (data,) = input_dicts.values()
        return data, False, None, ""

    def process(self, feed_batch: list[dict[str, Any]], typical_logid: int = 0) -> Any:
        """Run the model.

        :param feed_batch: a list of one dict, in which the arrays of several requests may lie one after the other.
        :param typical_logid: the log_id of the first of them.
        :returns: `(result, err_code, err_info)`; of every value in the dict, each request gets its rows.
        """
        assert self.client is not None, "process runs where there is a model"
        try:
            feed = feed_batch[0]
            return self.client.predict(feed=feed, fetch=self._fetch_names, batch=True, log_id=typical_logid), 0, ""
        except HookError as error:
            return None, error.err_no, error.message

    def postprocess(self, input_data: Any, fetch_data: Any, data_id: int = 0, log_id: int = 0) -> Any:
        """From the result of `process` to that of the Op.

        :param input_data: what `preprocess` got.
        :param fetch_data: what `process` returned for this request, a list where it was a mini-batch; the data of
            `preprocess` where `process` was skipped.
        :returns: `(result, prod_errcode, prod_errinfo)`; the result is a dict.
        """
        return fetch_data if isinstance(fetch_data, dict) else {}, None, ""

    def check_jumping(self, input_data: dict[int, ChannelData]) -> bool:
        """Of an Op with `jump_to_ops`: whether a result goes to what comes after that one, in its place.

        :param input_data: what `postprocess` returned, as a ChannelData by the data_id of the request.
        """
        return False

    # -- wiring ----------------------------------------------------------------------------------------

    def get_input_ops(self) -> list[Op]:
        return self._input_ops

    def set_input_ops(self, ops: Sequence[Op] | Op | None) -> None:
        self._input_ops = _ops(self.name, "input_ops", ops)

    def get_jump_to_ops(self) -> list[Op]:
        return self._jump_to_ops

    def set_jump_to_ops(self, ops: Sequence[Op] | Op | None) -> None:
        self._jump_to_ops = _ops(self.name, "jump_to_ops", ops)

    def is_jump_op(self) -> bool:
        return bool(self._jump_to_ops)

    def set_pack_tensor_format(self, is_tensor_format: bool = False) -> None:
        """Whether a remote pipeline is sent tensors rather than text."""
        self._pack_tensor_format = is_tensor_format

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        # Not by comparing afterwards: what it is set to may well be what another request had left there.
        names = self.__dict__.get(NAMES_SET)
        if names is not None:
            names.add(name)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process: the Op without its neighbours."""
        return {key: value for key, value in self.__dict__.items() if key not in WIRING}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _ops(name: str, argument: str, ops: Sequence[Op] | Op | None) -> list[Op]:
    listed = [] if ops is None else [ops] if isinstance(ops, Op) else list(ops)
    for op in listed:
        if not isinstance(op, Op):
            raise GraphError(f"op {name!r}: {argument}: expected Ops, got {op!r}")
    return listed
