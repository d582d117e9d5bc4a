"""The echo one would write with aiohttp alone, on the loop that asyncline uses."""

import asyncio
import sys

import uvloop
from aiohttp import web

KEEPALIVE_S = 75.0
"""asyncline's; aiohttp's own is an hour."""


async def echo(request: web.Request) -> web.Response:
    return web.json_response(await request.json())


async def serve() -> None:
    app = web.Application()
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEPALIVE_S)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"serving echo on http://127.0.0.1:{runner.addresses[0][1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
