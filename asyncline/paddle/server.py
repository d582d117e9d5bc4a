"""PipelineServer and WebService: a pipeline served by our server."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from typing import Any

from rich.console import Console

from asyncline.errors import AsynclineError, GraphError, SettingsError
from asyncline.exits import Exit
from asyncline.graph.graph import Graph
from asyncline.observe.log import to_console
from asyncline.paddle.build import build
from asyncline.paddle.config import Config, read
from asyncline.paddle.op import Op
from asyncline.paddle.request_op import RequestOp
from asyncline.paddle.response_op import ResponseOp, check_response_op
from asyncline.server import serve
from asyncline.settings import Settings, Source, from_environment, merge
from asyncline.tuning import tune_malloc

log = logging.getLogger("asyncline.paddle")

TIMEOUT_MS = 60_000
"""Longest life of a request; Paddle knows no such limit."""
MAX_IN_FLIGHT = 512
"""More requests than `worker_num` wait, as Paddle's do; more than this are refused."""
LONGEST_INTERVAL_S = 60
"""Of the tracer, which keeps as many seconds."""
MAX_BODY_MB = 256 * 2**20 / 10**6
"""Paddle's limit of a message."""


class PipelineServer:
    """`set_response_op`, `prepare_server`, `run_server`.

    :param name: of the service, the first part of its path.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self._response_op: ResponseOp | None = None
        self._config: Config | None = None
        self._graph: Graph | None = None

    def set_response_op(self, response_op: ResponseOp) -> None:
        """:raises GraphError: it is no ResponseOp of exactly one Op."""
        self._response_op = check_response_op(response_op)

    def prepare_server(self, yml_file: str | None = None, yml_dict: dict[str, Any] | None = None) -> None:
        """Read the configuration and build the graph.

        :raises SettingsError: a value is wrong; names the key.
        :raises GraphError: the pipeline cannot run; names the Op.
        """
        if self._response_op is None:
            raise GraphError("set_response_op comes first")
        self._config = read(yml_file, yml_dict)
        self._graph = build(self._name, self._response_op, self._config)
        names = {op.paddle.name for op in self._graph.ops}  # type: ignore[attr-defined]  # all are adapters
        for name in self._config.ops:
            if name not in names:
                log.warning("%s: op.%s: the pipeline has no such Op", self._config.source, name)

    prepare_pipeline_config = prepare_server

    @property
    def graph(self) -> Graph:
        """:raises GraphError: the pipeline is not prepared."""
        if self._graph is None:
            raise GraphError("prepare_server (prepare_pipeline_config) comes first")
        return self._graph

    @property
    def settings(self) -> Settings:
        """What the Engine gets: the environment (`ASYNCLINE_...`) over config.yml over the code."""
        graph = self.graph
        assert self._config is not None
        return merge(
            graph.name,
            {op.name: op.code_settings for op in graph.ops},
            Source(self._config.source, self._values(self._config)),
            from_environment(op.name for op in graph.ops),
        )

    def run_server(self) -> None:
        """Serve until SIGTERM or Ctrl-C, then end the process where something went wrong."""
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            return  # a worker process at its start, which runs the script once more to know its classes
        graph = self.graph
        tune_malloc()
        to_console("info")
        console = Console(stderr=True)
        try:
            code = serve(graph, self.settings, console)
        except AsynclineError as error:
            console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            code = Exit.CONFIG if isinstance(error, SettingsError | GraphError) else Exit.LOAD
        if code != Exit.OK:
            sys.exit(code)

    def _values(self, config: Config) -> dict[str, Any]:
        service: dict[str, Any] = {
            "host": "0.0.0.0",  # as Paddle's
            "http_port": config.service["http_port"] or 0,
            "grpc_port": config.service["rpc_port"],
            "tcp_port": None,
            "timeout_ms": TIMEOUT_MS,
            "max_in_flight": max(MAX_IN_FLIGHT, config.service["worker_num"]),
            "max_body_mb": MAX_BODY_MB,
            "log_dir": os.path.join(os.environ.get("SERVING_LOG_PATH", ""), "PipelineServingLogs"),
        }
        threads = sum(op.settings.concurrency or 1 for op in self.graph.ops)
        interval_s = min(max(config.tracer["interval_s"], -1), LONGEST_INTERVAL_S)
        dag: dict[str, Any] = {"cpu_threads": max(threads, 2), "tracer": {"interval_s": interval_s}}
        if config.dag["channel_size"]:
            dag["channel_size"] = config.dag["channel_size"]
        return {"service": service, "dag": dag}


class WebService:
    """A service with one pipeline: override `get_pipeline_response`, then `prepare_pipeline_config`, `run_service`.

    :param name: of the service: `POST /{name}/prediction`.
    """

    def __init__(self, name: str = "default_service") -> None:
        self.name = name
        self._server = PipelineServer(name)

    def get_pipeline_response(self, read_op: RequestOp) -> Op:
        """Wire the Ops, from `read_op` on; returns the last."""
        raise NotImplementedError(f"{type(self).__name__} has to override get_pipeline_response")

    def prepare_pipeline_config(self, yml_file: str | None = None, yml_dict: dict[str, Any] | None = None) -> None:
        """Read the configuration and build the graph.

        :raises ValueError: `get_pipeline_response` returned no Op.
        :raises SettingsError: a value is wrong; names the key.
        :raises GraphError: the pipeline cannot run; names the Op.
        """
        last = self.get_pipeline_response(RequestOp())
        if not isinstance(last, Op):
            raise ValueError(f"get_pipeline_response returned {last!r}: expected the last Op")
        self._server.set_response_op(ResponseOp(input_ops=[last]))
        self._server.prepare_server(yml_file, yml_dict)

    def run_service(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        self._server.run_server()

    @property
    def graph(self) -> Graph:
        return self._server.graph

    @property
    def settings(self) -> Settings:
        return self._server.settings
