"""A trace file as a table: where the time of its requests went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def summary(trace: Mapping[str, Any]) -> Iterator[str]:
    """Lines of text: the requests, then each hook and each wait with its count, its times and what it sums up to.

    :raises ValueError: it is no trace of ours.
    """
    events = trace.get("traceEvents")
    if not isinstance(events, list):
        raise ValueError("no traceEvents: this is no Chrome trace")
    requests: list[float] = []
    codes: dict[str, int] = defaultdict(int)
    spans: dict[str, list[float]] = defaultdict(list)
    begun: dict[tuple[Any, str], float] = {}
    for event in events:
        phase, name = event.get("ph"), event.get("name", "")
        if phase == "X" and event.get("cat") == "request":
            requests.append(event["dur"])
            codes[event["args"]["outcome"]] += 1
        elif phase == "X" and event.get("cat") == "op":
            spans[name].append(event["dur"])
        elif phase == "b":
            begun[event["id"], name] = event["ts"]
        elif phase == "e" and (event["id"], name) in begun:
            spans[name].append(event["ts"] - begun.pop((event["id"], name)))
    if not requests and not spans:
        raise ValueError("there is no request in it")
    by_code = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
    yield f"{len(requests)} requests ({by_code})"
    width = max(len("request"), *(len(name) for name in spans)) if spans else len("request")
    yield f"{'':{width}} {'count':>8} {'mean ms':>10} {'p50 ms':>10} {'p99 ms':>10} {'sum s':>9}"
    rows = sorted(spans.items(), key=lambda span: -sum(span[1]))
    for name, found in [("request", requests), *rows] if requests else rows:
        p50, p99 = np.percentile(found, (50, 99)) / 1e3
        mean = sum(found) / len(found) / 1e3
        yield f"{name:{width}} {len(found):>8} {mean:>10.3f} {p50:>10.3f} {p99:>10.3f} {sum(found) / 1e6:>9.3f}"
