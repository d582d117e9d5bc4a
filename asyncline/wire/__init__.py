"""Bytes to values and back, without sockets.

json.py      JSON bodies: orjson in, orjson out with arrays as lists
msgpack.py   the same values as msgpack
heads.py     what msgpack says of its lengths, checked before it is believed
weight.py    what decoding makes of a body, and that it is not too much
frame/       msgpack over TCP: frames, with arrays and bytes beside them
oip/         the Open Inference Protocol, REST and gRPC
paddle/      Paddle Serving's pipelines, REST and gRPC
events.py    server-sent events: the stream of bytes to events
traceparent.py  the header of W3C Trace Context
schema.py    protobuf messages in a descriptor pool of their own
protobuf.py  raw bytes cut out of a protobuf message and put into one
"""
