"""What an operator sees. Everything here subscribes to the Engine's one hook protocol (`Observer`).

gathering.py    Items that have their outcome, handed on many at a time as numbers
statistics.py   counts and times of requests, Ops and batches, kept from the start
histogram.py    counts by bucket
pulse.py        the loop's lag and what waits, looked at ten times a second
snapshot.py     all of that at one moment; the difference of two, as figures
windows.py      a snapshot of each of the last seconds
figures.py      what a window looked like
cpu.py          CPU times
uses.py         how busy lanes, replicas and the loop were in it, and with what
limits.py       how many requests a second each thing allows
verdict.py      which Op holds the pipeline back, and what to turn
tracer.py       the figures as text, every few seconds
otel/           the same as spans, for OpenTelemetry's collector
timeline/       what every request, hook and batch did and when
resident.py     memory of processes
live.py         what the dashboard shows: the graph once, and each second what it does
observing.py    all of this, put together for one Engine
devices.py      memory and use of GPUs
prometheus.py   the same, as /metrics
usage.py        the same, as the Open Inference Protocol's statistics
log.py          what goes wrong in Ops, with data_id and log_id
logs/           where log lines go: console and rotating files, as text or JSON, by one thread
leaks/          memory, tasks and descriptors over time, and whether they leak
stacks.py       what threads and tasks are doing
admin.py        the answers of the admin pages
progress.py     the loading of models, as it goes on, for a terminal
"""
