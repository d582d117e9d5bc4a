"""OCR: pages/s and latency of the served graph against the best loop of raw RapidOCR on the same two cores."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtest.ocr_raw import RawOcr
from loadtest.ocr_served import CLIENTS, ServedOcr
from loadtest.pages import page
from loadtest.pairs import Spread, interleave
from loadtest.report import BenchmarkFailed, Budget, Report, Row

PAGES, LINES = 8, 30
CORES = 2

Reader = ServedOcr | RawOcr


@dataclass(frozen=True)
class Speed:
    """What one arrangement did in one round."""

    pages_per_s: float
    cpu_s: float
    """CPU time of its processes for one page."""


class Contest:
    """Arrangements that read the same pages, and the texts that all of them have to find."""

    def __init__(self, reference: RawOcr, pages: int) -> None:
        self._texts = reference.read(range(pages))
        self._reference = reference.name

    def speed(self, reader: Reader, pages: Sequence[int]) -> Speed:
        """How fast `reader` reads pages by number.

        :raises BenchmarkFailed: it read something else than RapidOCR.
        """
        cpu_s, started_at = reader.cpu_s(), time.perf_counter()
        texts = reader.read(pages)
        elapsed_s, cpu_s = time.perf_counter() - started_at, reader.cpu_s() - cpu_s
        for number, found in zip(pages, texts, strict=True):
            self._check(reader, number, found)
        return Speed(len(pages) / elapsed_s, cpu_s / len(pages))

    def _check(self, reader: Reader, number: int, found: list[str]) -> None:
        expected = self._texts[number]
        if found == expected:
            return
        differing = [f"{a!r} for {b!r}" for a, b in zip(found, expected, strict=False) if a != b]
        raise BenchmarkFailed(
            f"TEXT DIFFERS: {reader.name} reads page {number} otherwise than {self._reference}: "
            f"{len(found)} lines for {len(expected)}; {'; '.join(differing[:3]) or 'those of both are equal'}"
        )


def measure(rounds: int, pages_per_round: int) -> Report:
    """`rounds` rounds in which each arrangement reads `pages_per_round` pages."""
    report = Report()
    count = min(PAGES, pages_per_round)
    pages = [number % count for number in range(pages_per_round)]
    with _cores(CORES), TemporaryDirectory() as folder:
        files = write_pages(Path(folder), count)
        with ServedOcr(files) as served:
            with RawOcr(1, 2, files) as one, RawOcr(2, 1, files) as two:
                contest = Contest(one, count)
                _add_pages(report, contest, served, (one, two), rounds, pages)
                _add_latency(report, contest, served, one, rounds * count, count)
            # After the others have ended: with its arena each process holds 1 GB, without it half of that.
            with RawOcr(1, 2, files, arena=True) as one, RawOcr(2, 1, files, arena=True) as two:
                _add_pages(report, contest, served, (one, two), rounds, pages)
    report.notes.append(
        f"OCR: {rounds} rounds of {pages_per_round} pages ({count} different ones of {LINES} lines, half of them as "
        f"photographed) on {CORES} cores; the ratio is to the better baseline of each round. Texts are equal."
    )
    return report


def write_pages(folder: Path, count: int) -> list[Path]:
    """Different pages, every second one as photographed."""
    files = [folder / f"{number}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(page(LINES, number, photo=number % 2 == 1))
    return files


def _add_pages(
    report: Report,
    contest: Contest,
    served: ServedOcr,
    raw: tuple[RawOcr, RawOcr],
    rounds: int,
    pages: list[int],
) -> None:
    """The row of pages/s. The budget is against RapidOCR as it comes, without arena."""
    one, two = raw
    turns = interleave(
        rounds,
        lambda: contest.speed(served, pages),
        lambda: contest.speed(one, pages),
        lambda: contest.speed(two, pages),
    )
    speeds = [Spread.of(turn[place].pages_per_s for turn in turns) for place in range(3)]
    for place, reader in enumerate((served.name, one.name, two.name)):
        cpu_s = Spread.of(turn[place].cpu_s for turn in turns)
        report.notes.append(f"{reader}: {speeds[place]} pages/s, {cpu_s} s of CPU a page.")
    ours, *baselines = speeds
    best, theirs = max(zip(raw, baselines, strict=True), key=lambda baseline: baseline[1].median)
    ratio = Spread.of(a.pages_per_s / max(b.pages_per_s, c.pages_per_s) for a, b, c in turns)
    budget = None if best.arena else Budget("≥", 1.15)
    report.rows.append(Row(f"OCR, {CLIENTS} clients; {best.name}", "pages/s", ours, theirs, ratio, budget))


def _add_latency(report: Report, contest: Contest, served: ServedOcr, raw: RawOcr, pairs: int, count: int) -> None:
    """The row of one page at a time."""
    ours, theirs = cycle(range(count)), cycle(range(count))
    turns = interleave(
        pairs,
        lambda: 1e3 / contest.speed(served, [next(ours)]).pages_per_s,
        lambda: 1e3 / contest.speed(raw, [next(theirs)]).pages_per_s,
    )
    report.rows.append(
        Row(
            f"OCR, one client; {raw.name}",
            "ms",
            Spread.of(a for a, _ in turns),
            Spread.of(b for _, b in turns),
            Spread.of(a / b for a, b in turns),
            Budget("≤", 1.1),
        )
    )


@contextmanager
def _cores(count: int) -> Iterator[None]:
    """Keep this process, and what it starts, to `count` cores."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)
