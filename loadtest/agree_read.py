"""What each of the five that look at a server tells, read into the same words.

Totals are of all requests since the start, Windows of the last ten seconds. Keys are those of the tracer, after the
name of an Op where it is one's; what a source does not tell is left out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

Told = dict[str, float]
"""Figures by name."""

STAGES = {"in": "wait", "prep": "pre", "midp": "mid", "postp": "post", "out": "out"}
"""As tracer and dashboard call them, and as `/metrics` does."""
_IDS = "Error req"
"""Not a figure, though one id looks like one."""
_NAMES = {"ave": "mean ms", "QPS": "qps", "Succ": "success", "Query count": "requests", "batch size": "batch size"}
_HEADLINE = "TRACER"


# -- the dashboard ----------------------------------------------------------------------------------------


def shown(moment: Mapping[str, Any]) -> Told:
    """The window of ten seconds in an event of `/figures/live`."""
    last = moment["last"]
    told: Told = {"requests": sum(last["outcomes"].values()), "qps": last["qps"], "success": last["success"]}
    if last["latency"]["count"]:
        told["mean ms"] = last["latency"]["mean_ms"]
        told |= {f"p{number} ms": value for number, value in last["latency"]["percentiles_ms"].items()}
    for op in last["ops"]:
        if op["count"] or op["errors"]:
            told |= {f"{op['name']} {stage} ms": op[f"{stage}_ms"] for stage in STAGES}
            told |= {f"{op['name']} idle": op["idle"], f"{op['name']} failed": sum(op["errors"].values())}
            told[f"{op['name']} most queued"] = op["depth_max"]
            if op["batches"]:
                told[f"{op['name']} batch size"] = op["batch_size"]
    return told


def summed(moments: Iterable[Mapping[str, Any]]) -> Told:
    """The seconds of all events, added up."""
    told: Counter[str] = Counter()
    for moment in moments:
        now = moment["now"]
        ok = now["outcomes"].get("ok", 0)
        told["requests"] += sum(now["outcomes"].values())
        told["requests ok"] += ok
        told["seconds of requests ok"] += ok * now["latency"]["mean_ms"] / 1e3
        for op in now["ops"]:
            name = op["name"]
            told[f"{name} requests"] += op["count"]
            told[f"{name} failed"] += sum(op["errors"].values())
            told[f"{name} batches"] += op["batches"]
            told[f"{name} rows"] += op["batches"] * op["batch_size"]
            told[f"{name} process s"] += op["batches"] * op["batch_ms"] / 1e3
            for stage in STAGES:
                told[f"{name} {stage} s"] += op["count"] * op[f"{stage}_ms"] / 1e3
    return dict(told)


# -- the tracer -------------------------------------------------------------------------------------------


def blocks(text: str) -> list[tuple[Told, str]]:
    """Each block of a `pipeline.tracer`, and the verdict below it."""
    found: list[tuple[Told, str]] = []
    op = ""
    for line in text.splitlines():
        message = re.sub(r"^\d{4}-\d\d-\d\d [\d:,]+ ", "", line)
        if _HEADLINE in message:
            found.append(({}, ""))
        elif message.startswith("bottleneck: "):
            found[-1] = found[-1][0], message
        elif (match := re.match(r"(?:Op\((\w+)\)|DAGExecutor):", message)) is not None:
            op = f"{match[1]} " if match[1] else ""
        elif (match := re.fullmatch(r"\t+([^\[]+)\[([\d.]+)( ms| q/s)?]", message)) is not None and match[1] != _IDS:
            told, name = found[-1][0], match[1]
            told[f"{op}{_named(name, match[3])}"] = float(match[2])
        elif (match := re.fullmatch(r"\tqueue\[\d+ now, (\d+) at most]", message)) is not None:
            found[-1][0][f"{op}most queued"] = float(match[1])
            found[-1][0].setdefault(f"{op}failed", 0.0)
        elif (match := re.fullmatch(r"\terrors\[(\d+) \w+]", message)) is not None:
            found[-1][0][f"{op}failed"] = found[-1][0].get(f"{op}failed", 0.0) + float(match[1])
    return found


def _named(name: str, unit: str | None) -> str:
    if name.startswith("."):
        return f"p{name[1:]} ms"
    return _NAMES.get(name) or (f"{name} ms" if unit == " ms" else name)


def counted(found: Iterable[Told]) -> Told:
    """What blocks of the tracer add up to."""
    told: Counter[str] = Counter()
    for block in found:
        requests = block.get("requests", 0)
        told["requests"] += requests
        told["requests ok"] += round(requests * block.get("success", 0))
        told["seconds of requests ok"] += round(requests * block.get("success", 0)) * block.get("mean ms", 0) / 1e3
        for name, value in block.items():
            if name.endswith(" failed"):
                told[name] += value
    return dict(told)


# -- asyncline top ----------------------------------------------------------------------------------------


def pictured(text: str) -> tuple[Told, str]:
    """A picture of `asyncline top --once`, and its verdict; in a terminal that is wide enough for it."""
    told: Told = {}
    totals = re.search(r"([\d.e+]+) requests/s  ([\d.]+)% ok  (\d+) failed", text)
    latency = re.search(r"latency ms  (.*)", text)
    verdict = re.search(r"^bottleneck: .*?(?=\s*$)", text, re.MULTILINE)
    assert totals and latency and verdict, text
    told["qps"], told["success"] = float(totals[1]), float(totals[2]) / 100
    told |= {f"{name} ms": float(value) for name, value in re.findall(r"(p\d+|mean) ([\d.e+]+)", latency[1])}
    columns: list[str] | None = None
    for line in text.splitlines():
        words = line.replace("▶", " ").split()
        if words[:2] == ["op", "req/s"]:
            columns = words
        elif columns is not None and len(words) == len(columns):
            row = dict(zip(columns, words, strict=True))
            name = row["op"]
            told |= {f"{name} {stage} ms": float(row[stage]) for stage in STAGES}
            told |= {f"{name} idle": float(row["idle"]), f"{name} failed": float(row["failed"])}
            told[f"{name} most queued"] = float(row["most"])
            if row["batch"] != "-":
                told[f"{name} batch size"] = float(row["batch"])
    return told, verdict[0]


# -- the timeline -----------------------------------------------------------------------------------------


def drawn(trace: Mapping[str, Any]) -> tuple[Told, Sequence[tuple[str, float]]]:
    """What the slices add up to, and of each request in the order of their ends its outcome and its seconds."""
    told: Counter[str] = Counter()
    requests: list[tuple[float, str, float]] = []
    for event in trace["traceEvents"]:
        if event["ph"] != "X":
            continue
        seconds = event["dur"] / 1e6
        if event["cat"] == "request":
            requests.append((event["ts"] + event["dur"], event["args"]["outcome"], seconds))
            continue
        op, _, hook = event["name"].partition(".")
        told[f"{op} {hook} s"] += seconds
        if "rows" in event["args"]:
            told[f"{op} batches"] += 1
            told[f"{op} rows"] += event["args"]["rows"]
    told["requests"] = len(requests)
    told["requests ok"] = sum(code == "ok" for _, code, _ in requests)
    told["seconds of requests"] = sum(seconds for *_, seconds in requests)
    told["seconds of requests ok"] = sum(seconds for _, code, seconds in requests if code == "ok")
    return dict(told), [(code, seconds) for _, code, seconds in sorted(requests)]


def percentiles(seconds: Sequence[float], which: Iterable[int] = (50, 60, 70, 80, 90, 95, 99)) -> Told:
    """Exact ones: the least number that more than so many hundredths do not exceed."""
    found = np.sort(seconds)
    return {f"p{one} ms": float(found[min(one * len(found) // 100, len(found) - 1)]) * 1e3 for one in which}


def within(seconds: Sequence[float], bounds: Iterable[float]) -> Told:
    """How many are not above each bound."""
    return {f"requests within {bound:g} s": int(np.sum(np.asarray(seconds) <= bound)) for bound in bounds}


# -- /metrics ---------------------------------------------------------------------------------------------


def scraped(page: str) -> tuple[Told, list[float]]:
    """What it counted since the start, and the bounds of its buckets of seconds."""
    told: Told = defaultdict(float)
    bounds: list[float] = []
    stages = {name: stage for stage, name in STAGES.items()}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            name, labels, value = sample.name.removeprefix("asyncline_"), sample.labels, sample.value
            op = labels.get("op", "")
            if name == "requests_total":
                told["requests"] += value
                told["requests ok"] += value if labels["code"] == "ok" else 0
            elif name == "request_seconds_sum":
                told["seconds of requests"] = value
            elif name == "request_seconds_bucket" and labels["le"] != "+Inf":
                bounds.append(float(labels["le"]))
                told[f"requests within {float(labels['le']):g} s"] = value
            elif name == "op_seconds_sum":
                told[f"{op} {stages[labels['stage']]} s"] = value
            elif name == "op_seconds_count" and labels["stage"] == "wait":
                told[f"{op} requests"] = value
            elif name == "op_errors_total":
                told[f"{op} failed"] += value
            elif name == "batch_size_count":
                told[f"{op} batches"] = value
            elif name == "batch_size_sum":
                told[f"{op} rows"] = value
            elif name == "batch_seconds_sum":
                told[f"{op} process s"] = value
            elif name == "hook_seconds_total":
                told[f"{op} {labels['hook']} s"] = value
    return dict(told), bounds
