"""PipelineClient: another pipeline as the model of an Op, with the `predict` of Paddle's client of that name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncline.client.loop_thread import LoopThread
from asyncline.client.pipeline import WHOM, PipelinePeers
from asyncline.errors import ProductError
from asyncline.paddle.errors import CustomExceptionCode, HookError
from asyncline.paddle.hooks import remaining_s
from asyncline.wire.paddle import PaddleTensor, PipelineRequest
from asyncline.wire.paddle.numbers import LAST_PRODUCT
from asyncline.wire.paddle.printed import write

LOD = ".lod"


class PipelineClient:
    """`client.predict(feed_dict)` from a thread."""

    def __init__(
        self, thread: LoopThread, peers: PipelinePeers, release: Callable[[], None], *, sends_tensors: bool
    ) -> None:
        self._thread = thread
        self._peers = peers
        self._release = release
        self._sends_tensors = sends_tensors

    def predict(
        self,
        feed_dict: Any = None,
        fetch: Sequence[str] | None = None,
        asyn: bool = False,
        pack_tensor_format: bool | None = None,
        profile: bool = False,
        log_id: int | None = 0,
        *,
        feed: Any = None,
        batch: bool = True,
    ) -> Any:
        """Run the pipeline.

        :param feed_dict: text, arrays or lists of numbers by key; `x.lod` are the offsets of the sequences in `x`.
            `feed` is the same.
        :param fetch: the keys of the answer that are wanted; all by default.
        :param asyn: returns a future at once, which has `result()`.
        :param pack_tensor_format: send arrays as tensors, rather than as text; by default as the Op says.
        :param profile, batch: taken, and without meaning here.
        :returns: a list of one text by key, and arrays by the names of tensors.
        :raises RequestError: what became of it instead; an error of that pipeline has its number.
        """
        given = feed_dict if feed is None else feed
        if not isinstance(given, dict):
            raise HookError(CustomExceptionCode.TYPE_ERROR.value, f"feed must be dict, got {type(given).__name__}")
        as_tensors = self._sends_tensors if pack_tensor_format is None else pack_tensor_format
        request = _tensors(given) if as_tensors else _texts(given)
        request.logid = log_id or 0
        wanted = None if fetch is None else tuple(fetch)
        asked = self._ask(request, wanted, remaining_s())
        return self._thread.begin(asked) if asyn else self._thread.run(asked)

    async def _ask(self, request: PipelineRequest, wanted: tuple[str, ...] | None, timeout_s: float) -> dict[str, Any]:
        response = await self._peers.ask(request, timeout_s)
        if CustomExceptionCode.PRODUCT_ERROR.value <= response.err_no <= LAST_PRODUCT:
            raise ProductError(response.err_no, response.err_msg)
        if response.err_no:
            raise HookError(response.err_no, f"{WHOM}: {response.err_msg}")
        found: dict[str, Any] = {key: [text] for key, text in zip(response.key, response.value, strict=False)}
        found |= {tensor.name: tensor.value for tensor in response.tensors}
        if not wanted:
            return found
        missing = [name for name in wanted if name not in found]
        if missing:
            text = f"fetch: {WHOM} gave no {missing[0]!r}: {', '.join(found)}"
            raise HookError(CustomExceptionCode.INPUT_PARAMS_ERROR.value, text)
        return {name: found[name] for name in wanted}

    def close(self) -> None:
        self._release()


def _texts(feed: dict[str, Any]) -> PipelineRequest:
    request = PipelineRequest()
    for key, value in feed.items():
        if not isinstance(value, str | list | np.ndarray):
            raise _no_value(key, value)
        request.key.append(key)
        request.value.append(value if isinstance(value, str) else write(np.asarray(value)))
    return request


def _tensors(feed: dict[str, Any]) -> PipelineRequest:
    request = PipelineRequest()
    for key, value in feed.items():
        if key.endswith(LOD) and key.removesuffix(LOD) in feed:
            continue
        if not isinstance(value, str | list | np.ndarray):
            raise _no_value(key, value)
        array = np.array([value], object) if isinstance(value, str) else np.asarray(value)
        lod = feed.get(f"{key}{LOD}")
        request.tensors.append(
            PaddleTensor(key, array, lod=[] if lod is None else np.asarray(lod).reshape(-1).tolist())
        )
    return request


def _no_value(key: str, value: object) -> HookError:
    text = f"feed: {key} must be text, an array or a list, got {type(value).__name__}"
    return HookError(CustomExceptionCode.TYPE_ERROR.value, text)
