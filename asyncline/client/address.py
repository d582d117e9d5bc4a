"""Address: where an endpoint is."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443, "grpc": None, "grpcs": None}
"""The schemes, and their ports where there is a usual one. The `s` is TLS."""


@dataclass(frozen=True)
class Address:
    scheme: str
    host: str
    port: int
    path: str = ""
    """In front of all paths, by HTTP; without a slash at its end."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Take `http://host:8000` or `grpc://host:8001` apart.

        :raises ValueError: it is no such address; says what is wrong.
        """
        parts = urlsplit(text)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError(f"{text!r} is no endpoint: write http://host:8000 or grpc://host:8001")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(f"endpoint {parts.hostname!r}: expected host and port only; credentials go into headers=")
        try:
            port = parts.port or PORTS[parts.scheme]
        except ValueError:
            port = None
        if port is None:
            raise ValueError(f"endpoint {text!r} has no port: write {parts.scheme}://{parts.hostname}:8001")
        path = parts.path.rstrip("/")
        if path and parts.scheme.startswith("grpc"):
            raise ValueError(f"endpoint {text!r} has a path, which gRPC has not")
        return cls(parts.scheme, parts.hostname, port, path)

    @property
    def tls(self) -> bool:
        return self.scheme.endswith("s")

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"
