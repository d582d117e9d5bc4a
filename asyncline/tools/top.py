"""`asyncline top`: what a server does, each second, in a terminal; the dashboard without a browser."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from asyncline.errors import AsynclineError, BadRequest, SettingsError
from asyncline.wire import json
from asyncline.wire.events import EventDecoder

SILENCE_S = 6.0
"""Without news for so long, the connection is taken as lost."""
AGAIN_S = 1.0
MOST_NBYTES = 16 * 2**20
"""Of one event."""
FULL = 0.7
"""Busy from here on, as the verdict has it."""

BLOCKED_S = 60.0
"""How long it is shown that the loop stood still."""

Moment = dict[str, Any]
"""The data of one event `figures`."""


class NoFigures(AsynclineError):
    """No server there, or one that does not show its figures."""


class Refused(NoFigures):
    """A server that will not show its figures however often it is asked: the token, or it has none."""


def top(url: str, *, token: str | None, interval_s: float, once: bool, console: Console) -> int:
    """Show what the server at `url` does until Ctrl-C, or once; returns the exit code.

    :param interval_s: between two pictures.
    :raises SettingsError: `url` is no address of REST.
    :raises NoFigures: with `once`, there are none; else only when asking again would not help.
    """
    address = _address(url)
    try:
        if once:
            moment = next(moments(address, token), None)
            if moment is None:
                raise NoFigures("the server has stopped")
            console.print(block(moment, url))
        elif console.is_terminal:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                follow(
                    lambda: moments(address, token), lambda picture: live.update(picture, refresh=True), url, interval_s
                )
        else:  # a file or a pipe: one picture below the other
            follow(lambda: moments(address, token), console.print, url, interval_s)
    except KeyboardInterrupt:
        pass
    return 0


def follow(
    connect: Callable[[], Iterator[Moment]],
    show: Callable[[RenderableType], None],
    url: str,
    interval_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show moments, and connect again for ever when there are no more.

    :raises Refused: asking again would not help.
    """
    last: Moment | None = None
    while True:
        left_s = 0.0
        try:
            for moment in connect():
                last = moment
                left_s -= 1  # one comes each second
                if left_s < 0.5:
                    left_s = interval_s
                    show(block(moment, url))
            problem = "the server has stopped"
        except Refused:
            raise
        except NoFigures as error:
            problem = str(error)
        lost = Text(f"{problem}; trying again", style="bold red")
        show(lost if last is None else Group(lost, block(last, url)))
        sleep(AGAIN_S)


def _address(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    try:
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=SILENCE_S)
    except ValueError:  # of the port, too
        raise SettingsError(f"{url!r}: give the REST address of a server, as http://localhost:8000") from None


def moments(connection: http.client.HTTPConnection, token: str | None) -> Iterator[Moment]:
    """What `/figures/live` says, until the server ends it.

    :raises NoFigures: there is nobody, or the connection broke off.
    :raises Refused: the server is asked in vain.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    decoder = EventDecoder(MOST_NBYTES)
    try:
        connection.request("GET", "/figures/live", headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise _refusal(answer)
        if answer.getheader("Content-Type", "").partition(";")[0] != "text/event-stream":
            raise Refused("it answers with no figures: is that a server of asyncline?")
        while data := answer.read1(65536):
            for kind, text in decoder.feed(data):
                if kind == "figures":
                    yield json.decode(text)
    except TimeoutError:
        raise NoFigures(f"no news for {SILENCE_S:g} s") from None
    except OSError as error:
        raise NoFigures(f"no server there: {error.strerror or error}") from None
    except http.client.HTTPException:
        raise NoFigures("the connection broke off") from None
    except BadRequest as error:
        raise Refused(f"it answers with no figures: {error}") from None
    finally:
        connection.close()


def _refusal(answer: http.client.HTTPResponse) -> NoFigures:
    text = answer.read(65536)
    try:
        message = str(json.decode(text)["message"])
    except (BadRequest, KeyError, TypeError):
        message = f"status {answer.status}"
    return NoFigures(message) if answer.status == 503 else Refused(message)


# -- the picture ----------------------------------------------------------------------------------------


def block(moment: Moment, url: str) -> Group:
    """One picture: verdict, totals, whether the loop stood still, a row for each Op, the last errors."""
    parts: list[RenderableType] = [_totals(moment, url), Text(moment["verdict"]["text"], style="bold")]
    for blockage in moment["blockages"][:1]:
        if (ago_s := moment["last"]["at"] - blockage["at"]) < BLOCKED_S:
            who = f"op {blockage['op']!r} {blockage['hook']}" if blockage["op"] else "something outside of the ops"
            text = f"{who} kept the event loop for {blockage['seconds'] * 1e3:.0f} ms, {max(0.0, ago_s):.0f} s ago"
            parts.append(Text(f"{text}; {moment['blocked']} times since the start", style="red"))
    parts.append(_ops(moment))
    parts += [
        Text(f"{failure['code']}: {failure['message']} [data_id={failure['data_id']}]", style="red")
        for failure in moment["failures"][:3]
    ]
    return Group(*parts)


def _totals(moment: Moment, url: str) -> Text:
    last = moment["last"]
    failed = sum(last["outcomes"].values()) - last["outcomes"].get("ok", 0)
    refused = sum(last["rejected"].values())
    latency = last["latency"]
    lines = [
        f"{url}  {moment['problem'] or moment['state']}  {last['seconds']:.0f} s",
        f"{last['qps']:.4g} requests/s  {last['success']:.1%} ok  {failed} failed  {refused} refused  "
        f"in flight {last['in_flight']} of {last['in_flight_max']}",
        "latency ms  "
        + "  ".join(f"p{number} {value:.4g}" for number, value in latency["percentiles_ms"].items())
        + f"  mean {latency['mean_ms']:.4g}",
        f"cores {last['cores']:.2f} of {last['cores_there']}  loop lag {last['loop_lag_ms']:.1f} ms  "
        f"memory {_megabytes(moment['nbytes'])}{_workers(moment)}",
    ]
    return Text("\n".join(lines))


def _workers(moment: Moment) -> str:
    sizes = [_megabytes(worker["nbytes"]) for lane in moment["lanes"].values() for worker in lane["workers"]]
    return f"  workers {', '.join(sizes)}" if sizes else ""


def _megabytes(nbytes: int | None) -> str:
    return "?" if nbytes is None else f"{nbytes / 1e6:.0f} MB"


def _ops(moment: Moment) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("op", no_wrap=True)
    for column in ("req/s", "in", "prep", "midp", "postp", "out", "idle", "batch", "queued", "most", "failed"):
        table.add_column(column, justify="right", no_wrap=True)
    last, verdict = moment["last"], moment["verdict"]
    for op in last["ops"]:
        times = (f"{op[f'{stage}_ms']:.4g}" for stage in ("in", "prep", "midp", "postp", "out"))
        limits = verdict["op"] == op["name"] and verdict["kind"] != "none"
        table.add_row(
            Text(f"{'▶' if limits else ' '} {op['name']}"),
            f"{op['count'] / last['seconds']:.4g}" if last["seconds"] > 0 else "0",
            *times,
            Text(f"{op['idle']:.2f}", style="bold yellow" if op["idle"] <= 1 - FULL else ""),
            f"{op['batch_size']:.3g}" if op["batches"] else "-",
            f"{op['depth']}/{op['channel_size']}",
            str(op["depth_max"]),
            str(sum(op["errors"].values())),
            style="bold" if limits else "",
        )
    return table
