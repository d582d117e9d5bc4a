"""The doors of a server: bytes in, `Engine.begin`, bytes out. A transport knows no Op.

base.py   contract of a transport: start, close, wait_closed
guard/    who may connect, and when a connection is ended: for all of them
oip/      the Open Inference Protocol, what its wires share
paddle/   Paddle Serving's pipelines, what their wires share
inflate.py what comes compressed, within its limit
threads.py long messages are decoded in two threads
timing.py where the time of an Item went, as a header
rest/     HTTP/1.1 by aiohttp
grpc/     gRPC: health and reflection, and services by grpclib's contract
tcp/      msgpack over TCP
"""
