"""The Open Inference Protocol, what its wires share: the served graph and each of its Ops as models.

    models.py    Models: metadata, configuration, statistics, and the way of a request in and of its answer out
    inputs.py    tensors of a request to the payload of the graph
    outputs.py   an answer of the graph to tensors

    request = decode(...)                               # wire/oip
    options = models.options(request)
    item = engine.begin(models.payload(request), timeout_s=options.timeout_s, priority=options.priority, ...)
    response = models.response(request, item.result())
    encode(response)

The graph is an ensemble whose steps are its Ops. Only the graph can be run; an Op is a model so that clients can read
what it is and how long it takes. There is one version, "1".

**Batches.** One request is one Item. Its tensors have the shapes of the Request's fields as they are, and
`max_batch_size` is 0: no length of them is a batch. Only where the graph takes rows (`Graph.takes_rows`: every field is
a Tensor `[-1, ...]` and every Op says that it gives as many rows as it takes, as `Model(..., rows=True)` does) is the
first length a batch, and a client may lay requests together. `[-1, n]` alone does not say so: it may be the points of
one cloud. Ops batch across requests in either case.
"""

from asyncline.transports.oip.models import Models, Options

__all__ = ["Models", "Options"]
