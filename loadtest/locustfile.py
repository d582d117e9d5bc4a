"""Users of the three wires, for locust.

    pip install 'asyncline[loadtest]'
    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000 --headless -u 8 -r 8 -t 20s --only-summary

`--host` is the server's address of REST, which also says what the graph takes; gRPC and TCP are on 8001 and 8002 of the
same host, unless `--grpc` and `--tcp` say otherwise. Names of users at the end choose wires (`RestUser TcpUser`),
`--tags` what is sent: `page` or `tensor`, and over REST `json` or `oip`.
"""

import json
import sys
import urllib.error
import urllib.request
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from locust import FastHttpUser, events, tag, task
from locust.env import Environment
from locust.runners import MasterRunner

sys.path.append(str(Path(__file__).parent.parent))  # locust adds the folder of this file only

from asyncline.client import AsyncClient
from loadtest.locust_calls import CallUser, loop
from loadtest.locust_payload import PAGE, TENSOR, NothingToAsk, Payload, payloads

ANSWER_S = 10.0


class Target:
    """What is asked, known when the test starts."""

    graph: str
    payloads: dict[str, Payload]


class RestUser(FastHttpUser):
    """`POST /{graph}` with JSON, and the Open Inference Protocol with binary tensors."""

    network_timeout = connection_timeout = 60.0

    @tag("json", PAGE)
    @task(3)
    def page(self) -> None:
        self._ask(PAGE, json_body=True)

    @tag("json", TENSOR)
    @task(3)
    def tensor(self) -> None:
        self._ask(TENSOR, json_body=True)

    @tag("oip", PAGE)
    @task(1)
    def page_oip(self) -> None:
        self._ask(PAGE, json_body=False)

    @tag("oip", TENSOR)
    @task(1)
    def tensor_oip(self) -> None:
        self._ask(TENSOR, json_body=False)

    def _ask(self, kind: str, *, json_body: bool) -> None:
        payload, graph = Target.payloads[kind], quote(Target.graph, safe="")
        if json_body:
            path, body, headers = f"/{graph}", payload.json, {"Content-Type": "application/json"}
        else:
            path, body = f"/v2/models/{graph}/infer", payload.oip
            headers = {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(payload.oip_header_nbytes),
            }
        name = f"{Target.graph}, {kind}, {'JSON' if json_body else 'OIP binary'}"
        with self.client.post(path, data=body, headers=headers, name=name, catch_response=True) as answer:
            if answer.status_code == 0:
                answer.failure(f"no answer: {answer.error}")
            elif answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")


class PayloadUser(CallUser):
    """What the users of both wires do."""

    abstract = True

    @tag(PAGE)
    @task
    def page(self) -> None:
        self.call(Target.graph, PAGE, Target.payloads[PAGE].native)

    @tag(TENSOR)
    @task
    def tensor(self) -> None:
        self.call(Target.graph, TENSOR, Target.payloads[TENSOR].native)


class GrpcUser(PayloadUser):
    wire = "gRPC"


class TcpUser(PayloadUser):
    wire = "TCP"


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser) -> None:
    options = parser.add_argument_group("asyncline")
    options.add_argument("--graph", default="", help="which is asked; by default the one that is served")
    options.add_argument("--grpc", default="", metavar="URL", help="by default grpc://, host of --host, port 8001")
    options.add_argument("--tcp", default="", metavar="URL", help="by default tcp://, host of --host, port 8002")
    options.add_argument("--page", default=str(Path(__file__).with_name("page.jpg")), help="an image")
    options.add_argument("--floats", type=int, default=4096, help="length of a tensor's dimension that is open")


@events.test_start.add_listener
def find_out(environment: Environment, **_: Any) -> None:
    """Look at the server, and leave the tasks that its graph can do; ends locust where there is none."""
    if isinstance(environment.runner, MasterRunner):
        return
    options = environment.parsed_options
    assert options is not None
    host = (environment.host or "").rstrip("/")
    if not host.startswith(("http://", "https://")):
        raise SystemExit("--host is missing: the server's address of REST, like http://127.0.0.1:8000")
    Target.graph = options.graph or _read(host, "/v2/repository/index", b"{}")[0]["name"]
    inputs = _read(host, f"/v2/models/{quote(Target.graph, safe='')}")["inputs"]
    try:
        Target.payloads = payloads(inputs, Path(options.page), options.floats)
    except (NothingToAsk, OSError) as error:
        raise SystemExit(f"graph {Target.graph!r}: {error}") from error
    wires = {GrpcUser: ("--grpc", options.grpc, "grpc", 8001), TcpUser: ("--tcp", options.tcp, "tcp", 8002)}
    for user in environment.user_classes:
        user.tasks = [each for each in user.tasks if each.locust_tag_set & Target.payloads.keys()]
        if not user.tasks:
            kinds = " or ".join(Target.payloads)
            raise SystemExit(f"{user.__name__} has nothing to ask: graph {Target.graph!r} takes a {kinds}; see --tags")
        if user in wires:
            option, url, scheme, port = wires[user]
            user.url = url or f"{scheme}://{_name(host)}:{port}"
            _check(user, option)


def _check(user: type[CallUser], option: str) -> None:
    async def ready() -> bool:
        async with AsyncClient(user.url) as client:
            return await client.ready(ANSWER_S)

    try:
        is_ready = loop().run(ready())
    except ValueError as error:
        raise SystemExit(f"{option} {user.url}: {error}") from error
    if not is_ready:
        raise SystemExit(f"nobody is ready at {user.url}: give {option}, or name the users that are wanted")


def _name(host: str) -> str:
    name = urlsplit(host).hostname or ""
    return f"[{name}]" if ":" in name else name


def _read(host: str, path: str, body: bytes | None = None) -> Any:
    try:
        with urllib.request.urlopen(urllib.request.Request(host + path, body), timeout=ANSWER_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{host}{path} answers {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError, LookupError) as error:
        raise SystemExit(f"{host}{path}: {error}") from error
