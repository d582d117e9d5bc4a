"""A real browser: Debian's chromium without a window, driven by the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")


class Tab:
    """One page; `errors` is what it said to its console that it should not."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        #: Set when a file has been downloaded.
        self.downloaded = asyncio.Event()
        self._socket = socket
        self._session: str | None = None
        self._ids = iter(range(1, 1 << 30))
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if (answer := self._answers.pop(told.get("id", 0), None)) is not None:
                answer.set_result(told)
            elif told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(told["params"]["exceptionDetails"]))
            elif told.get("method") == "Runtime.consoleAPICalled" and told["params"]["type"] in ("error", "assert"):
                self.errors.append(str(told["params"]["args"]))
            elif told.get("method") == "Browser.downloadProgress" and told["params"]["state"] == "completed":
                self.downloaded.set()
            elif told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.errors.append(str(told["params"]["entry"]))

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        session = {} if self._session is None else {"sessionId": self._session}
        await self._socket.send_json({"id": number, "method": method, "params": params, **session})
        async with asyncio.timeout(40):
            told = await answer
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def attach(self, downloads: Path) -> None:
        behaviour = {"behavior": "allow", "downloadPath": str(downloads), "eventsEnabled": True}
        await self.send("Browser.setDownloadBehavior", **behaviour)
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")

    async def look(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Be of that size, in CSS pixels, and of that colour scheme."""
        phone = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        told = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def wait_for(self, expression: str, seconds: float = 20) -> Any:
        """Until it is true, and its value.

        :raises AssertionError: it was not within that time; says what the page shows.
        """
        asked = f"""new Promise((done) => {{
            const until = performance.now() + {seconds * 1e3};
            const look = () => {{
                let found = null;
                try {{ found = {expression}; }} catch {{ }}
                if (found || performance.now() > until) done(found); else setTimeout(look, 50);
            }};
            look();
        }})"""
        found = await self.evaluate(asked)
        assert found, f"{expression} did not come true; the page: {await self.evaluate('document.body.innerText')}"
        return found

    async def press(self, key: str) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text if kind == "keyDown" else ""
            )

    async def screenshot(self, kind: str = "png") -> bytes:
        """What is seen now, as png or webp."""
        shot = await self.send("Page.captureScreenshot", format=kind)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def tab(folder: Path) -> AsyncIterator[Tab]:
    """A browser with one tab, which downloads to `folder` and has its own things in there too."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
        "--hide-scrollbars", f"--user-data-dir={folder}/profile", "about:blank",
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(40):
            while not (found := _LISTENING.search(line := await process.stderr.readline())):
                assert line, "chromium ended"
        async with aiohttp.ClientSession() as session, session.ws_connect(found[1].decode(), max_msg_size=0) as socket:
            opened = Tab(socket)
            reading = asyncio.create_task(opened.read())
            await opened.attach(folder)
            try:
                yield opened
            finally:
                reading.cancel()
                await asyncio.wait([reading])
    finally:
        process.kill()
        await process.communicate()
