"""What a download may cost before it is given up."""

from __future__ import annotations

from dataclasses import dataclass

_GRACE_S = 1.0


@dataclass(frozen=True)
class FetchLimits:
    """Limits of one download, and of all at once. Every one of them ends in FetchFailed, but for those that wait."""

    nbytes: int = 10_000_000
    connect_s: float = 2.0
    """For the connection to one address, TLS and all."""
    total_s: float = 5.0
    """For all of it, redirects and all, from when it has a slot."""
    redirects: int = 3
    min_bytes_per_s: int = 0
    """Of the body, on average, after its first second."""
    per_host: int = 16
    """Downloads from one host at once; more wait."""
    total: int = 64
    """Downloads at once; more wait."""
    cache_nbytes: int = 0
    cache_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("nbytes", "connect_s", "total_s", "per_host", "total"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected more than 0")
        for name in ("redirects", "min_bytes_per_s", "cache_nbytes", "cache_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected 0 or more")

    def least_nbytes(self, elapsed_s: float) -> float:
        """How much of a body has to be there by now."""
        return self.min_bytes_per_s * elapsed_s if elapsed_s > _GRACE_S else 0.0
