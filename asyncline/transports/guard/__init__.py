"""The connection guard: who may connect, and when a connection is ended. One for all transports of a server.

    limits.py       Limits: the figures, in time, bytes and connections
    connections.py  Connections: those of one transport that are open
    guard.py        ConnGuard: counts connections, in all and of each peer; Ticket: one that is counted
    listener.py     Listener: the listening sockets of one transport; accepts while there are descriptors
    turns.py        Turns: how much of one wire's work is done in one turn of the loop
    unread.py       Unread: what was written to a client that does not read, as bytes in flight

    socket → Listener → ConnGuard.admit → Ticket → protocol → ... → Ticket.close
             TLS, within header_s                  every phase has a time; what takes longer ends the connection

| phase                                   | ends                                               | reason    |
|-----------------------------------------|----------------------------------------------------|-----------|
| accept                                  | over the connections in all or of the peer         | (refused) |
| TLS handshake                           | `header_s`, or it fails                            | handshake |
| first message, or a head that has begun | `header_s`                                         | slow      |
| over HTTP/1, no byte of a first one     | `header_s`                                         | idle      |
| body                                    | `body_s`; slower than `upload_nbytes_s`            | slow      |
| being served                            | by the request's own deadline                      |           |
| answers that are not read               | less than `download_nbytes_s` read in `stall_s`    | stalled   |
| nothing in flight                       | `keepalive_s`                                      | idle      |
| over the limit, of the reserve          | `RESERVE_S`, or it wants no page for operators     | refused   |
| it breaks the protocol                  | `linger_s` after it was told so                    | malformed |
| the server stops                        | `linger_s` after the last answer                   | stopping  |
| none of these                           | the client has left                                | left      |

The policy is here, the timers are the connections' own: each has one `Alarm`, which is set when a phase begins and
not for every message, and no task.
"""
