"""Hooks that log, in every lane, by their own logger."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from asyncline import Graph, Json, Op, Request

log = logging.getLogger(__name__)


class InProcess(Op):
    cpu = "process"

    def preprocess(self, order: dict[str, Any]) -> dict[str, Any]:
        log.info("process says %s", order.get("word"))
        for n in range(order.get("times", 0)):
            log.warning("again, %d", n)
        if order.get("trace"):
            try:
                raise ValueError("planted")
            except ValueError:
                log.exception("with a traceback")
        if order.get("die"):
            log.error("last words")
            os.kill(os.getpid(), signal.SIGKILL)
        return order


class InThread(Op):
    cpu = "thread"

    def preprocess(self, order: dict[str, Any]) -> dict[str, Any]:
        log.info("thread says %s", order.get("word"))
        return order


class Inline(Op):
    cpu = "inline"

    def preprocess(self, order: dict[str, Any]) -> str:
        log.info("inline says %s", order.get("word"))
        log.debug("details")
        if order.get("fail"):
            raise RuntimeError("planted")
        return threading.current_thread().name


class Model(Op):
    def process(self, batch: list[str]) -> list[str]:
        log.info("model says %d", len(batch))
        return batch


_order = Request(order=Json(dict[str, Any])).order
graph = Graph("loud", Model(Inline(InThread(InProcess(_order)))))
