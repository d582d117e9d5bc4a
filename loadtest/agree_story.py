"""Story: what the five that look at a server have told of one load, and where they differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest import agree_read as read
from loadtest.agree_read import Told

SUM = 1e-3
"""Sums of seconds may differ by this share of them: the tracer writes a thousandth of a millisecond."""
PRINTED, PRINTED_SHARE = 0.0051, 0.0051
"""Windows, by what is printed: two digits behind the point, or three in all for a mean of rows."""
PERCENTILE = 0.02
"""Percentiles, of the exact ones: the histogram's promise is 0.8 %."""


@dataclass(frozen=True)
class Story:
    """Of a server that had no request before; the load is over, and a block of the tracer has been written since."""

    client: Told
    """`requests` and `requests ok`, as those count them who sent them."""
    moments: Sequence[Mapping[str, Any]]
    """The data of all events `figures` of the dashboard that came by themselves, one each second."""
    tracer: str
    """All blocks; their interval is that of the dashboard's window, ten seconds."""
    top: str
    """One picture of `asyncline top --once`, drawn while there was load."""
    timeline: Mapping[str, Any]
    """Of all requests."""
    metrics: str
    """A page of `/metrics`."""

    def totals(self) -> dict[str, Told]:
        """All that each told of everything, by source."""
        blocks = [told for told, _ in read.blocks(self.tracer)]
        timeline, requests = read.drawn(self.timeline)
        metrics, bounds = read.scraped(self.metrics)
        timeline |= read.within([seconds for _, seconds in requests], bounds)
        return {
            "client": self.client,
            "dashboard": read.summed(self.moments),
            "tracer": read.counted(blocks),
            "timeline": timeline,
            "/metrics": metrics,
        }

    def differences(self) -> list[str]:
        """Each a sentence; none where all tell the same."""
        found = [
            f"{name}: {_listed(told)}" for name, told in pairs(self.totals()) if not is_same(name, list(told.values()))
        ]
        blocks = [(told, verdict) for told, verdict in read.blocks(self.tracer) if told.get("requests")]
        if not blocks:
            found.append("the tracer has no block with requests")
        for number, (told, verdict) in enumerate(blocks):
            found += self._against_dashboard(f"block {number} of the tracer", told, verdict)
        found += self._against_dashboard("asyncline top", *read.pictured(self.top))
        return found + list(self._percentiles([told for told, _ in blocks]))

    def _against_dashboard(self, what: str, told: Told, verdict: str) -> Iterable[str]:
        """Compare with that event which is most like it: they are of one second, and no two are alike in all."""
        candidates = []
        for moment in self.moments:
            shown = read.shown(moment)
            differing = [
                f"{what}: {name} {value:g}, dashboard {shown.get(name, float('nan')):g}"
                for name, value in told.items()
                if name not in shown or not _is_near(value, shown[name], PRINTED, PRINTED_SHARE)
            ]
            if moment["verdict"]["text"] != verdict:
                differing.append(f"{what}: {verdict!r}, dashboard {moment['verdict']['text']!r}")
            candidates.append(differing)
        return min(candidates, key=len, default=[f"{what}: there is no event of the dashboard"])

    def _percentiles(self, blocks: Sequence[Told]) -> Iterable[str]:
        """Those of the blocks against exact ones of the timeline's requests, which each block has in their order."""
        _, requests = read.drawn(self.timeline)
        first = 0
        for number, told in enumerate(blocks):
            end = first + int(told["requests"])
            ok = [seconds for code, seconds in requests[first:end] if code == "ok"]
            first = end
            for name, exact in read.percentiles(ok).items() if ok else ():
                if not _is_near(told[name], exact, 0.0005, PERCENTILE):
                    yield f"block {number} of the tracer: {name} {told[name]:g}, timeline {exact:g}"


def pairs(sources: Mapping[str, Told]) -> list[tuple[str, Told]]:
    """What more than one source tells: its name, and by source its figure."""
    names = dict.fromkeys(name for told in sources.values() for name in told)
    found = [(name, {source: told[name] for source, told in sources.items() if name in told}) for name in names]
    return [(name, told) for name, told in found if len(told) > 1]


def is_same(name: str, values: Sequence[float]) -> bool:
    """Whether totals of that name are the same: sums of seconds nearly, all others exactly."""
    if (name.endswith(" s") and not name.startswith("requests within")) or name.startswith("seconds"):
        return all(_is_near(value, values[0], 1e-6, SUM) for value in values)
    return all(abs(value - values[0]) < 1e-6 for value in values)


def _is_near(value: float, other: float, most: float, share: float) -> bool:
    return abs(value - other) <= max(most, share * abs(other))


def _listed(told: Told) -> str:
    return ", ".join(f"{source} {value:.9g}" for source, value in told.items())
