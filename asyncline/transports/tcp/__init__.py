"""Msgpack over TCP: calls by the hundred on one connection, each answered when it is done. The format of what is said
is in `asyncline.wire.frame`.

    transport.py   TcpTransport: the listening socket and its connections
    connection.py  Connection: one client, from HELLO to its end; where a CALL becomes an Item and an Item an answer
    parts.py       PartsOut: the answer to one CALL in parts
    shared.py      Shared: what the connections of one transport have in common
    limits.py      CallLimits: what the calls of one connection may take

    socket → Decoder → CALL → Engine.begin → Item → RESULT or ERROR → one write for all of a turn of the loop

No task stands behind a connection or a call: an Item that is done at once is answered in the turn that read it.
"""
