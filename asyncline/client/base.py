"""Connection: the contract of a way to one endpoint of a model server; and what can become of a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from asyncline.client.address import Address
from asyncline.errors import BadRequest, DeadlineExceeded, OpError, Overloaded, RequestError, Unavailable
from asyncline.wire.oip import InferRequest, InferResponse, ModelMetadata

CONNECT_S = 2.0
"""Longest time to connect."""
MESSAGE_CHARACTERS = 200
"""Most of what a remote server says that becomes part of our message."""


class Refused(Unavailable):
    """Nothing was run: the endpoint could not be reached, or had no room. Another may be asked instead."""

    was_refused = True
    rest_s: int | None = None
    """For how long it asks to be left alone, if it does."""


class Busy(Overloaded):
    """Nothing was run: the endpoint has had too many requests. Another may be asked instead."""

    was_refused = True
    rest_s: int | None = None
    """As of Refused."""


class Malformed(OpError):
    """The endpoint's answer is none of the protocol's, or does not fit the request."""


@dataclass(frozen=True)
class Description:
    """What an endpoint says of a model."""

    metadata: ModelMetadata
    batches: bool
    """Whether the first length of every tensor is the batch."""
    max_batch_size: int | None = None
    """Most rows of a request, where there is such a limit."""
    binary: bool = True
    """Whether tensors may be sent as raw bytes."""

    @classmethod
    def of(cls, metadata: ModelMetadata, max_batch_size: int | None, *, binary: bool = True) -> Description:
        """:param max_batch_size: as the model's configuration has it, 0 for no batches; None: there is none to ask."""
        if max_batch_size is not None:
            return cls(metadata, max_batch_size > 0, max_batch_size or None, binary)
        tensors = (*metadata.inputs, *metadata.outputs)
        return cls(metadata, all(tensor.shape[:1] == (-1,) for tensor in tensors), None, binary)


class Connection(ABC):
    """A way to one endpoint, by which many requests go at once. Belongs to the loop on which it is made.

    :param headers: sent with every request.
    :param max_answer_nbytes: longer answers are refused.
    """

    def __init__(self, address: Address, headers: Mapping[str, str], max_answer_nbytes: int) -> None:
        self.address = address
        self.headers = headers
        self.max_answer_nbytes = max_answer_nbytes

    @abstractmethod
    async def describe(self, model: str, version: str, timeout_s: float) -> Description:
        """Ask for a model's metadata.

        :raises LoadError: the endpoint cannot be reached, or does not have the model.
        """

    @abstractmethod
    async def infer(
        self, request: InferRequest, timeout_s: float, *, binary: bool, traceparent: str | None = None
    ) -> InferResponse:
        """Run one inference; the answer is well-formed, but has not been compared with what was asked.

        :param binary: see Description.
        :param traceparent: W3C trace context to send.
        :raises Refused: nothing was run.
        :raises Unavailable: the connection broke off.
        :raises DeadlineExceeded: it took longer than `timeout_s`.
        :raises Malformed: the answer is rubbish.
        :raises RequestError: what the endpoint says went wrong.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the connections; what is outstanding fails."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"


# Messages name no endpoint: the client that reads them has no business with it. The log does.


def remote_model(model: str) -> str:
    """Whom those messages are about that become answers of ours."""
    return f"remote model {model!r}"


def refused_input(whom: str, text: str) -> RequestError:
    return BadRequest(f"{whom} refused its input{said(text)}")


def failed(whom: str, text: str) -> RequestError:
    return OpError(f"{whom} failed{said(text)}")


def overloaded(whom: str, text: str) -> RequestError:
    return Busy(f"{whom} is overloaded{said(text)}")


def no_room(whom: str, text: str) -> RequestError:
    return Refused(f"{whom} is not available{said(text)}")


def gone(whom: str, text: str) -> RequestError:
    return Unavailable(f"{whom} is not there{said(text)}")


def unreachable(whom: str) -> RequestError:
    return Refused(f"{whom} cannot be reached")


def broken_off(whom: str) -> RequestError:
    return Unavailable(f"{whom} broke off before its answer was complete")


def too_late(whom: str, timeout_s: float) -> RequestError:
    return DeadlineExceeded(f"{whom} did not answer within {timeout_s * 1e3:.0f} ms")


def malformed(whom: str, text: str) -> RequestError:
    return Malformed(f"{whom} gave an answer that cannot be used{said(text)}")


def said(text: str | None) -> str:
    """What a server says, as the end of a message: one line, and short."""
    line = " ".join((text or "").split())
    if len(line) > MESSAGE_CHARACTERS:
        line = f"{line[:MESSAGE_CHARACTERS]}..."
    return f": {line}" if line else ""
