"""The command line. Options of `serve` and `check` are made from `ServiceSettings`; nothing is declared twice."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from asyncline.errors import AsynclineError, GraphError, SettingsError
from asyncline.exits import Exit
from asyncline.graph.graph import Graph
from asyncline.graph.op import HOOKS
from asyncline.graph.plan import Node, Plan, plan
from asyncline.loader import load
from asyncline.settings import ServiceSettings, Settings, Source, from_assignments, from_environment, from_file, merge
from asyncline.tuning import set_library_threads, tune_malloc

app = typer.Typer(
    name="asyncline",
    help="Serve pipelines of models from one asyncio process.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)

App = Annotated[str, typer.Argument(metavar="APP", help="the graph, as module:attr from the working directory")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file of settings")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="K=V", help="op.detect.batch_size=8; repeatable")
]


def _service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` an option for every service setting; it gets those that were given as `service`."""

    def with_options(**values: Any) -> Any:
        given = {key: values.pop(key) for key in ServiceSettings.model_fields}
        service = {key: None if value == "null" else value for key, value in given.items() if value is not None}
        return command(**values, service=service)

    own = inspect.signature(command, eval_str=True)
    parameters = [parameter for name, parameter in own.parameters.items() if name != "service"]
    for key, field in ServiceSettings.model_fields.items():
        default = "" if field.default is None else f" (default {field.default})"
        kind = bool if field.annotation is bool else str
        option = typer.Option(
            f"--{key.replace('_', '-')}",
            help=f"{field.description}{default}",
            rich_help_panel="Service",
            metavar=None if kind is bool else "VALUE",
        )
        parameters.append(
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
            )
        )
    with_options.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    return with_options


def _settings(graph: Graph, config: Path | None, assignments: list[str] | None, service: dict[str, Any]) -> Settings:
    sources = [from_file(config)] if config is not None else []
    sources += [
        from_environment(op.name for op in graph.ops),
        from_assignments(assignments or []),
        Source("command line", {"service": service}),
    ]
    return merge(graph.name, {op.name: op.code_settings for op in graph.ops}, *sources)


def _library_threads(config: Path | None, assignments: list[str]) -> int:
    """Threads for native libraries: the most that the settings give any Op, or all cores where they give none.

    The app is not loaded yet, so what its code says is not known.
    """
    sources = [from_file(config)] if config is not None else []
    sources.append(from_assignments(text for text in assignments if text.startswith("op.")))
    ops = [op for source in sources for op in (source.values.get("op") or {}).values() if isinstance(op, dict)]
    given = [op["threads"] for op in ops if isinstance(op.get("threads"), int)]
    return max(given, default=len(os.sched_getaffinity(0)))


def _service_settings(config: Path | None, assignments: list[str], service: dict[str, Any]) -> ServiceSettings:
    """The service's settings alone, for a process that does not load the graph."""
    written = from_file(config).values.get("service") if config is not None else None
    variables = {f"ASYNCLINE_{key.upper()}" for key in ServiceSettings.model_fields}
    return merge(
        "",
        {},
        Source(str(config), {"service": written or {}}),
        from_environment([], {name: value for name, value in os.environ.items() if name in variables}),
        from_assignments(text for text in assignments if text.startswith("service.")),
        Source("command line", {"service": service}),
    ).service


def _version(wanted: bool) -> None:
    if wanted:
        from asyncline import __version__

        print(f"asyncline {__version__}")  # noqa: T201  # the answer to --version
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None: ...


@app.command()
@_service_options
def serve(
    target: App,
    config: Config = None,
    assignments: Assignments = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info",
    memwatch: Annotated[bool, typer.Option("--memwatch", help="the same as --set dag.leak_watch=true")] = False,
    reload: Annotated[bool, typer.Option("--reload", help="start again when a Python or YAML file changes")] = False,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="a parent holds the sockets and starts a server that failed again")
    ] = False,
    *,
    service: dict[str, Any],
) -> None:
    """Serve a graph until SIGTERM or Ctrl-C."""
    if memwatch:
        assignments = [*(assignments or []), "dag.leak_watch=true"]
    if log_level.lower() not in ("debug", "info", "warning", "error"):
        raise SettingsError(f"--log-level {log_level!r}: use debug, info, warning or error")
    if reload and supervise:
        raise SettingsError("--reload is for development, --supervise for production: give one")
    if reload:
        from asyncline.tools.reload import run_reloading

        raise typer.Exit(run_reloading([argument for argument in sys.argv[1:] if argument != "--reload"], console))
    if supervise:
        from asyncline.tools.supervise import run_supervised

        arguments = [argument for argument in sys.argv[1:] if argument != "--supervise"]
        settings = _service_settings(config, assignments or [], service)
        raise typer.Exit(run_supervised(arguments, settings, console))
    # Before anything heavy is imported.
    set_library_threads(_library_threads(config, assignments or []))
    tune_malloc()
    from asyncline.observe.log import to_console
    from asyncline.server import serve as run

    to_console(log_level)
    graph = load(target)
    raise typer.Exit(run(graph, _settings(graph, config, assignments, service), console))


@app.command()
@_service_options
def check(
    target: App,
    config: Config = None,
    assignments: Assignments = None,
    advise: Annotated[
        bool,
        typer.Option("--advise", help="load the models, call every CPU hook again and again, say which lane suits it"),
    ] = False,
    sample: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="a request for --advise; default: what Op.example returns")
    ] = None,
    *,
    service: dict[str, Any],
) -> None:
    """Validate a graph and its settings, and print the plan without serving."""
    if sample is not None and not advise:
        raise SettingsError("--sample is a request for --advise: give both")
    graph = load(target)
    laid_out = plan(graph, _settings(graph, config, assignments, service))
    if not advise:
        _check_pool(laid_out)
    out = Console()
    out.print(_plan_table(laid_out))
    outputs = ", ".join(value._label() for value in graph.response.outputs.values())
    out.print(f"answers with {outputs}")
    out.print(f"at most {laid_out.max_in_flight} requests in flight, {laid_out.settings.service.timeout_ms} ms each")
    if advise:
        _advise(laid_out, sample, out)
        _check_pool(laid_out)  # last: what cures it is in the advice


def _check_pool(laid_out: Plan) -> None:
    """:raises LoadError: an Op of the process lane cannot be made in a worker, as the start of a server would say."""
    from asyncline.engine.lanes.recipe import make_recipe

    for node in laid_out.nodes:
        if "process" in node.lanes.values():
            make_recipe(node)


def _advise(laid_out: Plan, sample: str | None, out: Console) -> None:
    from asyncline.tools.advise.advise import advise
    from asyncline.tools.advise.payload import read_values

    values = None if sample is None else read_values(sample, laid_out.graph.request)
    with console.status("") as status:
        report = advise(laid_out, values, status.update)
    out.print()
    out.print(report)


leak = typer.Typer(help="Find out whether a graph keeps more and more memory.", no_args_is_help=True)
app.add_typer(leak, name="leak")


@leak.callback()
def _leak() -> None: ...


@leak.command("check")
def leak_check(
    target: App,
    config: Config = None,
    assignments: Assignments = None,
    requests: Annotated[int, typer.Option(min=100, help="how many to send")] = 20_000,
    input: Annotated[
        str | None, typer.Option("--input", metavar="FILE|JSON", help="a request; default: what Op.example returns")
    ] = None,
    max_slope: Annotated[float, typer.Option(min=0, help="bytes a request that memory may grow by")] = 64,
) -> None:
    """Run a graph in this process, and fail if memory, tasks or descriptors grow with the requests: a gate for CI.

    Exit codes: 0 no leak, 1 a leak, 2 inconclusive, 3 requests failed.
    """
    set_library_threads(_library_threads(config, assignments or []))
    tune_malloc()
    from asyncline.tools.leak import check as run

    graph = load(target)
    laid_out = plan(graph, _settings(graph, config, assignments, {}))
    with console.status("") as status:
        report = run(laid_out, requests, input, max_slope, status.update)
    print(report.text)  # noqa: T201  # the answer
    raise typer.Exit(report.verdict)


@app.command()
def call(
    url: Annotated[str, typer.Argument(metavar="URL", help="http://host:8000, grpc://host:8001 or tcp://host:8002")],
    graph: Annotated[str, typer.Argument(metavar="GRAPH", help="the graph's name")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD...",
            help="field=text, field:=json, field=@file; or a whole payload: @file, - for standard input, :=json, =text",
        ),
    ] = None,
    timeout_ms: Annotated[float | None, typer.Option(help="deadline in milliseconds; default: the server's")] = None,
    log_id: Annotated[str, typer.Option(help="what the server's log calls the request")] = "",
    priority: Annotated[int, typer.Option(help="1 is the highest")] = 1,
    token: Annotated[str | None, typer.Option(envvar="ASYNCLINE_AUTH_TOKEN", help="bearer token")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="print the parts of the answer as they come")] = False,
    output: Annotated[
        str, typer.Option(help="json: indented, long arrays summed up; raw: bytes, texts and arrays (.npy) as they are")
    ] = "json",
    file: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="write the bytes or the array (.npy) of the answer there")
    ] = None,
) -> None:
    """Send one request to a server, and print its answer.

    Exit codes: 1 the business refused it, 65 the request was wrong, 69 not available, 70 the server failed,
    75 overloaded, 76 no answer of a server of ours, 77 token, 124 deadline.
    """
    if output not in ("json", "raw"):
        raise SettingsError(f"--output {output!r}: use json or raw")
    from asyncline.tools.call.arguments import read_payload
    from asyncline.tools.call.call import call as run

    def say(text: str) -> None:
        console.print(f"[red]error:[/] {_escape(text)}", highlight=False, soft_wrap=True)

    raise typer.Exit(
        run(
            url,
            graph,
            read_payload(words or []),
            output="raw" if output == "raw" else "json",
            file=file,
            stream=stream,
            say=say,
            timeout=None if timeout_ms is None else timeout_ms / 1e3,
            log_id=log_id,
            priority=priority,
            token=token,
        )
    )


@app.command()
def trace(
    target: Annotated[str, typer.Argument(metavar="URL|summary", help="http://host:8000; or summary, of a file")],
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="the file of trace summary")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="how long to record")] = 5.0,
    output: Annotated[Path, typer.Option("-o", metavar="FILE", help="where to write it")] = Path("trace.json"),
    token: Annotated[str | None, typer.Option(envvar="ASYNCLINE_AUTH_TOKEN", help="bearer token")] = None,
) -> None:
    """Record what a live server does as a timeline for ui.perfetto.dev, or sum up such a file.

    asyncline trace http://localhost:8000 --seconds 5 -o t.json; asyncline trace summary t.json
    """
    from asyncline.tools.trace import record, summarise

    if (target == "summary") is (file is None):
        raise SettingsError("give a server's URL, or `summary` and a file")
    lines = record(target, seconds, output, token) if file is None else summarise(file)
    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def top(
    url: Annotated[str, typer.Argument(metavar="URL", help="http://host:8000")],
    token: Annotated[str | None, typer.Option(envvar="ASYNCLINE_AUTH_TOKEN", help="bearer token")] = None,
    interval: Annotated[float, typer.Option(min=1, help="seconds between two pictures")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="print one picture, for scripts")] = False,
) -> None:
    """Show what a live server does: verdict, totals and a row for each Op, of the last 10 s."""
    from asyncline.tools.top import top as run

    raise typer.Exit(run(url, token=token, interval_s=interval, once=once, console=Console()))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the new folder; its last part names the graph")],
) -> None:
    """Write a small, working, commented app with its test into a new folder."""
    from asyncline.tools.new import write_app

    folder = write_app(Path(name))
    Console().print(
        f"wrote {folder}/\n\n    cd {folder}\n    asyncline serve app:graph --config config.yml\n    python -m pytest",
        highlight=False, markup=False,
    )  # fmt: skip


def _plan_table(laid_out: Plan) -> Table:
    table = Table(title=f"graph {laid_out.graph.name}", title_justify="left")
    for column in ("op", "inputs", *HOOKS, "limits"):
        table.add_column(column)
    for node in laid_out.nodes:
        inputs = ", ".join(value._label() for value in node.op.inputs)
        table.add_row(node.name, inputs, *(_hook_cell(laid_out, node, hook) for hook in HOOKS), _limits_cell(node))
    return table


def _hook_cell(laid_out: Plan, node: Node, hook: str) -> str:
    """Where a hook runs: `thread`, `thread, with decode preprocess`, or `2 x cpu, batches of 8`."""
    if hook not in node.lanes:
        return "-"
    if hook != "process":
        return node.lanes[hook] + _with(laid_out, node, hook)
    settings = node.settings
    where = settings.device if node.lanes[hook] == "device" else "loop"
    batch = f", batches of {settings.batch_size}" if settings.batch_size > 1 else ""
    delay = f" within {settings.max_delay_ms:g} ms" if settings.max_delay_ms else ""
    return f"{settings.replicas} x {where}{batch}{delay}"


def _with(laid_out: Plan, node: Node, hook: str) -> str:
    """In whose task a hook runs, where it is fused."""
    fused = laid_out.fused.get((node.index, hook))
    if fused is None:
        return ""
    index, first = fused
    return f", with {first}" if index == node.index else f", with {laid_out.nodes[index].name} {first}"


def _limits_cell(node: Node) -> str:
    settings = node.settings
    limits = [f"timeout {settings.timeout_ms} ms"] if settings.timeout_ms else []
    limits += [f"retry {settings.retry}"] if settings.retry else []
    limits += [f"concurrency {settings.concurrency}"] if settings.concurrency and "process" not in node.lanes else []
    return ", ".join([*limits, f"channel {node.channel_size}"])


def main() -> None:
    """Run the command line; an error of ours is one line and an exit code."""
    try:
        app()
    except AsynclineError as error:
        console.print(f"[red]error:[/] {_escape(error)}", highlight=False, soft_wrap=True)
        sys.exit(Exit.CONFIG if isinstance(error, (SettingsError, GraphError)) else Exit.LOAD)


def _escape(text: object) -> str:
    from rich.markup import escape

    return escape(str(text))
