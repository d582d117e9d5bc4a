"""A timeline as a viewer reads it: the trace engine of Chromium's own DevTools, below its Performance panel."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from asyncline.observe.timeline.chrome import chrome
from tests.browser import CHROMIUM, tab
from tests.observe.test_timeline import recorded

READ = """(async () => {
    const trace = await import("./models/trace/trace.js");
    const model = trace.TraceModel.Model.createWithAllHandlers();
    await model.parse(TRACE, {});
    const data = model.parsedTrace(0).data;
    return {
        processes: [...data.Meta.processNames.values()].map((named) => named.args.name),
        rows: trace.Handlers.Threads.threadsInTrace(data).map((row) => [
            row.pid, row.name, row.entries.map((slice) => [slice.name, slice.ts, slice.dur])]),
    };
})()"""


@pytest.fixture
def trace() -> dict[str, Any]:
    return chrome(recorded([1, 2, 3, "bad", *range(12)]))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
async def test_a_browser_reads_every_row_and_slice_of_a_timeline(tmp_path: Path, trace: dict[str, Any]) -> None:
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    rows = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            rows[event["pid"], names[event["pid"], event["tid"]]].append([event["name"], event["ts"], event["dur"]])
    async with tab(tmp_path) as browser:
        await browser.open("devtools://devtools/bundled/devtools_app.html")
        await browser.wait_for("document.readyState === 'complete'")
        read = await browser.evaluate(READ.replace("TRACE", json.dumps(trace["traceEvents"])))
    assert read["processes"] == ["requests", "ops of g"]
    found = {(pid, name): slices for pid, name, slices in read["rows"]}
    assert len(found) == len(read["rows"]) == len(rows) > 20
    assert found == {row: sorted(slices, key=lambda one: one[1]) for row, slices in rows.items()}
