"""Which samples of an Op run together, when, and on which replica: pure policy, without clock, await or threads.

    batcher.py   Batcher: feeds the replicas and learns from what became of their batches
    backlog.py   Backlog: samples that wait, and the batches that they form
    cost.py      CostModel: how long a batch takes, learned per bucket
    replicas.py  Replicas: what each has been given, and when it will be done
    returns.py   Returns: whether those whom a batch answers soon ask again
    shares.py    Shares: turns of priorities
    splitter.py  Splitter: finds the bad samples of a batch that raised
    limits.py    Limits: smaller batches after the device ran out of memory
    rows.py      samples that are batches themselves: where to cut and where to gather

    put → [feed → the replica runs it → finished | failed | out_of_memory]* ; feed again at next_feed_at

A batch closes

    a replica is idle                 at once; after `max_delay_s` where the user asked for it; when those whom its
                                      last batch answered are back, where they soon are and one run then beats two
    all run, one can be staged for    when it is full, or just before the soonest expected end (`depth` 2)
    all run and are staged for        when one is over

with the oldest samples of one bucket, as many as `batch_size` rows, `max_batch_cost` and the limit after a lack of
memory allow, without those that are dead, or late: sure to miss their deadline.
"""

from asyncline.engine.batching.batcher import Batcher as Batcher
from asyncline.engine.batching.batcher import Feed as Feed
