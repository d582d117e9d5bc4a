"""The keys of Paddle's config.yml: what each may be, and what it is where it is not given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncline.errors import SettingsError

KINDS: dict[str, tuple[type, ...]] = {
    "a whole number": (int,),
    "true or false": (bool,),
    "text": (str,),
    "a list": (list,),
    "a mapping": (dict,),
}


@dataclass(frozen=True)
class Key:
    """One key.

    :param kind: a name of `KINDS`.
    :param idle: it is read and checked, and changes nothing here; why.
    """

    kind: str
    default: Any = None
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()
    idle: str = ""

    def check(self, path: str, value: Any) -> Any:
        """:raises SettingsError: it is of another type, or out of range; names the key."""
        is_bool = isinstance(value, bool)
        kinds: Any = KINDS[self.kind]
        if not isinstance(value, kinds) or is_bool != (self.kind == "true or false"):
            raise SettingsError(f"{path} must be {self.kind}, got {value!r}")
        if self.least is not None and value < self.least:
            raise SettingsError(f"{path} must be {self.least} or more, got {value!r}")
        if self.most is not None and value > self.most:
            raise SettingsError(f"{path} must be {self.most} or less, got {value!r}")
        if self.choices and value not in self.choices:
            raise SettingsError(f"{path} must be one of {', '.join(self.choices)}, got {value!r}")
        return value


PORT = Key("a whole number", least=1024, most=65535)

SERVICE: Mapping[str, Key] = {
    "rpc_port": PORT,
    "http_port": PORT,
    "worker_num": Key("a whole number", 1, least=1),
    "build_dag_each_worker": Key("true or false", False, idle="one process runs it all"),
    "grpc_gateway_port": Key("a whole number", idle="there is no gateway"),
    "dag": Key("a mapping"),
    "op": Key("a mapping"),
}

DAG: Mapping[str, Key] = {
    "is_thread_op": Key("true or false", True),
    "retry": Key("a whole number", 1, least=1, idle="a request runs once; op.<name>.retry tries process again"),
    "client_type": Key("text", "brpc", choices=("brpc", "grpc"), idle="no server is started for a model"),
    "use_profile": Key("true or false", False, idle="/metrics has the times of every Op"),
    "channel_size": Key("a whole number", 0, least=0),
    "channel_recv_frist_arrive": Key("true or false", False),
    "tracer": Key("a mapping"),
    "enable_prometheus": Key("true or false", False, idle="/metrics is always there, on http_port"),
    "prometheus_port": Key("a whole number", idle="/metrics is on http_port"),
}

TRACER: Mapping[str, Key] = {"interval_s": Key("a whole number", -1)}

OP: Mapping[str, Key] = {
    "concurrency": Key("a whole number", 1, least=1),
    "timeout": Key("a whole number", -1),
    "retry": Key("a whole number", 1, least=1),
    "batch_size": Key("a whole number", 1, least=1),
    "auto_batching_timeout": Key("a whole number", -1),
    "client_type": Key("text"),
    "server_endpoints": Key("a list"),
    "fetch_list": Key("a list"),
    "client_config": Key("text"),
    "use_encryption_model": Key("true or false", False, idle="encrypted models are those of Paddle's own server"),
    "encryption_key": Key("text", "", idle="encrypted models are those of Paddle's own server"),
    "local_service_conf": Key("a mapping"),
}

_ENGINE = "an option of Paddle's own engine"

LOCAL: Mapping[str, Key] = {
    "model_config": Key("text"),
    "client_type": Key("text"),
    "workdir": Key("text", "", idle=_ENGINE),
    "thread_num": Key("a whole number", 2, least=1),
    "fetch_list": Key("a list"),
    "device_type": Key("a whole number", -1, least=-1, most=6),
    "devices": Key("text", ""),
    "mem_optim": Key("true or false", True, idle=_ENGINE),
    "ir_optim": Key("true or false", False, idle=_ENGINE),
    "precision": Key("text", "fp32"),
    "use_calib": Key("true or false", False, idle=_ENGINE),
    "use_mkldnn": Key("true or false", False, idle=_ENGINE),
    "mkldnn_cache_capacity": Key("a whole number", 0, idle=_ENGINE),
    "mkldnn_op_list": Key("a list", idle=_ENGINE),
    "mkldnn_bf16_op_list": Key("a list", idle=_ENGINE),
    "min_subgraph_size": Key("a whole number", 3, idle=_ENGINE),
    "collect_shape_range_info": Key("text", "", idle=_ENGINE),
    "tuned_dynamic_shape_info": Key("text", "", idle=_ENGINE),
}
