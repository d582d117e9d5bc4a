"""config.yml: every key, its default, and what is wrong with wrong values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncline import SettingsError
from asyncline.paddle import ArgsParser, Op
from asyncline.paddle.config import read
from asyncline.paddle.keys import DAG, LOCAL, OP, SERVICE, TRACER

from .pipelines import entry, prepared

DEFAULTS = {
    "rpc_port": None, "http_port": None, "worker_num": 1, "build_dag_each_worker": False, "grpc_gateway_port": None,
    "dag.is_thread_op": True, "dag.retry": 1, "dag.client_type": "brpc", "dag.use_profile": False,
    "dag.channel_size": 0, "dag.channel_recv_frist_arrive": False, "dag.tracer.interval_s": -1,
    "dag.enable_prometheus": False, "dag.prometheus_port": None,
    "op.a.concurrency": 1, "op.a.timeout": -1, "op.a.retry": 1, "op.a.batch_size": 1, "op.a.auto_batching_timeout": -1,
    "op.a.client_type": None, "op.a.server_endpoints": None, "op.a.fetch_list": None, "op.a.client_config": None,
    "op.a.use_encryption_model": False, "op.a.encryption_key": "",
    "op.a.local_service_conf.model_config": None, "op.a.local_service_conf.client_type": None,
    "op.a.local_service_conf.workdir": "", "op.a.local_service_conf.thread_num": 2,
    "op.a.local_service_conf.fetch_list": None, "op.a.local_service_conf.device_type": -1,
    "op.a.local_service_conf.devices": "", "op.a.local_service_conf.mem_optim": True,
    "op.a.local_service_conf.ir_optim": False, "op.a.local_service_conf.precision": "fp32",
    "op.a.local_service_conf.use_calib": False, "op.a.local_service_conf.use_mkldnn": False,
    "op.a.local_service_conf.mkldnn_cache_capacity": 0, "op.a.local_service_conf.mkldnn_op_list": None,
    "op.a.local_service_conf.mkldnn_bf16_op_list": None, "op.a.local_service_conf.min_subgraph_size": 3,
    "op.a.local_service_conf.collect_shape_range_info": "", "op.a.local_service_conf.tuned_dynamic_shape_info": "",
}  # fmt: skip

SECTIONS = {"dag": DAG, "dag.tracer": TRACER, "op.a": OP, "op.a.local_service_conf": LOCAL}


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return {"http_port": 9999, **value}


def found(config: Any, path: str) -> Any:
    section, _, key = path.rpartition(".")
    values = {
        "": config.service, "dag": config.dag, "dag.tracer": config.tracer, "op.a": config.op("a"),
        "op.a.local_service_conf": config.op("a")["local_service_conf"],
    }[section]  # fmt: skip
    return values[key]


def test_the_table_has_every_key() -> None:
    paths = {name for name, key in SERVICE.items() if key.kind != "a mapping"}
    for section, keys in SECTIONS.items():
        paths |= {f"{section}.{name}" for name, key in keys.items() if key.kind != "a mapping"}
    assert paths == set(DEFAULTS)


@pytest.mark.parametrize("path", [path for path in DEFAULTS if path != "http_port"])
def test_a_key_that_is_missing_or_null_has_its_default(path: str) -> None:
    assert found(read(yml_dict={"http_port": 9999}), path) == DEFAULTS[path]
    assert found(read(yml_dict=nested(path, None)), path) == DEFAULTS[path]


def wrong(path: str) -> list[Any]:
    """Values of other types, and out of range."""
    section, _, name = path.rpartition(".")
    key = (SECTIONS[section] if section else SERVICE)[name]
    values: list[Any] = {
        "a whole number": ["many", 1.5, True, []],
        "true or false": ["yes please", 1],
        "text": [5, [], True],
        "a list": ["text", 5],
        "a mapping": [],
    }[key.kind]
    values += [key.least - 1] if key.least is not None else []
    values += [key.most + 1] if key.most is not None else []
    return [*values, "tcp"] if key.choices else values


@pytest.mark.parametrize("path, value", [(path, value) for path in DEFAULTS for value in wrong(path)])
def test_a_wrong_value_is_refused_by_the_name_of_its_key(path: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"^yml_dict: {path} must be "):
        read(yml_dict=nested(path, value))


@pytest.mark.parametrize(
    "path, words",
    [
        ("worker_nums", "yml_dict: worker_nums: no such key; did you mean 'worker_num'?"),
        ("dag.is_thread_ops", "yml_dict: dag.is_thread_ops: no such key; did you mean 'is_thread_op'?"),
        ("dag.tracer.interval", "yml_dict: dag.tracer.interval: no such key; did you mean 'interval_s'?"),
        ("op.a.bach_size", "yml_dict: op.a.bach_size: no such key; did you mean 'batch_size'?"),
        ("op.a.local_service_conf.device", "op.a.local_service_conf.device: no such key; did you mean 'devices'?"),
        ("op.a.colour", "yml_dict: op.a.colour: no such key"),
    ],
)
def test_an_unknown_key_is_a_warning_with_the_nearest_right_one(
    path: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    read(yml_dict=nested(path, 1))
    assert [words in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "path, value",
    [
        ("build_dag_each_worker", True), ("grpc_gateway_port", 18000), ("dag.retry", 10), ("dag.client_type", "grpc"),
        ("dag.use_profile", True), ("dag.enable_prometheus", True), ("dag.prometheus_port", 19393),
        ("op.a.use_encryption_model", True), ("op.a.encryption_key", "k"),
        ("op.a.local_service_conf.workdir", "w"), ("op.a.local_service_conf.mem_optim", False),
        ("op.a.local_service_conf.ir_optim", True), ("op.a.local_service_conf.use_calib", True),
        ("op.a.local_service_conf.use_mkldnn", True), ("op.a.local_service_conf.mkldnn_cache_capacity", 10),
        ("op.a.local_service_conf.mkldnn_op_list", ["conv2d"]), ("op.a.local_service_conf.min_subgraph_size", 5),
        ("op.a.local_service_conf.mkldnn_bf16_op_list", ["conv2d"]),
        ("op.a.local_service_conf.collect_shape_range_info", "f"),
        ("op.a.local_service_conf.tuned_dynamic_shape_info", "f"),
    ],
)  # fmt: skip
def test_a_key_without_an_effect_is_a_warning_that_says_so(
    path: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = read(yml_dict=nested(path, value))
    assert found(config, path) == value
    assert [f"{path} changes nothing here: " in record.getMessage() for record in caplog.records] == [True]


def test_a_whole_file_without_surprises_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "config.yml"
    file.write_text("http_port: 9999\nworker_num: 4\ndag: {tracer: {interval_s: 10}}\nop: {a: {concurrency: 2}}\n")
    assert read(str(file)).op("a")["concurrency"] == 2
    assert not caplog.records


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, "rpc_port and http_port are both missing"),
        ({"http_port": 9999, "dag": {"channel_recv_frist_arrive": True}}, "an Op waits for all of its input_ops"),
        ({"http_port": 9999, "op": {"a": 5}}, "op.a must be a mapping"),
        ({"http_port": 9999, "dag": [1]}, "dag must be a mapping"),
        ([1], "expected a mapping"),
    ],
)
def test_a_file_that_cannot_be_served_is_refused(values: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read(yml_dict=values)


def test_either_a_file_or_a_dict_is_given() -> None:
    for arguments in ({}, {"yml_file": "config.yml", "yml_dict": {}}):
        with pytest.raises(SettingsError, match="either yml_file or yml_dict"):
            read(**arguments)


@pytest.mark.parametrize(
    "text, words", [(None, "cannot read"), ("a: [", "is no YAML"), ("!!python/name:os", "is no YAML")]
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "config.yml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read(str(file))


# -- translation


class Runs(Op):
    def process(self, feed_batch: Any, typical_logid: int) -> Any: ...


def settings(cls: type[Op] = Runs, arguments: dict[str, Any] | None = None, **op: Any) -> Any:
    server = prepared(cls("a", entry(), **(arguments or {})), op={"a": op})
    return server.settings.op["a"]


@pytest.mark.parametrize(
    "op, key, value",
    [
        ({"concurrency": 3}, "concurrency", 3),
        ({"timeout": 250}, "timeout_ms", 250),
        ({"timeout": 0}, "timeout_ms", None),
        ({}, "timeout_ms", None),
        ({"retry": 1}, "retry", 0),
        ({"retry": 3}, "retry", 2),
        ({"retry": 50}, "retry", 10),
        ({"batch_size": 8}, "batch_size", 8),
        ({"batch_size": 8, "auto_batching_timeout": 50}, "max_delay_ms", 50),
        ({"batch_size": 1, "auto_batching_timeout": 50}, "max_delay_ms", 0),
        ({"batch_size": 8, "auto_batching_timeout": -1}, "max_delay_ms", 0),
        ({}, "cpu", "thread"),
    ],
)
def test_settings_of_an_op_are_ours(op: dict[str, Any], key: str, value: Any) -> None:
    assert getattr(settings(**op), key) == value


def test_arguments_of_an_op_win_over_the_file() -> None:
    arguments = {"concurrency": 5, "timeout": 70, "retry": 4, "batch_size": 3, "auto_batching_timeout": 9}
    ours = settings(Runs, arguments, concurrency=1, timeout=1, retry=1, batch_size=1, auto_batching_timeout=1)
    assert (ours.concurrency, ours.timeout_ms, ours.retry, ours.batch_size, ours.max_delay_ms) == (5, 70, 3, 3, 9)


def test_an_op_without_a_model_has_no_batches() -> None:
    ours = settings(Op, batch_size=8, auto_batching_timeout=50, retry=3, concurrency=4)
    assert (ours.concurrency, ours.batch_size, ours.max_delay_ms, ours.retry) == (4, 1, 0, 0)


def test_the_service_is_bounded() -> None:
    server = prepared(Op("a", entry()), worker_num=2000, dag={"channel_size": 50}, op={"a": {"concurrency": 7}})
    ours = server.settings
    assert (ours.service.http_port, ours.service.max_in_flight, ours.service.timeout_ms) == (9999, 2000, 60_000)
    assert (ours.dag.channel_size, ours.dag.cpu_threads) == (50, 7)
    assert ours.service.host == "0.0.0.0"
    assert prepared(Op("a", entry())).settings.service.max_in_flight == 512


@pytest.mark.parametrize("given, ours", [(None, -1), (-1, -1), (-5, -1), (0, 0), (10, 10), (300, 60)])
def test_the_tracer_keeps_its_interval(given: int | None, ours: int) -> None:
    server = prepared(Op("a", entry()), dag={"tracer": {"interval_s": given}})
    assert server.settings.dag.tracer.interval_s == ours


@pytest.mark.parametrize(
    "ports, http_port, grpc_port",
    [
        ({"rpc_port": 18070, "http_port": 18071}, 18071, 18070),
        ({"http_port": 18071}, 18071, None),
        ({"rpc_port": 18070, "http_port": None}, 0, 18070),
    ],
)
def test_only_the_ports_of_the_file_are_opened(ports: dict[str, Any], http_port: int, grpc_port: int | None) -> None:
    service = prepared(Op("a", entry()), **ports).settings.service
    assert (service.http_port, service.grpc_port, service.tcp_port) == (http_port, grpc_port, None)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCLINE_HTTP_PORT", "0")
    monkeypatch.setenv("ASYNCLINE_OP_A_CONCURRENCY", "3")
    ours = prepared(Op("a", entry()), op={"a": {"concurrency": 2}}).settings
    assert (ours.service.http_port, ours.op["a"].concurrency) == (0, 3)


def test_a_section_of_an_op_that_is_not_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    prepared(Op("a", entry()), op={"det": {}})
    assert "op.det: the pipeline has no such Op" in caplog.text


@pytest.mark.parametrize("where", ["argument", "file"])
def test_servers_of_paddle_are_refused_with_what_to_do_instead(where: str) -> None:
    endpoints = {"server_endpoints": ["127.0.0.1:9393"], "client_type": "brpc"}
    with pytest.raises(SettingsError, match=r"op\.a\.server_endpoints: .* with client_type 'brpc'.*model_config"):
        settings(Runs, endpoints) if where == "argument" else settings(Runs, **endpoints)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_a_wrong_concurrency_in_code_is_refused(value: Any) -> None:
    with pytest.raises(SettingsError, match="op 'a': concurrency"):
        settings(Runs, {"concurrency": value})


# -- the command line


def test_options_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("http_port: 9999\nop: {a: {concurrency: 2}}\n")
    options = ["http_port=18080", "op.a.concurrency=4", "dag.is_thread_op=False", "op.a.local_service_conf.devices=0",
               "op.a.local_service_conf.model_config=./det.onnx"]  # fmt: skip
    arguments = ArgsParser().parse_args(["-c", str(file), "-o", *options])
    assert arguments.conf_dict == {
        "http_port": 18080,
        "op": {"a": {"concurrency": 4, "local_service_conf": {"devices": "0", "model_config": "./det.onnx"}}},
        "dag": {"is_thread_op": False},
    }
    assert read(yml_dict=arguments.conf_dict).service["http_port"] == 18080


@pytest.mark.parametrize("option", ["http_port", "=5", "op..a=5", "http_port.a=5"])
def test_an_option_that_is_none_is_refused(tmp_path: Path, option: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text("http_port: 9999\n")
    with pytest.raises(SettingsError, match="-o "):
        ArgsParser().parse_args(["-c", str(file), "-o", option])


def test_the_command_line_names_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ArgsParser().parse_args([])
    assert "-c/--config" in capsys.readouterr().err
