"""`asyncline check --advise`: tries the CPU hooks of a graph and says which lane suits each.

payload.py     what `--sample` names, as values of the Request
stand_in.py    a copy of the graph that can be fed where there are values
tap.py         keeps what a hook got
arguments.py   what a hook got, fresh for every call
threads.py     calls in threads of their own, bounded in time
measure.py     Figures: what the calls of one hook cost
race.py        one thread against two, on a machine that others use too; pure
policy.py      Figures → Advice; pure
report.py      the table, and the settings to paste
advise.py      all of it, in order

one request runs through the graph in this process, models and all, and every sync `preprocess` and
`postprocess` is tapped  →  each is called again by itself, in one thread and in two  →  Advice  →  Report

Hooks run in this process, in threads, whatever their lane: one that kills its process ends the advice.
"""
