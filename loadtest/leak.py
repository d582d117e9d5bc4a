"""`asyncline leak check`: within how many requests a planted leak is reported, and whether clean ones are."""

import subprocess
import sys

from loadtest.child import ROOT
from loadtest.pairs import Spread
from loadtest.report import BenchmarkFailed, Budget, Report, Row

PLANTS = {"keeps_objects": "Python objects", "keeps_native": "native memory", "keeps_descriptors": "descriptors",
          "keeps_tasks": "tasks"}  # fmt: skip
CLEAN = ("objects", "native", "descriptors", "tasks", "fills_cache")
TRIED = (1250, 2500, 5000, 10_000, 20_000)
MOST = 20_000
CLEAN_REQUESTS = 200_000
MOST_S = 600.0


def check(graph: str, requests: int) -> tuple[int, str]:
    """The exit code of a check, and what it says."""
    app = f"loadtest.leak_graph:{graph}"
    command = [sys.executable, "-m", "asyncline", "leak", "check", app, "--requests", str(requests)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkFailed(f"{' '.join(command)}: {error}") from error
    if done.returncode not in (0, 1, 2):
        raise BenchmarkFailed(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.returncode, done.stdout.strip()


def measure() -> Report:
    """Each plant in ever more requests until it is reported, then each clean graph once in CLEAN_REQUESTS."""
    rows, notes = [], []
    for graph, kind in PLANTS.items():
        found = next((count for count in TRIED if _is_reported(graph, kind, count)), 2 * MOST)
        what = f"requests within which a planted leak is reported: {kind}"
        rows.append(Row(what, "requests", Spread.of([found]), budget=Budget("≤", MOST)))
    reported = 0
    for graph in CLEAN:
        code, said = check(graph, CLEAN_REQUESTS)
        reported += code != 0
        if code:
            notes.append(f"leak: {graph}, which is clean: {said}")
    what = f"leaks reported of {len(CLEAN)} clean graphs in {CLEAN_REQUESTS:,} requests each"
    rows.append(Row(what, ours=Spread.of([reported]), budget=Budget("≤", 0)))
    notes.insert(0, "leak: objects and native memory of 1 kB a request, tasks and descriptors of each hundredth.")
    return Report(rows, notes)


def _is_reported(graph: str, kind: str, requests: int) -> bool:
    code, said = check(graph, requests)
    return code == 1 and kind in said
