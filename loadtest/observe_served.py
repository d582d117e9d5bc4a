"""A graph served with everything that observes it, or with nothing.

python -m loadtest.observe_served all|nothing APP [CONFIG]
"""

import sys
from pathlib import Path

import uvloop
from rich.console import Console

from asyncline.engine.hooks import Hooks
from asyncline.loader import load
from asyncline.observe.logs.logs import Logs
from asyncline.server import Server
from asyncline.settings import Settings, Source, from_environment, from_file, merge


def main() -> int:
    """Returns the exit code."""
    observed, app, *config = sys.argv[1:]
    graph = load(app)
    settings: Settings = merge(
        graph.name,
        {op.name: op.code_settings for op in graph.ops},
        *[from_file(Path(file)) for file in config],
        from_environment([op.name for op in graph.ops]),
        Source("benchmark", {"service": {"http_port": 0}, "dag": {"tracer": {"interval_s": 1}}}),
    )
    logs = Logs(settings.service, graph)
    logs.start()
    server = Server(graph, settings, Console(stderr=True), logs)
    if observed == "nothing":
        # What the product has no switch for: nobody subscribes, and nobody looks.
        server.engine.hooks = Hooks()
        server.observing.start = _do_nothing  # type: ignore[method-assign]
    try:
        return uvloop.run(server.run())
    finally:
        logs.close()


def _do_nothing() -> None: ...


if __name__ == "__main__":
    sys.exit(main())
