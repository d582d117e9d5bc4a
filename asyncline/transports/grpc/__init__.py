"""gRPC: services by grpclib's contract, over h2.

    transport.py    GrpcTransport: the listening socket, and which services there are
    service.py      Service: how to write one, and how it starts an Item
    paddle.py       Paddle Serving's PipelineService
    inference.py    the Open Inference Protocol's service; stream_infer.py: its ModelStreamInfer
    health.py       grpc.health.v1
    reflection.py   grpc.reflection.v1 and v1alpha
    connection.py   Connection: one client, from its preface to its end; GOAWAY, what takes too long
    call.py         Call: one call, from its headers to its trailers; where an Item becomes an answer
    head.py         what the headers of a call say
    inbox.py        messages put together from what arrives, within their limits
    outbox.py       what a call has to say, until the client takes it
    compression.py  gzip and deflate, in both directions
    status.py       outcomes as statuses
    meter.py        frames counted before anything is done for them
    http2.py        h2's connection, with what a server of many calls has to have otherwise
    shared.py       Shared: what the connections of one transport have in common
    limits.py       Limits: what one connection may take

    socket → Meter → h2 → Inbox → Call → Engine.begin → Item → trailers → one write for all of a turn of the loop

grpclib's own server has no limit to a message, none to what a connection may ask for besides calls, reads no
compressed message, and ends by cancelling all calls. So its contract for services is kept, and the server is this one.
No task stands behind a connection, nor behind a call of a method that is a plain function.
"""
