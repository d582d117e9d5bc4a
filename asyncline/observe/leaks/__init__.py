"""Whether the server keeps more and more.

sample.py   what a process holds at one moment
trend.py    a robust slope, with an interval
judge.py    is it a leak, and of what: policy, no clock of its own
watch.py    a sample every 10 s, the alarm
bundle.py   what an alarm leaves on disk
"""
