"""Spans of requests, Ops and batches for an OpenTelemetry collector, of what the timeline has kept.

ids.py      Ids: which request is of which trace, and the ids of its spans, from its number alone
fresh.py    Fresh: what has ended since the last time
spans.py    Maker: that, as spans of OpenTelemetry's SDK
sender.py   Sender: makes and sends them
export.py   Export: the thread that does so each second

    trace of the caller     request ── Op ── Op                     each Op's hooks are events of its span
                                        ╎ link, both ways
    a trace of its own                batch ── what was called on its behalf

A batch of one request is in that one's trace, below its Op. While requests run, nothing is done for all this but to
hand on trace contexts; later their ids are made again from their numbers, which is why an id is a keyed hash.
"""
