"""What a user declares: Ops, wired into a Graph, and the Plan that an Engine makes of it.

outcomes.py   Each, Rows, Skip, Reply: what a hook may return beside a value
fields.py     Image, Text, Json, Tensor: the typed fields of a Request
request.py    Request and Response: the graph's entry and exit; Input: whatever an Op can be wired to
op.py         Op and @op: one step
graph.py      Graph: named wiring, validated at import
plan.py       Plan and Node: a Graph with its settings in force, laid out for an Engine
jump.py       which Ops may hand their result on in the place of another's
fusion.py     Step, Chain, fuse: which neighbouring CPU hooks run in one task
collate.py    Stack, Pad: how the samples of a batch are laid together for `process`

declare (Op, Request)  →  build (Graph: names the culprit)  →  plan (with settings)  →  run (Engine)
"""
