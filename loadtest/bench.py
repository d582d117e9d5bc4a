"""Run the benchmarks and print one Markdown table.

    python -m loadtest.bench [--only echo,submit,...] [--pairs 5] [--seconds 3] [--pages 16]

Exit code 1 when a budget is missed, a text differs or a server fails; a row that could not be measured says so.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from functools import partial

from loadtest import (
    batching,
    canary,
    echo,
    fetch,
    grpc,
    jpeg,
    leak,
    models,
    observe,
    ocr,
    oip,
    paddle,
    pool,
    submit,
    tagging,
    tcp,
    verdict,
)
from loadtest.pairs import machine
from loadtest.report import BenchmarkFailed, Report, Row, table

NAMES = (
    "echo",
    "observe",
    "verdict",
    "leak",
    "tcp",
    "grpc",
    "oip",
    "paddle",
    "canary",
    "submit",
    "pool",
    "jpeg",
    "fetch",
    "batching",
    "models",
    "tagging",
    "ocr",
)


def main() -> int:
    """Returns the exit code."""
    options = _options()
    # So that a stop from outside ends the servers too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    benchmarks: dict[str, Callable[[], Report]] = {
        "echo": partial(echo.measure, options.pairs, options.seconds),
        "observe": partial(observe.measure, options.pairs),
        "verdict": verdict.measure,
        "leak": leak.measure,
        "tcp": partial(tcp.measure, options.pairs, options.seconds),
        "paddle": partial(paddle.measure, options.pairs, options.seconds),
        "grpc": partial(grpc.measure, options.pairs, options.seconds),
        "oip": partial(oip.measure, options.pairs, options.seconds),
        "canary": partial(canary.measure, options.pairs, options.seconds),
        "submit": partial(submit.measure, options.pairs),
        "pool": partial(pool.measure, options.pairs),
        "jpeg": partial(jpeg.measure, options.pairs),
        "fetch": partial(fetch.measure, options.pairs),
        "batching": partial(batching.measure, options.pairs),
        "models": partial(models.measure, options.pairs),
        "tagging": partial(tagging.measure, options.pairs, options.seconds),
        "ocr": partial(ocr.measure, options.pairs, options.pages),
    }
    where = machine()
    whole, failed = Report(), False
    for name in options.only:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            report = benchmarks[name]()
        except* BenchmarkFailed as failures:
            failed = True
            report = Report([Row(name, not_measured="FAILED")], [f"**{name} FAILED**: {_first(failures)}"])
        whole.rows += report.rows
        whole.notes += report.notes
    print(f"{where}\n\n{table(whole.rows)}\n")
    for note in whole.notes:
        print(f"- {note}")
    return int(failed or any(row.holds is False for row in whole.rows))


def _first(failures: BaseExceptionGroup[BenchmarkFailed]) -> BaseException:
    """The first of what a group, perhaps of groups, holds."""
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", type=_names, default=NAMES, help=f"some of {','.join(NAMES)}")
    parser.add_argument("--pairs", type=_positive, default=5, help="pairs or rounds of each benchmark")
    parser.add_argument("--seconds", type=_positive, default=3, help="of one run of wrk, or of tagging")
    parser.add_argument("--pages", type=_positive, default=16, help="that each arrangement reads in a round of ocr")
    return parser.parse_args()


def _names(value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NAMES)}")
    return names


def _positive(value: str) -> int:
    if (number := int(value)) < 1:
        raise argparse.ArgumentTypeError("has to be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
