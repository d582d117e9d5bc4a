"""What an operator sees. Everything here subscribes to the Engine's one hook protocol (`Observer`).

statistics.py   counts and times of requests, Ops and batches, kept from the start
prometheus.py   the same, as /metrics
usage.py        the same, as the Open Inference Protocol's statistics
log.py          log lines with data_id and log_id; set-up of the console log
progress.py     the loading of models, as it goes on, for a terminal
"""
