"""ArgsParser: `-c config.yml -o op.det.concurrency=2`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

import yaml

from asyncline.errors import SettingsError
from asyncline.paddle.config import load_yaml


class ArgsParser(ArgumentParser):
    """Arguments of a service's script; `parse_args().conf_dict` goes to `prepare_pipeline_config(yml_dict=...)`."""

    def __init__(self) -> None:
        super().__init__()
        self.add_argument("-c", "--config", required=True, help="configuration file to use")
        self.add_argument("-o", "--opt", nargs="+", default=[], metavar="KEY=VALUE", help="op.det.concurrency=2")

    def parse_args(self, argv: Sequence[str] | None = None) -> Namespace:  # type: ignore[override]  # as Paddle's
        """:raises SettingsError: the file cannot be read, or an option is no `key=value`."""
        arguments = super().parse_args(argv)
        values = load_yaml(arguments.config)
        if not isinstance(values, dict):
            raise SettingsError(f"{arguments.config}: expected a mapping with http_port, dag and op")
        for text in arguments.opt:
            _set(values, text.strip())
        arguments.conf_dict = values
        return arguments


def _set(values: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    *sections, last = key.split(".")
    if not equals or not all((*sections, last)):
        raise SettingsError(f"-o {text!r}: write it as op.det.concurrency=2")
    for section in sections:
        inner = values.get(section)
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise SettingsError(f"-o {text!r}: {section} has a value, so it has no {last}")
        values = inner
    # Numbers and true and false only: what else it may be, `devices=0` for example, is text.
    values[last] = _value(last, value)


def _value(key: str, text: str) -> Any:
    if key == "devices":
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, int | float | list) else text
