"""Spans of a server as a user starts it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.observe.otel.collector import collecting
from tests.serving import run, serving

ORDER = {"order": {"n": 1}}
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_a_stop_sends_what_has_just_been_answered() -> None:
    async with collecting() as collector:

        def serve() -> None:
            with serving("good:work", "--otel-endpoint", collector.url) as server:
                assert server.post("/work", ORDER, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")[0] == 200

        await asyncio.to_thread(serve)
        names = {span.name for span in collector.spans if span.trace_id.hex() == TRACE}
        assert names == {"work", "work.process"} and len(collector.named("work")) == 2
        assert collector.resources[0]["service.name"] == "work"


async def test_the_service_may_be_named_as_opentelemetry_does() -> None:
    async with collecting() as collector:

        def serve() -> None:
            env = {"OTEL_SERVICE_NAME": "shop", "ASYNCLINE_OTEL_ENDPOINT": collector.url}
            with serving("good:work", env=env) as server:
                server.post("/work", ORDER)

        await asyncio.to_thread(serve)
    assert collector.resources[0]["service.name"] == "shop"


def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    code, _, err = run(
        "serve", "good:work", "--http-port", "0", "--otel-endpoint", "http://127.0.0.1:1", env={"PYTHONPATH": path}
    )
    assert code == 78 and "pip install 'asyncline[otel]'" in err and "Traceback" not in err


def test_without_an_endpoint_nothing_of_it_is_imported() -> None:
    code = "import asyncline.server, sys; print(any(name.startswith('opentelemetry') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"
