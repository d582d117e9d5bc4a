"""Translation: an Op's section of config.yml and its constructor as settings and a model of ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, get_args

from asyncline.backends.base import Precision
from asyncline.client.address import MODEL_SERVERS, Address
from asyncline.errors import SettingsError
from asyncline.paddle.config import Config
from asyncline.paddle.op import Op
from asyncline.paddle.predictor import Model, ModelFile
from asyncline.paddle.remote import RemoteModel, RemotePipeline

log = logging.getLogger("asyncline.paddle")

MOST_RETRIES = 10
PIPELINE = "pipeline_grpc"
"""The client_type of Ops that call another pipeline."""
TENSORRT, ARM_CPU = 2, 3
ELSEWHERE = {4: "Kunlun XPU", 5: "Ascend 310", 6: "Ascend 910"}


class OpPlan:
    """What an Op becomes here.

    :raises SettingsError: a setting has no meaning here, or a wrong value; names the key.
    """

    def __init__(self, op: Op, config: Config) -> None:
        self._where = f"{config.source}: op.{op.name}"
        values = config.op(op.name)
        local = values["local_service_conf"]
        self.concurrency = _given(op.concurrency, values["concurrency"])
        self._batch_size = _given(op._batch_size, values["batch_size"])
        self._is_thread_op = config.dag["is_thread_op"]
        for name, value in (("concurrency", self.concurrency), ("batch_size", self._batch_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"op {op.name!r}: {name} must be a whole number from 1, got {value!r}")
        self.model: Model | None = self._remote(op, values) or self._model(op, values, local)
        self.has_process = self.model is not None or type(op).process is not Op.process
        self.settings: dict[str, Any] = {"cpu": self._cpu(op)}
        timeout = _given(op._timeout, values["timeout"])
        if timeout > 0:
            self.settings["timeout_ms"] = max(1, round(timeout))
        if self.has_process:
            self._add_process(op, values, local)
        else:
            self.settings["concurrency"] = self.concurrency

    def _add_process(self, op: Op, values: Mapping[str, Any], local: Mapping[str, Any]) -> None:
        retry = max(op._retry, values["retry"]) - 1
        if retry > MOST_RETRIES:
            log.warning("%s.retry: %d is more than %d", self._where, retry + 1, MOST_RETRIES + 1)
        self.settings |= {"retry": min(retry, MOST_RETRIES), "batch_size": self._batch_size}
        delay = _given(op._auto_batching_timeout, values["auto_batching_timeout"])
        if self._batch_size > 1 and delay > 0:
            self.settings["max_delay_ms"] = delay
        if not isinstance(self.model, ModelFile):
            self.settings["concurrency"] = self.concurrency
            return
        threads = local["thread_num"]
        devices = self._devices(local)
        if devices:
            # One copy a GPU: it runs batches of several requests, where Paddle loads a copy for each worker.
            self.settings["device"] = f"cuda:{','.join(devices)}"
            self.settings["concurrency"] = min(self.concurrency, len(devices))
        else:
            cores = len(os.sched_getaffinity(0))
            self.settings["concurrency"] = min(self.concurrency, max(1, cores // threads))
        self.settings["threads"] = threads

    def _devices(self, local: Mapping[str, Any]) -> list[str]:
        kind, text = local["device_type"], local["devices"].replace(" ", "")
        if kind in ELSEWHERE:
            raise SettingsError(f"{self._where}.local_service_conf.device_type {kind}: {ELSEWHERE[kind]} is not served")
        if kind in (0, ARM_CPU):
            return []
        listed: list[str] = text.split(",") if text else ["0"] if kind in (1, TENSORRT) else []
        if not all(number.isascii() and number.isdigit() for number in listed):
            raise SettingsError(f"{self._where}.local_service_conf.devices: {text!r} are no numbers of GPUs, as in 0,1")
        return listed

    def _model(self, op: Op, values: Mapping[str, Any], local: Mapping[str, Any]) -> ModelFile | None:
        if local["model_config"] is None:
            return None
        client = _given(op.client_type, local["client_type"])
        if client not in (None, "local_predictor"):
            log.warning("%s.local_service_conf.client_type: the model runs here, as local_predictor", self._where)
        precision = local["precision"].lower()
        if precision not in get_args(Precision):
            log.warning("%s.local_service_conf.precision: %r is unknown, fp32 is used", self._where, precision)
            precision = "fp32"
        fetch = op._fetch_names or local["fetch_list"] or values["fetch_list"] or []
        tensorrt = local["device_type"] == TENSORRT
        return ModelFile(
            path=local["model_config"],
            fetch=tuple(map(str, fetch)),
            threads=local["thread_num"],
            precision=None if precision == "fp32" else precision,
            tensorrt=tensorrt,
            shapes=_shapes(op.dynamic_shape_info) if tensorrt else {},
            max_batch_size=max(32, self._batch_size),
        )

    def _remote(self, op: Op, values: Mapping[str, Any]) -> RemoteModel | RemotePipeline | None:
        """Where the model is, if another server has it."""
        endpoints = _given(op._server_endpoints, values["server_endpoints"])
        name = _given(op._client_config, values["client_config"])
        if not endpoints:
            if name is not None:
                log.warning("%s.client_config changes nothing here: the model says what it takes", self._where)
            return None
        client = _given(op.client_type, values["client_type"])
        where = f"{self._where}.server_endpoints"
        if isinstance(endpoints, str) or not all(isinstance(text, str) for text in endpoints):
            raise SettingsError(f"{where}: expected a list of addresses, got {endpoints!r}")
        if client == PIPELINE:
            endpoints = [text if "://" in text else f"grpc://{text}" for text in endpoints]
        elif bare := [text for text in endpoints if "://" not in text]:
            raise SettingsError(
                f"{where}: {bare[0]!r} with client_type {client!r} is a server of Paddle's own protocol, which is not "
                "spoken here; serve the model by the Open Inference Protocol and write http://host:8000 or "
                f"grpc://host:8001, or name its file by local_service_conf.model_config. Of a pipeline, client_type is "
                f"{PIPELINE}"
            )
        try:
            kinds = ("grpc",) if client == PIPELINE else MODEL_SERVERS
            addresses = tuple(Address.parse(text, kinds) for text in endpoints)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from error
        if len(set(addresses)) < len(addresses):
            raise SettingsError(f"{where}: an endpoint is there twice")
        if client == PIPELINE:
            return RemotePipeline(addresses, sends_tensors=op._pack_tensor_format)
        if name is not None and ("/" in name or name.endswith(".prototxt")):
            log.warning(
                "%s.client_config: %s is not read; the model's name there is taken to be the Op's", self._where, name
            )
            name = None
        fetch = op._fetch_names or values["fetch_list"] or []
        return RemoteModel(addresses, name or op.name, tuple(map(str, fetch)))

    def _cpu(self, op: Op) -> str:
        if self._is_thread_op:
            return "thread"
        if type(op).__module__ == "__main__" or "<locals>" in type(op).__qualname__:
            log.warning(
                "op %r: its hooks run in threads, as is_thread_op true would have it: worker processes cannot import "
                "%s; define it at the top level of a module beside the script",
                op.name, type(op).__qualname__,
            )  # fmt: skip
            return "thread"
        return "process"


def _given(argument: Any, value: Any) -> Any:
    """The constructor's argument where there is one, else the file's value."""
    return value if argument is None else argument


def _shapes(info: Mapping[str, Any]) -> dict[str, Any]:
    least, usual, most = (info.get(f"{which}_input_shape", {}) for which in ("min", "opt", "max"))
    names = [name for name in least if name in usual and name in most]
    return {name: (tuple(least[name]), tuple(usual[name]), tuple(most[name])) for name in names}
