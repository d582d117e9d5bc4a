"""The Open Inference Protocol over HTTP: a tensor of 1 MB in binary against the same in JSON."""

import json
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

import numpy as np

from loadtest.child import Child
from loadtest.echo import load
from loadtest.pairs import interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

FLOATS = 250_000
CONNECTIONS = 4
WHAT = f"OIP REST, an FP32 tensor of 1 MB each way in binary, {CONNECTIONS} connections; baseline: the same in JSON"
BUDGET = Budget("≥", 5.0)
SCRIPT = Path(__file__).with_name("oip.lua")
HEADER = "Inference-Header-Content-Length"


def measure(pairs: int, seconds: int) -> Report:
    """`pairs` turns of runs of `seconds` each."""
    if shutil.which("wrk") is None:
        return Report([Row(WHAT, budget=BUDGET, not_measured="not measured: apt-get install wrk")])
    with (
        TemporaryDirectory() as folder,
        Child("asyncline", "serve", "loadtest.grpc_graph:graph", "--http-port", "0") as child,
    ):
        url = f"{child.address()}/v2/models/echo/infer"
        runs = []
        for name, (body, header_nbytes) in bodies().items():
            check(url, body, header_nbytes)
            file = Path(folder, name)
            file.write_bytes(body)
            arguments = (str(file), *([str(header_nbytes)] if header_nbytes else []))
            runs.append(partial(load, child, url, script=SCRIPT, connections=CONNECTIONS, arguments=arguments))
        for run in runs:
            run(1)
        turns = interleave(pairs, *(partial(run, seconds) for run in runs))
    return Report(
        [
            Row.compared(WHAT, "requests/s", "requests_per_s", turns, BUDGET),
            Row.compared("the same, CPU per request", "µs", "cpu_us", turns),
        ],
        [f"OIP: {pairs} pairs of {seconds} s, wrk with one thread and {SCRIPT.name}; random numbers."],
    )


def tensor() -> np.ndarray:
    """float32, [FLOATS]."""
    return np.random.default_rng(1).random(FLOATS, dtype=np.float32)


def bodies() -> dict[str, tuple[bytes, int]]:
    """Requests with the same tensor in both forms, and the bytes of the JSON in front of binary ones."""
    array = tensor()
    described = {"name": "x", "shape": [FLOATS], "datatype": "FP32"}
    text = json.dumps({"inputs": [{**described, "data": array.tolist()}]}).encode()
    head = {**described, "parameters": {"binary_data_size": array.nbytes}}
    header = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    return {"binary": (header + array.tobytes(), len(header)), "json": (text, 0)}


def check(url: str, body: bytes, header_nbytes: int) -> None:
    """:raises BenchmarkFailed: it is no echo."""
    try:
        with urlopen(Request(url, body, {HEADER: str(header_nbytes)} if header_nbytes else {}), timeout=20) as answer:
            found, end = answer.read(), int(answer.headers.get(HEADER, 0))
    except OSError as error:
        raise BenchmarkFailed(f"{url}: {error}") from error
    if end:
        array = np.frombuffer(found[end:], "<f4")
    else:
        array = np.array(json.loads(found)["outputs"][0]["data"], np.float32)
    if bool(end) != bool(header_nbytes) or not np.array_equal(array, tensor()):
        raise BenchmarkFailed(f"{url} is no echo")
