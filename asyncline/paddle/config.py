"""Config: what Paddle's config.yml says, checked, with all defaults."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from asyncline.errors import SettingsError
from asyncline.paddle.keys import DAG, LOCAL, OP, SERVICE, TRACER, Key

log = logging.getLogger("asyncline.paddle")


@dataclass(frozen=True)
class Config:
    """The sections, each with a value for every key."""

    service: Mapping[str, Any]
    dag: Mapping[str, Any]
    tracer: Mapping[str, Any]
    ops: Mapping[str, Mapping[str, Any]]
    """By name; `local_service_conf` is complete too."""
    source: str = "config"
    """Where it was written, for messages."""

    def op(self, name: str) -> Mapping[str, Any]:
        """Of an Op, all defaults where it has no section."""
        found = self.ops.get(name)
        return _op({}, name, self.source) if found is None else found


def read(yml_file: str | None = None, yml_dict: dict[str, Any] | None = None) -> Config:
    """Check a file, or what such a file says. A key that is not known, or changes nothing here, is a warning.

    :raises SettingsError: a value is wrong; names the key and the file.
    """
    if (yml_file is None) == (yml_dict is None):
        raise SettingsError("give either yml_file or yml_dict")
    values: Any = yml_dict
    source = "yml_dict"
    if yml_file is not None:
        values, source = load_yaml(yml_file), str(yml_file)
    if not isinstance(values, dict):
        raise SettingsError(f"{source}: expected a mapping with http_port, dag and op")
    service = _section(values, SERVICE, f"{source}: ")
    if service["rpc_port"] is None and service["http_port"] is None:
        raise SettingsError(f"{source}: rpc_port and http_port are both missing: give one")
    dag = _section(service["dag"] or {}, DAG, f"{source}: dag.")
    if dag["channel_recv_frist_arrive"]:
        raise SettingsError(
            f"{source}: dag.channel_recv_frist_arrive: an Op waits for all of its input_ops here; "
            "let one Op call both ways and take the first"
        )
    ops = {}
    for name, section in (service["op"] or {}).items():
        if not isinstance(section, dict | None):
            raise SettingsError(f"{source}: op.{name} must be a mapping, got {section!r}")
        ops[str(name)] = _op(section or {}, str(name), source)
    tracer = _section(dag["tracer"] or {}, TRACER, f"{source}: dag.tracer.")
    return Config(service, dag, tracer, ops, source)


def load_yaml(path: str) -> Any:
    """:raises SettingsError: the file is missing, or no YAML."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def _op(section: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    values = _section(section, OP, f"{source}: op.{name}.")
    local = values["local_service_conf"] or {}
    return {**values, "local_service_conf": _section(local, LOCAL, f"{source}: op.{name}.local_service_conf.")}


def _section(values: Mapping[str, Any], keys: Mapping[str, Key], prefix: str) -> dict[str, Any]:
    for name in values:
        if name not in keys:
            near = difflib.get_close_matches(str(name), keys, n=1)
            log.warning("%s%s: no such key%s", prefix, name, f"; did you mean {near[0]!r}?" if near else "")
    checked = {}
    for name, key in keys.items():
        value = values.get(name)
        if value is None:
            checked[name] = key.default
            continue
        checked[name] = key.check(f"{prefix}{name}", value)
        if key.idle and value != key.default:
            log.warning("%s%s changes nothing here: %s", prefix, name, key.idle)
    return checked
