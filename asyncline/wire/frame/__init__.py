"""Msgpack over TCP: the frames that a client and `tcp_port` exchange. Enough is said here to write a client.

    decoder.py    the stream: bytes to frames, in whatever pieces they come
    values.py     a frame's header and body: values to msgpack and sections, and back
    messages.py   what each kind of frame says

**A frame** is 12 bytes, a header and a body. Numbers are little-endian.

    offset  bytes
    0       1      kind
    1       1      0
    2       2      length of the header
    4       4      stream: the call that it is about
    8       4      length of the body: 0 but for CALL, RESULT and PART
    12      ...    header: msgpack
            ...    body: sections

**Kinds.** Both sides say HELLO first. A client may send CALLs right behind its own.

    1  HELLO   both     a map: of a client {"token"?}, of a server {"graph", "max_body_nbytes", "max_streams"}.
                        The stream is 1, the version of this format
    2  CALL    client   [graph, options, value]. The options are a map; each may be left out: {"timeout_ms": number,
                        "log_id": at most 128 printable ASCII characters, "priority": 1 is the highest, "traceparent",
                        "parts": how many PARTs may come at first, 1 to 65,535}
    3  RESULT  server   [data_id, value]: the answer
    4  ERROR   server   {"status", "code", "message", "request_id", "retry_after_s"?, "refused"?}: why there is none.
                        Refused, true, is a CALL of which nothing was run: it may be sent again
    5  CANCEL  client   nothing: nobody waits for the answer any more
    6  GOAWAY  server   {"status", "code", "message", "retry_after_s"?}. The stream is 0
    7  PART    server   [number, value]: a part of the answer; they are numbered from 0
    8  MORE    client   a number, 1 to 65,535: so many PARTs more may come

**Streams.** A client gives each CALL a number that no CALL without an answer has. Every CALL gets one RESULT or
ERROR, in the order in which they are done, also after a CANCEL; then its number is free. CALLs beyond `max_streams` are
refused by an ERROR. A connection carries one frame after the other: who sends very long ones, and others that are to
be quick, uses two.

**Parts.** A CALL with the option `parts` gets its answer in PARTs, each as soon as it is made; then its RESULT says
how many there were, or an ERROR why there are no more. The answer of a graph that does not stream is one PART. A server
sends no more PARTs than were asked for, by `parts` and then by MORE, and does not run on before the next may come: who
takes them slowly says MORE late, and keeps up no other call. A MORE for a stream that is free is nothing.

**Versions.** A client and a server of one version understand each other. What was added to a version is said only to
those who ask for it; a server that does not have it refuses the CALL, as one with an unknown option. PART and MORE are
such additions.

**The end.** A server that stops, or that was not told anything for long, says GOAWAY `unavailable`: it answers what
it has, and the client closes. After any other GOAWAY, which says what the client did wrong, nothing is answered. A
client that closes the connection, or its sending half, cancels what is in flight.

**Values** are nil, booleans, numbers, texts, arrays, maps with texts as keys (of an answer: any), binaries, and
extensions, which stand for what lies in a section of the body:

    1  tensor   [offset, dtype, shape]   row-major, little-endian, without padding
    2  binary   [offset, length]
    3  value    [offset, length]         the whole value of the CALL or RESULT in msgpack, too long for a header

The data of an extension is msgpack too. Offsets are from the begin of the body, and multiples of 64, with anything in
between; sections do not overlap. Dtypes: bool (a byte, 0 or 1), int8, int16, int32, int64, uint8, uint16, uint32,
uint64, float16, float32, float64, complex64, complex128. A header has at most 65,535 bytes. In a CALL, arrays and
maps nest at most 32 deep, those of the header included, and a value in a section has at most 1 MiB, and about
100,000 numbers or 40,000 lists and maps: what has more is sent as tensors.

**Errors.** `status` is one of `messages.STATUSES`. `code` is the same, but for errors with a code of their own: those
of the business, which have the status `product`, and a text or a number. What is wrong with a CALL is its ERROR; what
is wrong with the stream of frames is a GOAWAY: a body over `max_body_nbytes`, a number that is in use, no HELLO.

**Example.** A client says HELLO, calls the graph `echo` with {"x": float32 [1, 2]}, and then cancels that:

    01 00 01 00 01 00 00 00 00 00 00 00 80
    02 00 19 00 07 00 00 00 08 00 00 00 93 a4 65 63 68 6f 80 81 a1 78
        c7 0c 01 93 00 a7 66 6c 6f 61 74 33 32 91 02 00 00 80 3f 00 00 00 40
    05 00 00 00 07 00 00 00 00 00 00 00

The server says HELLO, and answers float32 [1, 2], as request 9:

    01 00 30 00 01 00 00 00 00 00 00 00 83 a5 67 72 61 70 68 a4 65 63 68 6f af 6d 61 78 5f 62 6f 64 79 5f 6e 62
        79 74 65 73 ce 00 f4 24 00 ab 6d 61 78 5f 73 74 72 65 61 6d 73 cd 01 00
    03 00 11 00 07 00 00 00 08 00 00 00 92 09
        c7 0c 01 93 00 a7 66 6c 6f 61 74 33 32 91 02 00 00 80 3f 00 00 00 40
"""
