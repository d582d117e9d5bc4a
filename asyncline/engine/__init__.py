"""A Graph at work, in one asyncio process.

    engine.py     Engine: life, admission of requests, delivery of results between Ops
    item.py       Item: one request, with one outcome
    works.py      Works: what it runs on: lanes, Runners, replicas, made and loaded at its start
    admission.py  the door: tokens and bytes
    channel.py    Channel: the bounded queue in front of an Op
    runner.py     Runner: one Op at work; visit.py: one Item at one Op, and its Samples
    jumping.py    JumpingRunner: one that may hand its result on in the place of another's
    processing.py Processing: `process` of one Op at work, the replicas and what waits for them
    batching/     Batcher: which samples run together, when and where (pure policy)
    lanes/        where hooks run
    expiry.py     deadlines on one timer; alarm.py: one timer for whatever comes first
    hooks.py      Observer: how tracer, metrics and logs see all this
    context.py    context(): what a hook may know of its request
    spans.py      Spans: what calls on its behalf carry, where its trace is exported
    memory.py     empty(): room for a large result where the server can read it
    guard.py      LoopGuard: names the hook that blocks the loop; frames.py: which hook a stack is in
    parts.py      Parts: an answer that goes out piece by piece; stream.py: to a caller in this process

    begin → token → unpack → [Channel → pre → Batcher → process → post]* → pack → Item.resolve → on_done

Everything but the hooks themselves runs on the loop, in calls and callbacks: a request costs no task.
"""
