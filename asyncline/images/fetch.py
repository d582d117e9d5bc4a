"""The Op that downloads images."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncline.engine.context import context
from asyncline.errors import DeadlineExceeded
from asyncline.graph.op import Op
from asyncline.graph.request import Input
from asyncline.images.address import PUBLIC, UrlPolicy
from asyncline.images.limits import FetchLimits

if TYPE_CHECKING:
    from asyncline.images.download import Downloader


class Fetch(Op):
    """Downloads the image where a client sent its URL (`Image(url=True)`); bytes pass through.

    Only public addresses are asked, on ports 80 and 443, unless `policy` allows more.

    :param max_mb: largest encoded size in MB (10⁶ bytes).
    :param timeout_s: longest time of a download, redirects and all; the request's deadline holds where it is earlier.
    :param redirects: how many are followed; each is judged like the URL itself.
    :param per_host: most downloads from one host at once; more wait.
    :param total: most downloads at once; more wait.
    :param trace: send every origin the W3C trace context of the request. By default only hosts that `policy` allows by
        name get it: to a stranger it tells which requests belong together.
    :param cache_mb: keep as much of what was downloaded, for a minute; 0 keeps nothing.
    """

    concurrency = 64

    def __init__(
        self,
        *inputs: Input,
        policy: UrlPolicy = PUBLIC,
        max_mb: float = 10,
        timeout_s: float = 5.0,
        connect_s: float = 2.0,
        redirects: int = 3,
        min_kb_per_s: float = 0,
        per_host: int = 16,
        total: int = 64,
        cache_mb: float = 0,
        trace: bool = False,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*inputs, name=name, **settings)
        self.policy = policy
        self.limits = FetchLimits(
            nbytes=int(max_mb * 1e6),
            connect_s=connect_s,
            total_s=timeout_s,
            redirects=redirects,
            min_bytes_per_s=int(min_kb_per_s * 1e3),
            per_host=per_host,
            total=total,
            cache_nbytes=int(cache_mb * 1e6),
        )
        self._trace = trace
        self._made: Downloader | None = None

    def init_op(self) -> None:
        # aiohttp takes a while, and reads files: here it is not on the loop, and only where something is downloaded.
        import asyncline.images.download  # noqa: F401

    async def preprocess(self, source: bytes | str) -> bytes:
        if not isinstance(source, str):
            return source
        remaining_s = traceparent = None
        try:
            remaining_s, traceparent = context().remaining_s, context().traceparent
        except LookupError:
            pass  # called by hand
        try:
            async with asyncio.timeout(remaining_s):
                return await self._downloader().get(source, traceparent)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed during the download") from None

    def _downloader(self) -> Downloader:
        """The one of the running loop: an Engine after another may have a loop of its own."""
        from asyncline.images.download import Downloader

        if self._made is None or self._made.loop is not asyncio.get_running_loop():
            self._made = Downloader(self.policy, self.limits, trace=self._trace)
        return self._made

    async def close_op(self) -> None:
        if self._made is not None:
            made, self._made = self._made, None
            await made.close()
