"""Report: the advice on every CPU hook of a graph, as a table and as settings to paste."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from asyncline.tools.advise.policy import Advice, Figures, combine, duration

NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """One hook. Without `figures`, `why` tells why there are none."""

    op: str
    hook: str
    now: str
    """Its lane today."""
    figures: Figures | None = None
    advice: Advice | None = None
    why: str = ""


@dataclass(frozen=True)
class Report:
    """The advice on one graph."""

    rows: tuple[Row, ...]
    cpu: dict[str, str]
    """The setting of every Op today."""
    cores: int

    def ops(self) -> dict[str, Advice]:
        """The advice on the `cpu` of every Op that has a sync CPU hook."""
        found: dict[str, Advice] = {}
        for name in self.cpu:
            hooks = {row.hook: row for row in self.rows if row.op == name and row.now != "loop"}
            judged = {
                hook: (row.figures, row.advice) for hook, row in hooks.items() if row.figures and row.advice
            }  # fmt: skip
            if hooks:
                known = len(judged) == len(hooks)
                found[name] = combine(judged) if known else Advice(None, "not all of its hooks were measured")
        return found

    def changes(self) -> dict[str, str]:
        """The `cpu` that suits an Op, where it is not today's."""
        return {
            name: advice.lane
            for name, advice in self.ops().items()
            if advice.lane is not None and advice.lane != self.cpu[name]
        }

    def settings(self) -> str:
        """`changes` as YAML; empty where there are none."""
        lines = [f"  {name}: {{cpu: {lane}}}" for name, lane in self.changes().items()]
        return "\n".join(["op:", *lines]) if lines else ""

    def __rich__(self) -> Group:
        return Group(self._table(), *(Text(line) for line in self._notes()))

    def _table(self) -> Table:
        table = Table(title="advice on CPU hooks", title_justify="left")
        table.add_column("op")
        table.add_column("hook")
        table.add_column("now")
        table.add_column("advised")
        table.add_column("per call", justify="right")
        table.add_column("2 threads", justify="right")
        table.add_column("KB in / out", justify="right")
        table.add_column("why")
        for row in self.rows:
            table.add_row(*map(escape, _cells(row)))
        return table

    def _notes(self) -> Iterator[str]:
        yield (
            f"Medians of one request's values on {self.cores} core{'s' if self.cores > 1 else ''}; "
            "2 threads: their work over that of one; KB: what would cross to the CPU pool and back."
        )
        for name, advice in self.ops().items():
            if advice.lane is not None and advice.why:
                yield f"{name}: {advice.why}"
        open_ = [name for name, advice in self.ops().items() if advice.lane is None]
        if open_:
            yield f"No advice on {', '.join(open_)}: not every hook could be judged."
        settings = self.settings()
        yield f"Settings that suit better:\n{settings}" if settings else "No setting to change."


def _cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    if figures is None:
        advised = "loop" if row.now == "loop" else NOTHING
        return row.op, row.hook, row.now, advised, NOTHING, NOTHING, NOTHING, row.why
    assert row.advice is not None
    speed_up = NOTHING if figures.speed_up is None else f"{figures.speed_up:.1f} x"
    crossing = f"{_kilobytes(figures.nbytes_in)} / {_kilobytes(figures.nbytes_out)}"
    return (
        row.op, row.hook, row.now, row.advice.lane or NOTHING, duration(figures.per_call_s), speed_up, crossing,
        row.advice.why,
    )  # fmt: skip


def _kilobytes(nbytes: int | None) -> str:
    if nbytes is None:
        return NOTHING
    return f"{nbytes / 1e3:.1f}" if nbytes < 99_950 else f"{nbytes / 1e3:,.0f}"
