"""The table, and the settings to paste."""

from __future__ import annotations

import io

import yaml
from rich.console import Console

from asyncline.settings import Source, merge
from asyncline.tools.advise.policy import Figures, judge
from asyncline.tools.advise.report import Report, Row

NATIVE = Figures(9e-3, speed_up=1.9, nbytes_in=159_000, nbytes_out=4_200_000)
PYTHON = Figures(5e-3, speed_up=1.0)
TRIVIAL = Figures(2e-6)


def row(op: str, hook: str, now: str, figures: Figures) -> Row:
    return Row(op, hook, now, figures, judge(figures))


def report_of(*rows: Row, **cpu: str) -> Report:
    return Report(rows, cpu, 2)


def printed(report: Report) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(report)
    return out.getvalue()


def test_settings_are_those_that_differ_from_todays() -> None:
    report = report_of(
        row("detect", "preprocess", "process", NATIVE),
        row("merge", "preprocess", "thread", PYTHON),
        row("answer", "preprocess", "inline", TRIVIAL),
        detect="process", merge="thread", answer="inline",
    )  # fmt: skip
    assert report.changes() == {"detect": "thread", "merge": "process"}
    assert report.settings() == "op:\n  detect: {cpu: thread}\n  merge: {cpu: process}"
    assert "No setting to change" not in printed(report)


def test_nothing_to_change_is_said() -> None:
    report = report_of(row("detect", "preprocess", "thread", NATIVE), detect="thread")
    assert report.settings() == ""
    assert "No setting to change." in printed(report)


def test_an_op_of_which_a_hook_was_not_measured_keeps_its_setting() -> None:
    report = report_of(
        row("detect", "preprocess", "process", NATIVE),
        Row("detect", "postprocess", "process", why="no sample"),
        detect="process",
    )
    assert report.changes() == {}
    assert "No advice on detect: not every hook could be judged." in printed(report)


def test_an_async_hook_has_no_say_in_the_setting() -> None:
    rows = (Row("fetch", "preprocess", "loop", why="async"), row("fetch", "postprocess", "process", NATIVE))
    assert report_of(*rows, fetch="process").changes() == {"fetch": "thread"}
    assert report_of(rows[0], fetch="process").ops() == {}


def test_how_two_hooks_came_to_one_setting_is_said() -> None:
    report = report_of(
        row("detect", "preprocess", "thread", PYTHON),
        row("detect", "postprocess", "thread", NATIVE),
        detect="thread",
    )
    assert "detect: one setting for both hooks: postprocess takes 9.00 ms of 14.0 ms" in printed(report)


def test_a_row_has_the_figures() -> None:
    line = next(
        line
        for line in printed(report_of(row("detect", "preprocess", "process", NATIVE), detect="process")).splitlines()
        if "│ detect" in line
    )
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[:7] == ["detect", "preprocess", "process", "thread", "9.00 ms", "1.9 x", "159 / 4,200"]


def test_what_a_hook_raised_is_no_markup() -> None:
    report = report_of(Row("detect", "preprocess", "process", why="raises KeyError: [/red]"), detect="process")
    assert "raises KeyError: [/red]" in printed(report)


def test_the_settings_can_be_pasted() -> None:
    report = report_of(row("detect", "preprocess", "process", NATIVE), detect="process")
    pasted = Source("pasted", yaml.safe_load(report.settings()))
    assert merge("ocr", {"detect": {}}, pasted).op["detect"].cpu == "thread"
