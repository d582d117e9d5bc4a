"""Load on asyncline, and its numbers beside those of what one would write without it.

    python -m loadtest.bench [--only echo,submit,...] [--pairs 5] [--seconds 3] [--pages 16]

    bench.py             runs the benchmarks, prints the table; exit code 1 when a budget is missed
    ├── echo.py          REST echo against a bare aiohttp application, requests/s by wrk
    │   ├── echo_graph.py      ours: a graph of one inline Op
    │   ├── echo_baseline.py   theirs
    │   └── echo.lua           what wrk sends
    ├── observe.py       the same echo and OCR with all that observes them, against without
    │   └── observe_served.py  the server
    ├── verdict.py       whether the verdict names planted bottlenecks, and what its knobs bring
    │   └── verdict_graph.py   graphs in which one thing is slow
    ├── leak.py          planted leaks, and clean graphs, for `asyncline leak check`
    │   └── leak_graph.py      these graphs
    ├── tcp.py           msgpack over TCP against our REST, a bare protocol and a bare copy
    │   ├── tcp_client.py      its clients, in a process of their own
    │   └── tcp_baseline.py    theirs
    ├── oip.py           the Open Inference Protocol, a tensor in binary against the same in JSON
    ├── paddle.py        Paddle's REST request against our own, on the same Op
    │   ├── paddle_graph.py     a native graph
    │   └── paddle_service.py   a service of Paddle's classes
    ├── canary.py        how long a request by one wire waits while another one is saturated
    │   └── canary_client.py    those that wait, in a process of their own
    ├── submit.py        Engine.submit in process, CPU time
    ├── jpeg.py          JPEG decode in the lane of threads, two against one
    │   └── photos.py          the photograph
    ├── fetch.py         downloads by Fetch against the rate that their number at once allows, lag of the loop
    │   └── fetch_origin.py    whom they ask
    ├── batching.py      batching in process: its gain, a lone client, fixed timers, a bad sample
    │   ├── batching_timer.py    the fixed timer
    │   └── batching_clients.py  clients in process, and their rate
    ├── models.py        a net of convolutions in an Engine against the raw loop of its Session; malloc
    │   ├── models_contest.py    one arrangement, in a process of its own
    │   └── models_nets.py       the nets; models_onnx.py, models_torch.py: the same as a file, as a Module
    ├── tagging.py       the tagging graph in process against its functions in one Op
    │   └── tagging_sequential.py  that Op
    ├── ocr.py           pages/s and latency of the served OCR graph against raw RapidOCR
    │   ├── ocr_served.py      ours, and its HTTP clients
    │   ├── ocr_raw.py         theirs: processes that call RapidOCR
    │   └── pages.py           the pages
    locustfile.py        users of the three wires, for locust
    ├── locust_calls.py      those of gRPC and of TCP
    └── locust_payload.py    what all of them send
    agree.py             that dashboard, tracer, top, timeline and /metrics tell the same (python -m loadtest.agree)
    ├── agree_story.py       what they told, and where they differ
    └── agree_read.py        reads what each of them tells
    nonces.py            that no answer goes to another request (python -m loadtest.nonces)
    └── nonces_graph.py      what the nonces go through
    gpu.py               the CUDA lane against a raw CUDA-graph loop (python -m loadtest.gpu)
    ├── alternating.py  two requests under load in turns, by one wrk; alternate.lua: what it does
    ├── driven.py        a server under load by a client in a process of its own
    ├── child.py         a subprocess, ended by its own handle
    ├── pairs.py         measuring in turns, medians, the machine
    └── report.py        rows, budgets, the Markdown table

What is compared is measured in turns within one run (A B A B ...), so that other work on the machine meets
all alike, and the ratio is the median of those of the turns.
"""
