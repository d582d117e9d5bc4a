"""The server's log, written by a thread of its own; the root logger, and those of other packages, are left alone.

logs.py      where records go: console, pipeline.log, pipeline.log.wf, pipeline.tracer, pipeline.access
enqueue.py   the handler on the loggers: ids, limit, then off to the writer
limit.py     how many lines of one kind are too many
writer.py    the thread, its bounded queue, and files that rotate
lock.py      the folder, for one server alone
formats.py   lines for people, lines for files, JSON
access.py    a line for each request
"""
