"""Where hooks run.

    base.py      contracts: Lane takes Jobs (a hook of one Item), Replica takes Batches; both hand back by callback
    steps.py     run_steps: several hooks fused into one task, in a thread and in a worker
    loop.py      InlineLane, LoopLane, LoopReplica: on the event loop
    thread.py    ThreadLane: a few threads, for code that releases the GIL
    process.py   ProcessLane: a queue of Jobs in front of single-worker process pools
        crew.py         Crew: the processes that there are, and their successors
        pool_worker.py  PoolWorker: the server's side of one process; worker.py is what runs in it
        worker_log.py   what such a process logs, brought to the server's loggers
        recipe.py       Recipe: how a process makes an Op of its own
        supervision.py  when a process starts again, and when an Op is refused
        link.py      Link: the connection between the server and one worker
        crossing.py  pack, unpack: small values inside a message, large ones beside it
        segment.py   Segments: shared memory that one process writes and others read
    call.py      one call of `process`: its arguments from a Batch, its results back to the samples
    device.py    ThreadReplica: a thread for each replica
    pipelined.py PipelinedReplica: on CUDA, a thread that submits and one that completes
        ring.py, slot.py, layout.py   the buffers of batches in flight, and where samples lie in them
        accelerator.py   what this knows of CUDA, as protocols that backends implement
    lanes.py     Lanes: makes and keeps the ones that a Plan needs

A kind of lane is one file; which lane a hook takes is `Node.lane` in `graph/plan.py`.
"""
