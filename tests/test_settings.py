"""Settings: four sources key by key, and errors that name the key, where it was written and the cure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from asyncline import SettingsError
from asyncline.settings import (
    OpSettings,
    ServiceSettings,
    Settings,
    Source,
    check_op_settings,
    devices,
    from_assignments,
    from_environment,
    from_file,
    merge,
)

OPS: dict[str, dict[str, Any]] = {"detect": {}, "text_lines": {}}


def yaml_source(folder: Path, text: str | bytes) -> Source:
    path = folder / "config.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return from_file(path)


def merged(*sources: Source, **code: dict[str, Any]) -> Settings:
    return merge("ocr", OPS | code, *sources)


# -- precedence


def test_without_any_source_the_defaults_are_in_force() -> None:
    settings = merged()
    assert settings.service == ServiceSettings()
    assert settings.service.host == "127.0.0.1"
    assert settings.op == {"detect": OpSettings(), "text_lines": OpSettings()}


def test_each_source_goes_over_the_one_before_key_by_key(tmp_path: Path) -> None:
    code = {"batch_size": 1, "retry": 1, "timeout_ms": 1, "concurrency": 1}
    file = yaml_source(tmp_path, "op: {detect: {retry: 2, timeout_ms: 2, concurrency: 2}}")
    environment = from_environment(OPS, {"ASYNCLINE_OP_DETECT_TIMEOUT_MS": "3", "ASYNCLINE_OP_DETECT_CONCURRENCY": "3"})
    command_line = from_assignments(["op.detect.concurrency=4"])
    detect = merged(file, environment, command_line, detect=code).op["detect"]
    assert (detect.batch_size, detect.retry, detect.timeout_ms, detect.concurrency) == (1, 2, 3, 4)


def test_sections_of_several_sources_are_joined(tmp_path: Path) -> None:
    file = yaml_source(tmp_path, "service: {http_port: 9000}\ndag: {channel_size: 10}")
    environment = from_environment(OPS, {"ASYNCLINE_TIMEOUT_MS": "50", "ASYNCLINE_DAG_CPU_WORKERS": "2"})
    settings = merged(file, environment, Source("command line", {"service": {"host": "::1"}}))
    assert (settings.service.http_port, settings.service.timeout_ms, settings.service.host) == (9000, 50, "::1")
    assert (settings.dag.channel_size, settings.dag.cpu_workers) == (10, 2)


def test_settings_of_one_op_leave_the_other_alone() -> None:
    settings = merged(from_assignments(["op.detect.retry=3"]))
    assert settings.op["detect"].retry == 3
    assert settings.op["text_lines"].retry == 0


@pytest.mark.parametrize("key", ["dag.cpu_workers", "service.auth_token", "op.detect.timeout_ms"])
def test_null_takes_back_what_an_earlier_source_said(tmp_path: Path, key: str) -> None:
    file = yaml_source(
        tmp_path, "service: {auth_token: secret}\ndag: {cpu_workers: 4}\nop: {detect: {timeout_ms: 100}}"
    )
    section, _, name = key.rpartition(".")
    settings = merged(file, from_assignments([f"{key}=null"]))
    found = settings.op["detect"] if section.startswith("op") else getattr(settings, section)
    assert getattr(found, name) is None


def test_null_is_refused_where_a_value_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"service\.http_port \(.*config\.yml\): .*valid integer, got None"):
        merged(yaml_source(tmp_path, "service: {http_port: null}"))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        merged().service.http_port = 1  # type: ignore[misc]  # that is the point


# -- the environment


def test_what_kubernetes_injects_for_a_service_of_our_name_is_no_setting() -> None:
    injected = ["PORT", "PORT_8000_TCP", "PORT_8000_TCP_ADDR", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP"]
    assert from_environment(OPS, {f"ASYNCLINE_{name}": "tcp://10.0.0.1:8000" for name in injected}).values == {}


def test_underscores_in_the_name_of_an_op_are_understood() -> None:
    source = from_environment(OPS, {"ASYNCLINE_OP_TEXT_LINES_MAX_DELAY_MS": "5"})
    assert merged(source).op["text_lines"].max_delay_ms == 5


def test_the_name_of_an_op_may_begin_with_that_of_another() -> None:
    ops = {"a": {}, "a_max": {}, "a_channel": {}}
    environ = {"ASYNCLINE_OP_A_MAX_DELAY_MS": "1", "ASYNCLINE_OP_A_MAX_MAX_DELAY_MS": "2", "ASYNCLINE_OP_A_RETRY": "3"}
    settings = merge("g", ops, from_environment(ops, environ))
    assert (settings.op["a"].max_delay_ms, settings.op["a_max"].max_delay_ms, settings.op["a"].retry) == (1, 2, 3)
    assert settings.op["a_channel"] == OpSettings()


def test_a_variable_that_means_two_ops_is_refused() -> None:
    with pytest.raises(SettingsError, match="environment: ASYNCLINE_OP_CROP_RETRY means several Ops"):
        from_environment(["crop", "Crop"], {"ASYNCLINE_OP_CROP_RETRY": "1"})
    assert from_environment(["crop", "Crop"], {}).values == {}


@pytest.mark.parametrize("name", [*ServiceSettings.model_fields])
def test_every_service_setting_has_a_variable(name: str) -> None:
    source = from_environment([], {f"ASYNCLINE_{name.upper()}": "7"})
    assert source.values == {"service": {name: "7"}}


def test_an_unknown_variable_suggests_the_nearest() -> None:
    with pytest.raises(
        SettingsError, match="environment: no setting ASYNCLINE_HTP_PORT; did you mean 'ASYNCLINE_HTTP_PORT'"
    ):
        from_environment(OPS, {"ASYNCLINE_HTP_PORT": "1"})


def test_a_variable_of_an_unknown_op_suggests_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'ASYNCLINE_OP_DETECT_RETRY'"):
        from_environment(OPS, {"ASYNCLINE_OP_DETEC_RETRY": "1"})


def test_variables_of_others_are_left_alone() -> None:
    assert from_environment(OPS, {"PATH": "/bin", "ASYNC": "1", "asyncline_http_port": "1"}).values == {}


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCLINE_DRAIN_S", "3")
    assert merged(from_environment(OPS)).service.drain_s == 3


def test_a_wrong_value_names_the_environment() -> None:
    with pytest.raises(SettingsError, match=r"op\.detect\.retry \(environment\): .*, got 'often'"):
        merged(from_environment(OPS, {"ASYNCLINE_OP_DETECT_RETRY": "often"}))


# -- unknown keys


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"servic": {"host": "a"}}, "F: no section 'servic'; did you mean 'service'"),
        ({"servic": None}, "F: no section 'servic'; did you mean 'service'"),
        ({"model": {}}, r"F: no section 'model' \(there are: dag, op, service\)"),
        ({"service": {"http_prot": 1}}, "F: service has no setting 'http_prot'; did you mean 'http_port'"),
        ({"service": {"http_prot": None}}, "F: service has no setting 'http_prot'; did you mean 'http_port'"),
        ({"dag": {"chanel_size": 1}}, "F: dag has no setting 'chanel_size'; did you mean 'channel_size'"),
        ({"dag": {"zzz": 1}}, r"F: dag has no setting 'zzz' \(there are: channel_size, cpu_threads, cpu_workers"),
        ({"op": {"detec": {"retry": 1}}}, "F: graph 'ocr' has no op 'detec'; did you mean 'detect'"),
        ({"op": {"detec": None}}, "F: graph 'ocr' has no op 'detec'; did you mean 'detect'"),
        ({"op": {"detec": {}}}, "F: graph 'ocr' has no op 'detec'; did you mean 'detect'"),
        ({"op": {"zzz": {"retry": 1}}}, r"F: graph 'ocr' has no op 'zzz' \(there are: detect, text_lines\)"),
        ({"op": {"detect": {"batchsize": 1}}}, r"F: op\.detect has no setting 'batchsize'; did you mean 'batch_size'"),
        ({"op": {5: {"retry": 1}}}, "F: graph 'ocr' has no op '5'"),
    ],
)
def test_an_unknown_key_names_its_source_and_suggests_the_nearest(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{message}"):
        merged(Source("F", values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"op": "detect"}, "F: op: expected a mapping from the names of Ops"),
        ({"op": ["detect"]}, "F: op: expected a mapping from the names of Ops"),
        ({"service": 8000}, "F: service: expected a mapping of settings"),
        ({"dag": False}, "F: dag: expected a mapping of settings"),
        ({"op": {"detect": 5}}, r"F: op\.detect: expected a mapping of settings"),
        ({"op": {"detect": []}}, r"F: op\.detect: expected a mapping of settings"),
    ],
)
def test_a_section_that_is_no_mapping_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{message}$"):
        merged(Source("F", values))


@pytest.mark.parametrize("text", ["", "# nothing\n", "service:\ndag:\nop:\n", "op:\n  detect:\n", "op: {}", "{}"])
def test_empty_sections_say_nothing(tmp_path: Path, text: str) -> None:
    assert merged(yaml_source(tmp_path, text)) == merged()


# -- values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("service.http_port", 65536),
        ("service.http_port", "eighty"),
        ("service.timeout_ms", 0),
        ("service.max_in_flight", -1),
        ("service.max_body_mb", 0),
        ("service.keepalive_s", float("inf")),
        ("service.drain_s", float("nan")),
        ("dag.channel_size", 0),
        ("dag.cpu_workers", 1.5),
        ("op.detect.batch_size", 0),
        ("op.detect.retry", 11),
        ("op.detect.max_delay_ms", -1),
        ("op.detect.cpu", "fiber"),
        ("op.detect.timeout_ms", {"a": 1}),
        ("op.detect.batch_size", [1]),
    ],
)
def test_a_wrong_value_names_key_source_and_value(key: str, value: Any) -> None:
    values: Any = value
    for part in reversed(key.split(".")):
        values = {part: values}
    with pytest.raises(SettingsError) as caught:
        merged(Source("config/ocr.yml", values))
    message = str(caught.value)
    assert message.startswith(f"{key} (config/ocr.yml): ")
    assert message.endswith(f", got {value!r}")
    assert "\n" not in message


def test_a_wrong_value_of_the_code_says_so() -> None:
    with pytest.raises(SettingsError, match=r"^op\.detect\.retry \(code\): .*, got 99$"):
        merged(Source("F", {"op": {"detect": {"batch_size": 2}}}), detect={"retry": 99})


def test_the_last_source_of_a_wrong_value_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^op\.detect\.retry \(--set\)"):
        merged(Source("F", {"op": {"detect": {"retry": 1}}}), from_assignments(["op.detect.retry=99"]))


def test_text_becomes_the_type_of_the_setting() -> None:
    settings = merged(from_assignments(["service.http_port=9000", "service.max_body_mb=0.5", "op.detect.retry= 2"]))
    assert (settings.service.http_port, settings.service.max_body_mb, settings.op["detect"].retry) == (9000, 0.5, 2)


def test_a_token_is_text_and_is_never_shown(tmp_path: Path) -> None:
    settings = merged(yaml_source(tmp_path, "service: {auth_token: '0123'}"))
    assert settings.service.auth_token is not None
    assert settings.service.auth_token.get_secret_value() == "0123"
    assert "0123" not in repr(settings)


@pytest.mark.parametrize("token", ["31337", "0x7a69", "31337.5", "yes", "2026-11-21"])
def test_a_token_that_yaml_reads_as_another_type_is_refused_without_showing_it(tmp_path: Path, token: str) -> None:
    # Accepting it would change it: YAML makes 83 of 0123.
    with pytest.raises(SettingsError, match=r"service\.auth_token \(.*\): write it in quotes") as caught:
        merged(yaml_source(tmp_path, f"service: {{auth_token: {token}}}"))
    assert "31337" not in str(caught.value)


def test_a_token_of_digits_in_the_environment_is_text() -> None:
    token = merged(from_environment(OPS, {"ASYNCLINE_AUTH_TOKEN": "0123"})).service.auth_token
    assert token is not None
    assert token.get_secret_value() == "0123"


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"service\.auth_token \(environment\)"):
        merged(from_environment(OPS, {"ASYNCLINE_AUTH_TOKEN": ""}))


# -- the file


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*none\.yml: No such file or directory"):
        from_file(tmp_path / "none.yml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*: Is a directory"):
        from_file(tmp_path)


@pytest.mark.parametrize(
    "text", ["op: {", "a: b: c", "\t- a", "op: &a [*b]", b"\xff\xfe\xfa", "a: \x00", "a: 2020-99-99"]
)
def test_broken_yaml_is_one_line_with_the_file(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(SettingsError, match=r"config\.yml is no YAML: ") as caught:
        yaml_source(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- op", "[]", "text", "5", "0", "false", "''"])
def test_yaml_that_is_no_mapping_says_what_was_expected(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"config\.yml: expected a mapping with service, dag and op"):
        yaml_source(tmp_path, text)


def test_yaml_holds_no_code(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is no YAML"):
        yaml_source(tmp_path, "service: !!python/object/apply:os.getcwd []")


# -- assignments


@pytest.mark.parametrize(
    "text",
    ["", "=", "op.detect.retry", "retry=1", "op.=1", ".retry=1", "op..retry=1", "op.detect=1", "service=1", "dag.a.b=1",
     "op.detect.retry.x=1"],
)  # fmt: skip
def test_a_malformed_assignment_says_how_to_write_it(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_assignments([text])
    assert str(caught.value) == f"--set {text!r}: write it as op.detect.batch_size=8"


def test_the_value_of_an_assignment_may_hold_equal_signs() -> None:
    assert from_assignments(["service.auth_token=a=b="]).values == {"service": {"auth_token": "a=b="}}


def test_the_later_of_two_assignments_wins() -> None:
    assert merged(from_assignments(["op.detect.retry=1", "op.detect.retry=2"])).op["detect"].retry == 2


def test_an_unknown_key_of_an_assignment_names_it() -> None:
    with pytest.raises(SettingsError, match=r"--set: op\.detect has no setting 'batch'; did you mean 'batch_size'"):
        merged(from_assignments(["op.detect.batch=8"]))


# -- devices


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("cpu", ["cpu"]),
        ("cuda", ["cuda:0"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:0,1", ["cuda:0", "cuda:1"]),
        ("cuda:3,1,3", ["cuda:3", "cuda:1", "cuda:3"]),
    ],
)
def test_a_device_setting_is_spelled_out(text: str, listed: list[str]) -> None:
    assert devices(text) == listed


@pytest.mark.parametrize(
    "text", ["", "gpu", "cpu:0", "cuda:", "cuda:a", "cuda:0,", "cuda:-1", "cuda0", "CUDA", "cuda:²"]
)
def test_what_is_no_device_says_what_to_use(text: str) -> None:
    with pytest.raises(ValueError, match="is no device: use cpu, cuda or cuda:0,1"):
        devices(text)


# -- an Op's own


def test_an_op_without_concurrency_has_one_replica_with_all_cores() -> None:
    settings = OpSettings()
    assert settings.replicas == 1
    assert settings.session_threads == len(os.sched_getaffinity(0))


def test_replicas_share_the_cores_and_have_one_each_at_least() -> None:
    assert OpSettings(concurrency=10_000).session_threads == 1
    assert OpSettings(concurrency=2, threads=3).session_threads == 3


def test_settings_in_code_name_the_op_and_suggest() -> None:
    with pytest.raises(SettingsError, match=r"^op 'detect': no setting 'batchsize'; did you mean 'batch_size'"):
        check_op_settings("detect", {"batchsize": 1})
    with pytest.raises(SettingsError, match=r"^op 'detect': retry: .*, got -1$"):
        check_op_settings("detect", {"retry": -1})


def test_the_tracer_has_settings_of_its_own_below_dag() -> None:
    found = merge("g", {}, Source("a file", {"dag": {"tracer": {"interval_s": 5}}}))
    assert found.dag.tracer.interval_s == 5
    assert merge("g", {}, from_assignments(["dag.tracer.interval_s=7"])).dag.tracer.interval_s == 7
    assert merge("g", {}, from_environment([], {"ASYNCLINE_DAG_TRACER_INTERVAL_S": "9"})).dag.tracer.interval_s == 9
    assert merge("g", {}).dag.tracer.interval_s == 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tracer": {"interval": 5}}, "a file: dag.tracer has no setting 'interval'; did you mean 'interval_s'?"),
        ({"tracer": 5}, "a file: dag.tracer: expected a mapping of settings"),
        ({"tracer": {"interval_s": 61}}, "dag.tracer.interval_s (a file): Input should be less than or equal to 60"),
    ],
)
def test_a_wrong_setting_of_the_tracer_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        merge("g", {}, Source("a file", {"dag": values}))
    assert str(error.value).startswith(message)


def test_each_value_tells_where_it_was_written(tmp_path: Path) -> None:
    file = yaml_source(tmp_path, "service: {http_port: 1, drain_s: 1}\nop: {detect: {retry: 1}}")
    found = merge(
        "ocr", {"detect": {"retry": 2, "batch_size": 4}, "text_lines": {}},
        file,
        from_environment(OPS, {"ASYNCLINE_DRAIN_S": "2", "ASYNCLINE_DAG_TRACER_INTERVAL_S": "3"}),
        from_assignments(["op.text_lines.retry=3"]),
        Source("command line", {"service": {"grpc_port": None}}),
    ).sources()  # fmt: skip
    assert found["service.http_port"] == found["op.detect.retry"] == file.name
    assert found["service.drain_s"] == found["dag.tracer.interval_s"] == "environment"
    assert found["op.detect.batch_size"] == "code"
    assert found["op.text_lines.retry"] == "--set"
    assert found["service.grpc_port"] == "command line"
    assert found["service.tcp_port"] == found["op.text_lines.batch_size"] == "default"
    assert {name.partition(".")[0] for name in found} == {"service", "dag", "op"}
