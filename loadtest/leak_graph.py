"""Graphs that keep 1 kB, a task or a descriptor of requests, one that fills a cache, and ones that keep nothing."""

import asyncio
import ctypes
import os
from typing import Any

import numpy as np

from asyncline import Graph, Op, Request

NBYTES = 1000
CACHE_PLACES = 4000

_objects: list[bytes] = []
_descriptors: list[int] = []
_tasks: list[asyncio.Task[Any]] = []
_cache: dict[int, bytes] = {}
_malloc = ctypes.CDLL(None).malloc
_malloc.restype = ctypes.c_void_p


class Inline(Op):
    """Takes 1 and gives it back."""

    cpu = "inline"
    count = 0

    def example(self) -> int:
        return 1


class KeepObject(Inline):
    def preprocess(self, value: int) -> int:
        _objects.append(bytes(NBYTES))
        return value


class KeepNative(Inline):
    def preprocess(self, value: int) -> int:
        ctypes.memset(_malloc(NBYTES), 1, NBYTES)
        return value


class KeepDescriptor(Inline):
    """Of every hundredth request: there are not many."""

    def preprocess(self, value: int) -> int:
        self.count += 1
        if self.count % 100 == 0:
            _descriptors.append(os.dup(0))
        return value


class KeepTask(Inline):
    async def preprocess(self, value: int) -> int:
        self.count += 1
        if self.count % 100 == 0:
            _tasks.append(asyncio.ensure_future(asyncio.sleep(1e6)))
        return value


class FillCache(Inline):
    def preprocess(self, value: int) -> int:
        self.count += 1
        _cache[self.count % CACHE_PLACES] = bytes(NBYTES)
        return value


class PassObject(Inline):
    def preprocess(self, value: int) -> int:
        return value if bytes(NBYTES) else 0


class PassNative(Inline):
    def preprocess(self, value: int) -> int:
        return value if np.ones(5 * NBYTES).any() and bytearray(5 * NBYTES) else 0


class PassDescriptor(Inline):
    def preprocess(self, value: int) -> int:
        os.close(os.dup(0))
        return value


class PassTask(Inline):
    async def preprocess(self, value: int) -> int:
        return await asyncio.ensure_future(asyncio.sleep(0, value))


keeps_objects = Graph("keeps_objects", KeepObject(Request()))
keeps_native = Graph("keeps_native", KeepNative(Request()))
keeps_descriptors = Graph("keeps_descriptors", KeepDescriptor(Request()))
keeps_tasks = Graph("keeps_tasks", KeepTask(Request()))
fills_cache = Graph("fills_cache", FillCache(Request()))
objects = Graph("objects", PassObject(Request()))
native = Graph("native", PassNative(Request()))
descriptors = Graph("descriptors", PassDescriptor(Request()))
tasks = Graph("tasks", PassTask(Request()))
