"""Bytes to values and back, without sockets.

json.py      JSON bodies: orjson in, orjson out with arrays as lists
msgpack.py   the same values as msgpack
oip/         the Open Inference Protocol, REST and gRPC
"""
