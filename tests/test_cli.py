"""The command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import asyncline
from tests.serving import ROOT, run, serving


def test_version() -> None:
    assert run("--version") == (0, f"asyncline {asyncline.__version__}\n", "")


def test_help_lists_every_service_setting_with_its_default() -> None:
    code, out, _ = run("serve", "--help")
    assert code == 0
    for option in (
        "--http-port",
        "--timeout-ms",
        "--auth-token",
        "--tls-cert",
        "--set",
        "--config",
        "--reload",
        "--supervise",
    ):
        assert option in out
    assert "(default 10000)" in out


def test_check_prints_the_plan_without_serving() -> None:
    code, out, err = run("check", "good:work", "--set", "op.work.concurrency=3", "--max-in-flight", "7")
    assert (code, err) == (0, "")
    assert "graph work" in out and "3 x cpu, batches of 4" in out and "process" in out
    assert "at most 7 requests in flight" in out


def test_check_shows_which_hooks_run_in_one_task_and_a_setting_keeps_them_apart() -> None:
    code, out, err = run("check", "fused:graph", env={"COLUMNS": "200"})
    assert (code, err) == (0, "")
    assert "thread, with preprocess" in out and out.count("thread, with first preprocess") == 2
    code, out, err = run("check", "fused:graph", "--set", "dag.fuse=false", env={"COLUMNS": "200"})
    assert (code, err) == (0, "") and "thread" in out and "with" not in out.replace("answers with", "")


def test_check_refuses_what_could_not_start_as_serve_does() -> None:
    code, out, err = run("check", "lanes:hidden")
    assert (code, out) == (1, "")
    assert err.startswith(
        "error: op 'hidden': its hooks run in the CPU pool, which cannot import '_hidden.<locals>.Hidden'"
    )
    assert run("serve", "lanes:hidden", "--http-port", "0") == (code, out, err)


def test_an_op_that_workers_cannot_make_passes_the_check_in_another_lane() -> None:
    code, out, _ = run("check", "lanes:hidden", "--set", "op.hidden.cpu=thread")
    assert code == 0 and "graph hidden" in out


def test_advice_says_for_every_cpu_hook_which_lane_suits_it() -> None:
    code, out, err = run("check", "lanes:graph", "--advise", "--sample", '{"number": 3}')
    assert (code, err) == (0, "")
    rows = _advice(out)
    assert rows["begin", "preprocess"][:2] == ["loop", "loop"]
    assert rows["trivial", "preprocess"][:2] == ["process", "inline"]
    assert rows["leave", "preprocess"] == ["inline", "–", "–", "–", "–", "raises SystemExit: 3"]
    # Threads can be judged only where other processes leave a second core to them.
    assert rows["python", "preprocess"][0] == "thread" and rows["python", "preprocess"][1] in ("process", "–")
    assert rows["python", "postprocess"][:2] == ["thread", "inline"]
    assert rows["native", "preprocess"][0] == "process" and rows["native", "preprocess"][2].endswith(" ms")
    assert "\nop:\n" in out and "\n  trivial: {cpu: inline}\n" in out


def test_advice_without_a_sample_asks_the_ops_for_examples() -> None:
    code, out, _ = run("check", "lanes:graph", "--advise")
    rows = _advice(out)
    assert code == 0 and rows["python", "postprocess"][1] == "inline"
    assert rows["trivial", "preprocess"][-1] == "no sample: write Op.example or pass --sample"


def test_advice_shows_the_cure_before_what_could_not_start() -> None:
    code, out, err = run("check", "lanes:hidden", "--advise", "--sample", "3")
    assert code == 1 and "  hidden: {cpu: thread}" in out
    assert err.startswith("error: op 'hidden': its hooks run in the CPU pool") and err.count("\n") == 1


def _advice(out: str) -> dict[tuple[str, str], list[str]]:
    """The table of the advice: by Op and hook, the other cells."""
    lines = out.partition("advice on CPU hooks")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    return {(op, hook): rest for op, hook, *rest in cells}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["check", "nothing:graph"], 1, "there is no module 'nothing'"),
        (["check", "good:nothing"], 1, "module 'good' has no 'nothing'; its graphs: graph, work, blocking"),
        (["check", "good:not_a_graph"], 1, "good:not_a_graph is a int, not a Graph"),
        (["check", "good"], 1, "'good': write it as module:attr"),
        (["check", "bad_graph:graph"], 78, "op 'join': preprocess(only_one: int) -> int does not fit"),
        (["check", "good:work", "--set", "op.work.batchsize=3"], 78, "did you mean 'batch_size'?"),
        (["check", "good:work", "--set", "op.wrok.batch_size=3"], 78, "did you mean 'work'?"),
        (["check", "good:work", "--set", "op.work.batch_size=0"], 78, "op.work.batch_size (--set)"),
        (["check", "good:work", "--http-port", "many"], 78, "service.http_port (command line)"),
        (["check", "good:work", "--config", "none.yml"], 78, "cannot read the settings file none.yml"),
        (["check", "good:work", "--sample", "{}"], 78, "--sample is a request for --advise: give both"),
        (["serve", "good:work", "--log-level", "loud"], 78, "--log-level 'loud': use debug, info"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(arguments: list[str], code: int, message: str) -> None:
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_settings_come_from_file_environment_and_command_line(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("op: {work: {batch_size: 5, concurrency: 6}}\nservice: {timeout_ms: 1234}\n")
    code, out, _ = run(
        "check", "good:work", "--config", str(tmp_path / "c.yml"), "--set", "op.work.concurrency=9",
        env={"ASYNCLINE_OP_WORK_BATCH_SIZE": "7", "ASYNCLINE_TIMEOUT_MS": "99"},
    )  # fmt: skip
    assert code == 0 and "9 x cpu, batches of 7" in out and "99 ms each" in out


def test_new_writes_an_app_whose_test_serve_and_curl_work(tmp_path: Path) -> None:
    code, out, _ = run("new", "scorer", cwd=tmp_path)
    assert code == 0 and "asyncline serve app:graph" in out
    folder = tmp_path / "scorer"
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert tests.returncode == 0 and "3 passed" in tests.stdout
    readme = (folder / "README.md").read_text()
    with serving("app:graph", "--config", "config.yml", cwd=folder) as server:
        line = next(line for line in readme.splitlines() if line.startswith("curl "))
        line = line.replace("http://127.0.0.1:8000", server.address)
        answer = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=20, check=True).stdout
        assert answer == '[{"word":"hello","score":52},{"word":"pipeline","score":86}]'
        printed = server.wait_for("^curl ").string.strip()
        assert subprocess.run(printed, shell=True, capture_output=True, text=True, timeout=20).stdout == answer


@pytest.mark.parametrize("name", ["metrics", "a-b", "1st", "x y"])
def test_new_refuses_a_name_that_cannot_name_a_graph(name: str, tmp_path: Path) -> None:
    code, _, err = run("new", name, cwd=tmp_path)
    assert code == 78 and "cannot name a graph" in err and not list(tmp_path.iterdir())


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    code, _, err = run("new", "mine", cwd=tmp_path)
    assert code == 78 and "mine exists already" in err


@pytest.mark.parametrize("config", sorted((ROOT / "config").glob("*.yml")), ids=lambda path: path.stem)
def test_every_config_fits_the_pipeline_of_its_name(config: Path) -> None:
    pytest.importorskip("rapidocr")
    code, out, err = run("check", f"ops.{config.stem}:graph", "--config", str(config), cwd=ROOT)
    assert code == 0, err
    assert f"graph {config.stem}" in out
