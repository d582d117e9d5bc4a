"""What a hook got, fresh for every call."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

from asyncline.engine.lanes.crossing import BUFFER_BYTES
from asyncline.errors import public_message


@dataclass(frozen=True)
class Pickled:
    """A value as it crosses to the CPU pool: a pickle, and its large buffers beside it."""

    stream: bytes
    buffers: tuple[bytes, ...]

    @classmethod
    def of(cls, value: Any) -> Pickled:
        """:raises Exception: whatever pickle says of a value that it cannot take."""
        buffers: list[bytes] = []

        def beside(buffer: pickle.PickleBuffer) -> bool:
            memory = buffer.raw()
            if memory.nbytes < BUFFER_BYTES:
                return True
            buffers.append(bytes(memory))
            return False

        stream = pickle.dumps(value, 5, buffer_callback=beside)
        return cls(stream, tuple(buffers))

    @property
    def nbytes(self) -> int:
        return len(self.stream) + sum(map(len, self.buffers))

    def load(self) -> Any:
        """The value as it arrives: large arrays are read-only."""
        return pickle.loads(self.stream, buffers=self.buffers)

    def load_writable(self) -> Any:
        """The value as it was: arrays that could be written to can be."""
        return pickle.loads(self.stream, buffers=map(bytearray, self.buffers))


class Arguments:
    """What a hook got, kept from before the call: a hook may change its arguments.

    Kept as a pickle where that can be, which is faster to copy than the objects themselves; else as a deep copy.
    """

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.pickled: Pickled | None = None
        #: Why they cannot cross to the CPU pool; empty where they can.
        self.barred = ""
        #: Why they cannot be had again; empty where they can.
        self.lost = ""
        self._values: tuple[Any, ...] = ()
        try:
            pickled = Pickled.of(values)
            pickled.load()  # an object may pickle but not unpickle
            self.pickled = pickled
        except Exception as error:
            self.barred = describe(error)
            try:
                self._values = copy.deepcopy(values)
            except Exception as failed:
                self.lost = describe(failed)

    def fresh(self) -> tuple[Any, ...]:
        """A copy for one call; not where they are `lost`."""
        values: tuple[Any, ...] = self.pickled.load_writable() if self.pickled else copy.deepcopy(self._values)
        return values

    @property
    def read_only(self) -> bool:
        """Whether something in them can be written to here but not in the CPU pool."""
        return self.pickled is not None and bool(self.pickled.buffers)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = public_message(error)
    name = type(error).__name__
    return text if text == name else f"{name}: {text}"
