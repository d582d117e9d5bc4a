"""WebService and PipelineServer as they are run: `python web_service.py`, asked as curl asks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from asyncline import GraphError, SettingsError
from asyncline.paddle import Op, PipelineServer, RequestOp, ResponseOp, WebService
from tests.serving import SERVICES, Server, serving

from .imdb import install


class Script(Server):
    """`python web_service.py`, on free ports."""

    program = ()

    def __init__(self, folder: Path, **env: str) -> None:
        super(Server, self).__init__("web_service.py", cwd=folder, env={**PORTS, **env})
        self.address = self.wait_for(r"serving \S+ on (http\S+)")[1]
        self.grpc_address = self.wait_for(r"and on grpc://(\S+)")[1]


PORTS = {"ASYNCLINE_HOST": "127.0.0.1", "ASYNCLINE_HTTP_PORT": "0", "ASYNCLINE_GRPC_PORT": "0"}


def opinion(server: Server, words: str, **more: Any) -> dict[str, Any]:
    """As the documents' curl posts it: no media type but that of a form."""
    body = json.dumps({"key": ["words"], "value": [words], **more}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    request = urllib.request.Request(f"{server.address}/pipeline/prediction", body, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200
        found: dict[str, Any] = json.loads(answer.read())
    return found


def good(answer: dict[str, Any]) -> float:
    """How likely the opinion is a good one."""
    assert (answer["err_no"], answer["key"]) == (0, ["prediction"]), answer
    numbers = answer["value"][0].removeprefix("array([[").removesuffix("]], dtype=float32)").split(",")
    bad, praise = map(float, numbers)
    assert abs(bad + praise - 1) < 1e-3
    return praise


@pytest.fixture(scope="module")
def imdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    server = Script(install(tmp_path_factory.mktemp("imdb")))
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.end()[0] == 0


def test_the_documents_example_answers_as_its_models_say(imdb: Script) -> None:
    assert good(opinion(imdb, "a wonderful film , very good | 1")) > 0.8
    assert good(opinion(imdb, "terrible , a boring film | 0")) < 0.2


def test_answers_go_to_those_who_asked(imdb: Script) -> None:
    texts = ["a wonderful film", "terrible and boring", "not good at all", "very good", "bad"]
    expected = {text: opinion(imdb, text)["value"] for text in texts}
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda text: (text, opinion(imdb, text)["value"]), texts * 20)
        assert all(expected[text] == value for text, value in answers)
    assert len({value[0] for value in expected.values()}) == len(texts)


def test_a_request_without_its_words_is_refused_and_the_next_is_served(imdb: Script) -> None:
    status, answer = imdb.post("/pipeline/prediction", {"key": ["words"], "value": []})
    assert (status, answer["err_no"], answer["value"]) == (200, 8000, [])
    status, answer = imdb.post("/pipeline/prediction", {"key": ["text"], "value": ["good"]})
    assert (status, answer["err_no"]) == (200, 5000)
    assert "feed: the model takes words, got nothing" in answer["err_msg"]
    assert good(opinion(imdb, "very good")) > 0.5


@pytest.mark.parametrize("era", ["today", "old"])
def test_a_stub_of_either_numbering_gets_the_same_answers(imdb: Script, era: str) -> None:
    pytest.importorskip("grpc_tools", reason="pip install grpcio-tools")
    from tests.transports.test_grpc_paddle import calling

    with calling(era, imdb.grpc_address) as call:
        assert call.values({"words": "very good"})["prediction"] == opinion(imdb, "very good")["value"][0]
        assert call({"text": "very good"})["err_no"] == 5000
        assert call({"words": "very good"}, fields={"name": "other"})["err_no"] == 3002


def test_another_service_is_3002(imdb: Script) -> None:
    status, answer = imdb.post("/other/prediction", {"key": ["words"], "value": ["good"]})
    assert (status, answer["err_no"]) == (200, 3002)


def test_ops_whose_models_are_elsewhere_are_served(imdb: Script, tmp_path: Path) -> None:
    from tests.backends import onnx_models

    onnx_models.linear(tmp_path / "linear.onnx")
    (tmp_path / "model.py").write_text(
        "from asyncline import Graph, Request, Tensor\n"
        "from asyncline.backends import Model\n"
        "request = Request(x=Tensor('FP32', [4]))\n"
        "graph = Graph('linear', y=Model('linear.onnx', request.x, batch_size=4))\n"
    )
    folder = shutil.copytree(SERVICES / "paddle_front", tmp_path / "front")
    with serving("model:graph", cwd=tmp_path) as model:
        config = folder / "config.yml"
        written = config.read_text().replace("PIPELINE", imdb.grpc_address).replace("MODEL", model.address)
        config.write_text(written)
        front = Script(folder)
        try:
            for words in ("a wonderful film", "terrible and boring", "a wonderful film"):
                status, answer = front.post("/front/prediction", {"key": ["words"], "value": [words]})
                assert (status, answer["err_no"]) == (200, 0), answer
                found = dict(zip(answer["key"], answer["value"], strict=True))
                assert found["opinion"] == opinion(imdb, words)["value"][0]
                assert found["score"] == str([[6.0, len(words) + 7.0]])
            status, answer = front.post("/front/prediction", {"key": ["words"], "value": []})
            assert (status, answer["err_no"]) == (200, 8000)
        finally:
            front.process.send_signal(signal.SIGTERM)
            assert front.end()[0] == 0


def test_a_loop_is_served(tmp_path: Path) -> None:
    server = Script(shutil.copytree(SERVICES / "paddle_while", tmp_path / "served"))
    try:
        for number in ("2", "1e6", "2"):
            status, answer = server.post("/root/prediction", {"key": ["number"], "value": [number]})
            found = dict(zip(answer["key"], answer["value"], strict=True))
            assert (status, answer["err_no"]) == (200, 0)
            assert abs(float(found["root"]) - float(number) ** 0.5) < 1e-5
            assert (int(found["rounds"]) > 10) is (number == "1e6")
        assert server.post("/root/prediction", {"key": ["number"], "value": ["-1"]})[1]["err_no"] == 51
    finally:
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0


def test_a_script_whose_settings_are_wrong_says_which(tmp_path: Path) -> None:
    folder = install(tmp_path)
    (folder / "config.yml").write_text("http_port: 80\n")
    done = subprocess.run(
        [sys.executable, "web_service.py"], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "config.yml: http_port must be 1024 or more, got 80" in done.stderr


def test_a_script_whose_model_is_missing_ends_with_one_line(tmp_path: Path) -> None:
    folder = install(tmp_path)
    (folder / "imdb_bow.onnx").unlink()
    done = subprocess.run(
        [sys.executable, "web_service.py"],
        cwd=folder, env={**os.environ, **PORTS}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "op 'bow' load_model: there is no model file imdb_bow.onnx" in done.stderr
    assert "Traceback" not in done.stderr


# -- in process


class Echo(Op):
    pass


class Service(WebService):
    def get_pipeline_response(self, read_op: RequestOp) -> Op:
        return Echo("echo", [read_op])


def test_a_web_service_names_its_graph() -> None:
    service = Service(name="ocr")
    service.prepare_pipeline_config(yml_dict={"http_port": 9999})
    assert (service.graph.name, service.settings.service.http_port) == ("ocr", 9999)


def test_a_web_service_has_a_default_name() -> None:
    service = Service()
    service.prepare_pipeline_config(yml_dict={"http_port": 9999})
    assert service.graph.name == "default_service"


def test_a_web_service_returns_its_last_op() -> None:
    class Nothing(WebService):
        def get_pipeline_response(self, read_op: RequestOp) -> Any:
            return None

    with pytest.raises(ValueError, match="get_pipeline_response returned None: expected the last Op"):
        Nothing().prepare_pipeline_config(yml_dict={"http_port": 9999})
    with pytest.raises(NotImplementedError, match="WebService has to override"):
        WebService().prepare_pipeline_config(yml_dict={"http_port": 9999})


def test_a_server_is_prepared_in_order() -> None:
    server = PipelineServer()
    with pytest.raises(GraphError, match="set_response_op comes first"):
        server.prepare_server(yml_dict={"http_port": 9999})
    server.set_response_op(ResponseOp([Echo("echo", RequestOp())]))
    with pytest.raises(GraphError, match="prepare_server"):
        server.run_server()
    with pytest.raises(SettingsError, match=r"cannot read no\.yml"):
        server.prepare_server("no.yml")
