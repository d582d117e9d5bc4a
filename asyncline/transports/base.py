"""Contract of a transport."""

from __future__ import annotations

from abc import ABC, abstractmethod

BACKLOG = 1024
"""Connections that may wait to be accepted."""


class Transport(ABC):
    """A door of the server: decodes what comes, hands it to an Engine, encodes what it answers."""

    @abstractmethod
    async def start(self) -> None:
        """Listen.

        :raises OSError: the address is taken or not ours.
        """

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it listens, as a URL."""

    @abstractmethod
    def close(self) -> None:
        """Accept no more connections; those that are open may finish what they began."""

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until no connection is left; idle ones are closed, and in the end all."""
