"""The timeline: what every request, hook and batch did and when, of the last seconds.

records.py    what a request, a hook and a batch did and when
recorder.py   Recorder: an observer that keeps it all in rings of bounded size, as numbers
kept.py       what it has at a moment; makes records of what is asked for
chrome.py     what was kept, as Chrome's trace JSON, for chrome://tracing and ui.perfetto.dev
arrivals.py   when a request came to each Op
captures.py   traces of requests that were slow or failed, as files
summary.py    such a file, as a table

Always on, as it costs a fraction of a microsecond a request; nothing is written until somebody asks.
"""
