"""Address: where an endpoint is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443, "grpc": None, "grpcs": None, "tcp": None, "tcps": None}
"""The schemes, and their ports where there is a usual one. The `s` is TLS."""
EXAMPLES = {"http": "http://host:8000", "grpc": "grpc://host:8001", "tcp": "tcp://host:8002"}
MODEL_SERVERS = ("http", "grpc")


@dataclass(frozen=True)
class Address:
    scheme: str
    host: str
    port: int
    path: str = ""
    """In front of all paths, by HTTP; without a slash at its end."""

    @classmethod
    def parse(cls, text: str, kinds: Collection[str] = MODEL_SERVERS) -> Address:
        """Take `http://host:8000` or `grpc://host:8001` apart.

        :param kinds: the schemes there are, without those of TLS.
        :raises ValueError: it is no such address; says what is wrong.
        """
        try:
            parts = urlsplit(text)
            known = parts.scheme in PORTS and parts.scheme.removesuffix("s") in kinds and parts.hostname
        except ValueError:  # of a bracket
            known = None
        if not known or parts.hostname is None:
            raise ValueError(f"{text!r} is no endpoint: write {' or '.join(EXAMPLES[kind] for kind in kinds)}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                f"endpoint {parts.hostname!r}: expected host and port only; credentials go into headers= or token="
            )
        try:
            port = parts.port or PORTS[parts.scheme]
        except ValueError:
            port = None
        if port is None:
            example = EXAMPLES[parts.scheme.removesuffix("s")].rpartition(":")[2]
            raise ValueError(f"endpoint {text!r} has no port: write {parts.scheme}://{parts.hostname}:{example}")
        path = parts.path.rstrip("/")
        if path and not parts.scheme.startswith("http"):
            raise ValueError(f"endpoint {text!r} has a path, which only HTTP has")
        return cls(parts.scheme, parts.hostname, port, path)

    @classmethod
    def parse_all(cls, text: str | Sequence[str]) -> tuple[Address, ...]:
        """Addresses of one's own servers: a list, or `tcp://a:8002,b:8002`, where the scheme need be there only once.

        :raises ValueError: there is none, one twice, or one is no address.
        """
        texts = [part.strip() for part in text.split(",")] if isinstance(text, str) else list(text)
        scheme = texts[0].partition("://")[0] if texts else ""
        found = tuple(cls.parse(part if "://" in part else f"{scheme}://{part}", tuple(EXAMPLES)) for part in texts)
        if not found:
            raise ValueError("there is no endpoint")
        if len(set(found)) < len(found):
            raise ValueError("an endpoint is there twice")
        return found

    @property
    def kind(self) -> str:
        """The scheme, without TLS."""
        return self.scheme.removesuffix("s")

    @property
    def tls(self) -> bool:
        return self.scheme.endswith("s")

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"
