"""Settings: declared once here; the command line, the environment and YAML derive from this declaration.

    code  <  YAML file (--config)  <  environment (ASYNCLINE_...)  <  command line (--set, --http-port ...)

Later wins, key by key. The environment names a service setting `ASYNCLINE_<KEY>`, a dag setting
`ASYNCLINE_DAG_<KEY>` and a setting of an Op `ASYNCLINE_OP_<NAME>_<KEY>`, all in capitals.
An unknown key is an error that suggests the nearest right one and names where it was written.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from asyncline.errors import SettingsError
from asyncline.tuning import MALLOC_SWITCH

Cpu = Literal["process", "thread", "inline"]


MOST_TIMES = 8
"""How many times the longest body one may be once it is decoded."""
LEAST_DECODED_NBYTES = 64 * 10**6
"""Decoded to so much, none is refused: short bodies may be longer so many times."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class ServiceSettings(_Section):
    """The process and its doors."""

    host: str = Field("127.0.0.1", description="address to listen on")
    http_port: int = Field(8000, ge=0, le=65535, description="port of REST; 0 takes a free one")
    http_fd: int | None = Field(None, ge=0, description="a listening socket to use instead of host and port")
    grpc_port: int | None = Field(8001, ge=0, le=65535, description="port of gRPC; 0 takes a free one, null opens none")
    grpc_fd: int | None = Field(None, ge=0, description="a listening socket to use instead of host and grpc_port")
    tcp_port: int | None = Field(
        8002, ge=0, le=65535, description="port of msgpack over TCP; 0 takes a free one, null opens none"
    )
    tcp_fd: int | None = Field(None, ge=0, description="a listening socket to use instead of host and tcp_port")
    timeout_ms: int = Field(10_000, ge=1, description="longest life of a request; a client may only ask for less")
    max_in_flight: int = Field(512, ge=1, description="most requests being served; more are refused at once")
    max_in_flight_mb: int = Field(0, ge=0, description="most request bytes being served; 0: a quarter of the memory")
    priorities: int = Field(1, ge=1, le=16, description="classes of X-Priority; 1: all requests are equal")
    max_body_mb: float = Field(16, gt=0, description="largest request body")
    body_timeout_s: float = Field(30, gt=0, description="longest time that a request body may take to arrive")
    header_timeout_s: float = Field(10, gt=0, description="longest time for a TLS handshake, a hello, a request's head")
    min_rate_kb_s: float = Field(
        16, ge=0, description="who sends a body or reads answers slower than this is hung up on; 0: nobody is"
    )
    stall_timeout_s: float = Field(30, gt=0, description="how long a client may take to read at that rate")
    keepalive_s: float = Field(75, gt=0, description="how long an idle connection stays open")
    max_connections: int = Field(0, ge=0, description="most connections; 0: 2048, or fewer for want of descriptors")
    max_connections_per_peer: int = Field(
        256, ge=1, description="most connections of one address: raise it for a proxy"
    )
    drain_s: float = Field(20, ge=0, description="how long a stop waits for requests in flight")
    auth_token: SecretStr | None = Field(None, min_length=1, description="bearer token that clients have to send")
    tls_cert: Path | None = Field(None, description="PEM file with the certificate chain")
    tls_key: Path | None = Field(None, description="PEM file with the private key")
    log_dir: Path | None = Field(None, description="folder of pipeline.log, .log.wf and .tracer; default: console only")
    log_format: Literal["text", "json"] = Field("text", description="of log lines: text, or json: one object a line")
    log_file_mb: float = Field(100, gt=0, description="size at which a log file is set aside and a new one begun")
    log_files: int = Field(5, ge=1, le=1000, description="how many log files of each kind that were set aside are kept")
    log_limit: int = Field(100, ge=0, description="most log lines of one kind in 10 s; more are counted; 0: no limit")
    access_log: bool = Field(False, description="write a line for each request")
    otel_endpoint: str | None = Field(
        None,
        description="URL of a collector of OpenTelemetry (OTLP/HTTP) that gets the spans, as http://127.0.0.1:4318",
    )
    otel_headers: SecretStr | None = Field(None, description="headers for the collector, as name=value,name=value")
    otel_sample_ratio: float = Field(
        1.0, ge=0, le=1, description="share of requests without a trace context that are traced; others as that says"
    )

    trace_slow_ms: float | None = Field(None, gt=0, description="write the timeline of requests slower than this")
    trace_errors: bool = Field(False, description="write the timeline of requests that fail")
    trace_dir: Path = Field(Path("asyncline-traces"), description="folder for those timelines; the last 100 are kept")

    @field_validator("auth_token", mode="before")
    @classmethod
    def _auth_token(cls, value: Any) -> Any:
        # Not made text again: YAML has made 83 of 0123 by now.
        if not isinstance(value, str | SecretStr | None):
            raise ValueError("write it in quotes: YAML reads it as something else than text")
        return value

    @field_validator("otel_endpoint")
    @classmethod
    def _otel_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            url = urlsplit(value)
            if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or url.username:
                raise ValueError("expected a URL as http://127.0.0.1:4318; what is secret goes into otel_headers")
        return value

    @field_validator("otel_headers")
    @classmethod
    def _otel_headers(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            headers_of(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _tls(self) -> ServiceSettings:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key without tls_cert would serve without TLS: give both")
        return self

    @property
    def max_body_nbytes(self) -> int:
        return int(self.max_body_mb * 10**6)

    @property
    def max_decoded_nbytes(self) -> int:
        """Most that the lists, objects and texts of a body may be once they are decoded, the body's text included."""
        return max(LEAST_DECODED_NBYTES, MOST_TIMES * self.max_body_nbytes)


class TracerSettings(_Section):
    """The figures that are written as text."""

    interval_s: int = Field(10, ge=-1, le=60, description="seconds between two blocks of the tracer; 0 or -1: none")


class DagSettings(_Section):
    """What the Ops of a graph share."""

    channel_size: int = Field(1024, ge=1, description="most Items waiting in front of an Op")
    cpu_workers: int | None = Field(None, ge=1, description="processes of the CPU pool; default: cores - 1")
    worker_memory_mb: int = Field(2048, ge=64, description="most memory of its own of a process of the CPU pool")
    shared_mb: int = Field(0, ge=0, description="most memory that the CPU pool shares; 0: a quarter of the memory")
    cpu_threads: int | None = Field(None, ge=1, description="threads of the thread lane; default: cores")
    nvtx: bool = Field(False, description="mark what replicas do for NVIDIA's profilers")
    fuse: bool = Field(True, description="run neighbouring CPU hooks of the same lane as one task")
    tracer: TracerSettings = TracerSettings()
    leak_watch: bool = Field(False, description="watch memory, descriptors and tasks, and warn of what only grows")
    timeline_mb: int = Field(16, ge=0, le=4096, description="memory of the timeline of the last requests; 0: none")


class OpSettings(_Section):
    """What an Op may be tuned by."""

    concurrency: int | None = Field(None, ge=1, description="replicas; without `process`: most Items in its hooks")
    batch_size: int = Field(1, ge=1, description="most samples in a batch")
    max_batch_cost: float | None = Field(None, gt=0, description="most that `cost` of a batch's samples may sum up to")
    max_delay_ms: float = Field(0, ge=0, description="how long a free replica may wait for a fuller batch")
    timeout_ms: int | None = Field(None, ge=1, description="longest time of one Item in this Op's hooks")
    retry: int = Field(0, ge=0, le=10, description="how often a batch whose `process` raised is tried again")
    device: str = Field("cpu", description="cpu, cuda or cuda:0,1; replicas go round the list")
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None = Field(None, description="of a model's arithmetic")
    threads: int | None = Field(None, ge=1, description="threads of a replica's session; default: cores / replicas")
    nan: Literal["pass", "refuse"] = Field(
        "pass", description="what becomes of a result with NaN: an error, or nothing"
    )
    cpu: Cpu = Field("process", description="where preprocess and postprocess run")
    channel_size: int | None = Field(None, ge=1, description="overrides dag.channel_size")

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        devices(value)
        return value

    @property
    def replicas(self) -> int:
        return self.concurrency or 1

    @property
    def session_threads(self) -> int:
        """Threads for the session of one replica."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // self.replicas)


class Settings(_Section):
    """All settings of a served graph; `op` has an entry for every Op."""

    service: ServiceSettings = ServiceSettings()
    dag: DagSettings = DagSettings()
    op: Mapping[str, OpSettings] = Field(default_factory=dict)
    #: Where values were written, by path; see `sources`.
    _written: Mapping[tuple[str, ...], str] = PrivateAttr(default_factory=dict)

    def sources(self) -> dict[str, str]:
        """Where each value comes from, by its dotted name: a file, `environment`, an option, `code` or `default`."""
        return {
            ".".join(path): self._written.get(path, "default")
            for path in _leaf_paths(self.model_dump(include={"service", "dag", "op"}))
        }


SECRETS = {
    name for name, field in ServiceSettings.model_fields.items() if field.annotation == SecretStr | None
}  # fmt: skip
"""Settings that no message shows."""
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_KUBERNETES = re.compile(r"ASYNCLINE_(PORT(_.*)?|SERVICE_HOST|SERVICE_PORT(_.*)?)")
"""What Kubernetes puts into every pod of a namespace that has a Service named asyncline."""


def devices(text: str) -> list[str]:
    """Spell out a device setting: `cuda:0,1` is `["cuda:0", "cuda:1"]`.

    :raises ValueError: it is neither `cpu`, `cuda` nor `cuda:` with numbers.
    """
    kind, colon, numbers = text.partition(":")
    if text in ("cpu", "cuda"):
        return [text if text == "cpu" else "cuda:0"]
    listed = numbers.split(",")
    if kind != "cuda" or not colon or not all(n.isascii() and n.isdigit() for n in listed):
        raise ValueError(f"{text!r} is no device: use cpu, cuda or cuda:0,1")
    return [f"cuda:{int(n)}" for n in listed]


def headers_of(text: str) -> dict[str, str]:
    """Spell out a setting of headers: `a=1,b=2` is `{"a": "1", "b": "2"}`.

    :raises ValueError: it is something else; the message does not show it.
    """
    found = {}
    for part in text.split(","):
        name, equals, value = map(str.strip, part.partition("="))
        if not equals or not _HEADER.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ValueError("expected name=value,name=value")
        found[name] = value
    return found


@dataclass(frozen=True)
class Source:
    """Values from one place: `values` is nested as YAML is, `name` says where they were written."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)


def from_file(path: Path) -> Source:
    """Read a YAML file of settings.

    :raises SettingsError: the file is missing, no YAML, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date like 2020-99-99
        raise SettingsError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict | None):
        raise SettingsError(f"{path}: expected a mapping with service, dag and op")
    return Source(str(path), values or {})


def from_assignments(texts: Iterable[str], name: str = "--set") -> Source:
    """Parse `op.detect.batch_size=8`; `null` is no value.

    :raises SettingsError: a text has no `=` or no section.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or len(path) != _depth(path) + 1 or not all(path):
            raise SettingsError(f"{name} {text!r}: write it as op.detect.batch_size=8")
        _assign(values, path, _scalar(value))
    return Source(name, values)


def from_environment(op_names: Iterable[str], environ: Mapping[str, str] | None = None) -> Source:
    """Read `ASYNCLINE_...` variables. The names of the Ops tell where an Op's name ends and its key begins.

    :raises SettingsError: a variable names no setting.
    """
    environ = os.environ if environ is None else environ
    known: dict[str, tuple[str, ...]] = {}
    ambiguous = set()
    for path in _paths(op_names):
        variable = "ASYNCLINE_" + "_".join(path).upper()
        if variable in known:
            ambiguous.add(variable)
        known[variable] = path
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith("ASYNCLINE_") or variable == MALLOC_SWITCH or _KUBERNETES.fullmatch(variable):
            continue
        if variable not in known:
            raise SettingsError(f"environment: no setting {variable}{_suggest(variable, known)}")
        if variable in ambiguous:
            raise SettingsError(
                f"environment: {variable} means several Ops: give them names that differ in more than case"
            )
        path = known[variable]
        full = path if path[0] in ("dag", "op") else ("service", *path)
        _assign(values, list(full), _scalar(text))
    return Source("environment", values)


def merge(graph_name: str, op_code: Mapping[str, Mapping[str, Any]], *sources: Source) -> Settings:
    """Merge `sources`, later over earlier, over what the code of each Op says, and validate the result.

    :param op_code: for each Op by name, the settings of its class and constructor.
    :raises SettingsError: a key is unknown or a value is out of range; names the key and the source.
    """
    written: dict[tuple[str, ...], str] = {}
    merged: dict[str, Any] = {"service": {}, "dag": {}, "op": {name: dict(code) for name, code in op_code.items()}}
    for source in sources:
        for path, value in _leaves(source.values):
            _check_key(path, value, op_code, source.name, graph_name)
            if len(path) > _depth(path):
                _assign(merged, list(path), value)
                written[path] = source.name
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        path, problem = _first_problem(error)
        where = written.get(path, "code")
        raise SettingsError(f"{'.'.join(path)} ({where}): {problem}") from error
    in_code: list[tuple[str, ...]] = [("op", name, key) for name, code in op_code.items() for key in code]
    settings._written = {**dict.fromkeys(in_code, "code"), **written}
    return settings


def check_op_settings(op_name: str, values: Mapping[str, Any]) -> OpSettings:
    """Validate the settings in an Op's code.

    :raises SettingsError: unknown, of a wrong type or out of range; suggests the nearest right key.
    """
    for key in values:
        if key not in OpSettings.model_fields:
            raise SettingsError(f"op {op_name!r}: no setting {key!r}{_suggest(key, OpSettings.model_fields)}")
    try:
        return OpSettings.model_validate(dict(values))
    except ValidationError as error:
        path, problem = _first_problem(error)
        raise SettingsError(f"op {op_name!r}: {path[0]}: {problem}") from error


def _first_problem(error: ValidationError) -> tuple[tuple[str, ...], str]:
    """The path of the first wrong setting, and what is wrong with it; a secret is not shown."""
    first = error.errors()[0]
    path = tuple(str(part) for part in first["loc"])
    got = "" if path[-1] in SECRETS else f", got {first['input']!r}"
    return path, first["msg"].removeprefix("Value error, ") + got


def _check_key(path: tuple[str, ...], value: Any, ops: Mapping[str, Any], source: str, graph_name: str) -> None:
    if path[0] not in ("op", *_SECTIONS):
        raise SettingsError(f"{source}: no section {path[0]!r}{_suggest(path[0], ['service', 'dag', 'op'])}")
    if path[0] == "op" and len(path) > 1 and path[1] not in ops:
        raise SettingsError(f"{source}: graph {graph_name!r} has no op {path[1]!r}{_suggest(path[1], ops)}")
    depth = _depth(path)
    name = ".".join(path[:depth])
    if len(path) <= depth:
        # A section without keys (`dag:` alone in YAML) says nothing.
        if value not in (None, {}):
            what = "from the names of Ops" if name == "op" else "of settings"
            raise SettingsError(f"{source}: {name}: expected a mapping {what}")
        return
    keys = _keys(path[:depth])
    if path[depth] not in keys:
        raise SettingsError(f"{source}: {name} has no setting {path[depth]!r}{_suggest(path[depth], keys)}")


_SECTIONS: dict[str, type[_Section]] = {"service": ServiceSettings, "dag": DagSettings}
_TRACER = ("dag", "tracer")


def _depth(path: Sequence[str]) -> int:
    """How many parts of a setting's path name its section: `dag`, `dag.tracer`, or `op` and the Op."""
    return 2 if path[0] == "op" or tuple(path[:2]) == _TRACER else 1


def _keys(section: tuple[str, ...]) -> Iterable[str]:
    if section == _TRACER:
        return TracerSettings.model_fields
    return _SECTIONS.get(section[0], OpSettings).model_fields


def _paths(op_names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    yield from ((key,) for key in ServiceSettings.model_fields)
    yield from (("dag", key) for key in DagSettings.model_fields if key != "tracer")
    yield from ((*_TRACER, key) for key in TracerSettings.model_fields)
    yield from (("op", name, key) for name in op_names for key in OpSettings.model_fields)


def _leaves(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        path = (*prefix, str(key))
        if isinstance(value, Mapping) and value and len(path) <= _depth(path):
            yield from _leaves(value, path)
        else:
            yield path, value


def _leaf_paths(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaf_paths(value, (*prefix, key))
        else:
            yield (*prefix, key)


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def _scalar(text: str) -> str | None:
    # pydantic turns the text into the field's own type; only "no value" needs a word.
    return None if text == "null" else text


def _suggest(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f" (there are: {', '.join(sorted(known))})" if len(known) <= 12 else ""
