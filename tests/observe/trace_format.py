"""The Trace Event Format, as far as it is used, checked strictly."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

Event = dict[str, Any]

FIELDS: dict[str, set[str]] = {
    "X": {"ts", "dur", "cat", "args"},
    "b": {"ts", "cat", "id", "args"},
    "e": {"ts", "cat", "id"},
    "s": {"ts", "cat", "id"},
    "t": {"ts", "cat", "id"},
    "f": {"ts", "cat", "id", "bp"},
    "C": {"ts", "args"},
    "M": {"args"},
}
"""Of each phase, besides ph, pid, tid and name; all that are there, and no others."""
METADATA = {"process_name": str, "process_sort_index": int, "thread_name": str, "thread_sort_index": int}
ROUNDING_US = 0.002


def check_trace(trace: Any) -> list[Event]:
    """The events of a trace that is as the format says; fails where it is not."""
    assert set(trace) == {"traceEvents", "displayTimeUnit"} and trace["displayTimeUnit"] in ("ms", "ns")
    events: list[Event] = trace["traceEvents"]
    for event in events:
        _check_fields(event)
    slices = _check_rows(events)
    _check_flows(events, slices)
    _check_pairs(events)
    return events


def _check_fields(event: Event) -> None:
    phase = event["ph"]
    assert set(event) == {"ph", "pid", "tid", "name"} | FIELDS[phase], event
    assert type(event["pid"]) is int and type(event["tid"]) is int and event["name"], event
    for time in {"ts", "dur"} & event.keys():
        assert isinstance(event[time], int | float) and event[time] >= 0, event
    if phase == "C":
        assert event["args"] and all(isinstance(value, int | float) for value in event["args"].values()), event
    if phase == "M":
        (value,) = event["args"].values()
        assert isinstance(value, METADATA[event["name"]]), event
    if phase == "f":
        assert event["bp"] == "e"


def _check_rows(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    """Slices of a row do not overlap, and every row has its name."""
    slices = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append(event)
    for row in slices.values():
        row.sort(key=lambda event: (event["ts"], event["dur"]))
        for one, other in pairwise(row):
            assert one["ts"] + one["dur"] <= other["ts"] + ROUNDING_US, (one, other)
    named = [(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"]
    assert sorted(named) == sorted(slices)
    return slices


def _check_flows(events: list[Event], slices: dict[tuple[int, int], list[Event]]) -> None:
    """An arrow is bound to the slice that its time and row lie in; each begins once, goes on in time, and ends once."""
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "stf":
            flows[event["id"]].append(event)
            inside = [
                one
                for one in slices[event["pid"], event["tid"]]
                if one["ts"] - ROUNDING_US <= event["ts"] <= one["ts"] + one["dur"] + ROUNDING_US
            ]
            assert inside, event
    for steps in flows.values():
        phases = "".join(event["ph"] for event in steps)
        assert phases == f"s{'t' * (len(phases) - 2)}f"
        times = [event["ts"] for event in steps]
        assert times == sorted(times), steps


def _check_pairs(events: list[Event]) -> None:
    """What begins ends, and not before."""
    begun = {(event["cat"], event["id"], event["name"]): event["ts"] for event in events if event["ph"] == "b"}
    ended = {(event["cat"], event["id"], event["name"]): event["ts"] for event in events if event["ph"] == "e"}
    assert begun.keys() == ended.keys()
    assert all(begun[key] <= ended[key] for key in begun)
