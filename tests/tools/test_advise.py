"""One request through the graph: what every CPU hook got, and what is said where one cannot be measured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from asyncline import Each, Graph, Json, LoadError, Op, Reply, Request, Skip, op
from asyncline.graph.plan import Plan, plan
from asyncline.graph.request import Input
from asyncline.settings import Source, merge
from asyncline.tools.advise import advise as module
from asyncline.tools.advise import stand_in
from asyncline.tools.advise.advise import NO_SAMPLE, advise
from asyncline.tools.advise.policy import Figures
from asyncline.tools.advise.report import Report
from asyncline.tools.advise.tap import Tap
from asyncline.tools.advise.threads import Unmeasured

Got = dict[str, tuple[Any, ...]]


@pytest.fixture
def got(monkeypatch: pytest.MonkeyPatch) -> Got:
    """The arguments that each hook would be measured with; none is."""
    found: Got = {}

    def measure(tap: Tap, barred: str = "") -> Figures:
        assert tap.arguments is not None
        found[f"{tap.op} {tap.hook}"] = tap.arguments.fresh()
        return Figures(1.0, speed_up=1.0, barred=barred)

    monkeypatch.setattr(module, "measure", measure)
    return found


def plan_of(graph: Graph, **op_settings: dict[str, Any]) -> Plan:
    return plan(
        graph, merge(graph.name, {op.name: op.code_settings for op in graph.ops}, Source("test", {"op": op_settings}))
    )


def advice_on(graph: Graph, **values: Any) -> Report:
    """Advice by a request of these fields, or by examples."""
    given: dict[Input, Any] = {getattr(graph.request, name): value for name, value in values.items()}
    return advise(plan_of(graph), given or None)


def reasons(report: Report) -> dict[str, str]:
    return {f"{row.op} {row.hook}": row.why for row in report.rows if row.figures is None}


class Count(Op):
    """Counts the letters of words; all three hooks, and a model."""

    def init_op(self) -> None:
        self.unit = 1

    def load_model(self, device: str) -> int:
        return 10

    def preprocess(self, words: list[str]) -> Each:
        return Each(len(word) * self.unit for word in words)

    def process(self, batch: list[int]) -> list[int]:
        return [self.model * count for count in batch]

    def postprocess(self, counts: list[int], words: list[str]) -> dict[str, int]:
        return dict(zip(words, counts, strict=True))


class Model(Op):
    def process(self, batch: list[Any]) -> list[Any]:
        return batch


@op(cpu="thread")
def total(counts: dict[str, int]) -> int:
    return sum(counts.values())


@op(cpu="inline")
def pair(left: Any, right: Any) -> tuple[Any, Any]:
    return left, right


@op(cpu="thread")
def clear(words: list[str]) -> int:
    count = len(words)
    words.clear()
    return count


@op(cpu="thread")
async def load(words: list[str]) -> list[str]:
    return [*words, "loaded"]


@op(cpu="thread")
def fail(value: Any) -> Any:
    raise ValueError("no words")


@op(cpu="thread")
async def fail_async(value: Any) -> Any:
    raise ValueError("no words")


@op(cpu="inline")
def leave(value: Any) -> Any:
    raise SystemExit(3)


@op(cpu="thread")
def reply(value: Any) -> Any:
    return Reply("early")


@op(cpu="thread")
def skip(value: Any) -> Any:
    return Skip(value)


def words_graph(make: Callable[[Input], Op]) -> Graph:
    return Graph("words", make(Request(words=Json()).words))


# -- what hooks get


def test_hooks_get_what_they_would_in_the_server(got: Got) -> None:
    report = advice_on(words_graph(lambda words: total(Count(words))), words=["a", "bcd"])
    assert got == {
        "count preprocess": (["a", "bcd"],),
        "count postprocess": ([10, 30], ["a", "bcd"]),
        "total preprocess": ({"a": 10, "bcd": 30},),
    }
    assert [(row.op, row.hook, row.now) for row in report.rows] == [
        ("count", "preprocess", "process"),
        ("count", "postprocess", "process"),
        ("total", "preprocess", "thread"),
    ]


def test_a_whole_payload_is_what_a_bare_request_gives(got: Got) -> None:
    request = Request()
    advise(plan_of(Graph("words", clear(request))), {request: ["a"]})
    assert got == {"clear preprocess": (["a"],)}


def test_arguments_are_kept_from_before_the_hook_changed_them(got: Got) -> None:
    advice_on(words_graph(clear), words=["a", "b"])
    assert got == {"clear preprocess": (["a", "b"],)}


def test_an_async_hook_runs_and_is_of_the_loop(got: Got) -> None:
    report = advice_on(words_graph(lambda words: clear(load(words))), words=["a"])
    assert got == {"clear preprocess": (["a", "loaded"],)}
    assert reasons(report) == {"load preprocess": "async: it runs on the loop"}
    assert [row.now for row in report.rows] == ["loop", "thread"]


def test_an_op_without_preprocess_gets_its_inputs_value(got: Got) -> None:
    advice_on(words_graph(lambda words: clear(Model(words))), words=["a"])
    assert got == {"clear preprocess": (["a"],)}


def test_the_graph_itself_is_left_alone(got: Got) -> None:
    graph = words_graph(lambda words: total(Count(words)))
    advice_on(graph, words=["a"])
    assert [vars(op).get("preprocess") for op in graph.ops] == [None, None]
    assert [op.settings.cpu for op in graph.ops] == ["process", "thread"]


def test_limits_of_the_ops_do_not_end_the_sample(got: Got) -> None:
    graph = words_graph(clear)
    limited = plan_of(graph, clear={"timeout_ms": 1, "concurrency": 1})
    advise(limited, {graph.request.words: ["a"]})
    assert list(got) == ["clear preprocess"]


# -- what cannot be measured


@pytest.mark.parametrize(
    ("made", "why"),
    [(fail, "raises ValueError: no words"), (leave, "raises SystemExit: 3")],
)
def test_a_hook_that_raises_ends_only_what_depends_on_it(made: type[Op], why: str, got: Got) -> None:
    words = Request(words=Json()).words
    failing = made(words)
    report = advice_on(Graph("words", bad=clear(failing, name="after"), good=clear(words)), words=["a"])
    assert list(got) == ["clear preprocess"]
    name = failing.name
    assert reasons(report) == {f"{name} preprocess": why, "after preprocess": f"no sample: {name} preprocess {why}"}


def test_an_async_hook_that_raises_too(got: Got) -> None:
    words = Request(words=Json()).words
    report = advice_on(Graph("words", bad=pair(fail_async(words), words), good=clear(words)), words=["a"])
    assert list(got) == ["clear preprocess"]
    assert reasons(report)["pair preprocess"] == "no sample: fail_async preprocess raises ValueError: no words"


def test_a_failed_value_goes_past_process_and_postprocess(got: Got) -> None:
    report = advice_on(words_graph(lambda words: total(Count(Model(fail(words))))), words=["a"])
    assert got == {}
    assert set(reasons(report).values()) == {
        "raises ValueError: no words",
        "no sample: fail preprocess raises ValueError: no words",
    }


def test_a_reply_ends_only_what_depends_on_it(got: Got) -> None:
    words = Request(words=Json()).words
    report = advice_on(Graph("words", bad=clear(reply(words), name="after"), good=clear(words)), words=["a"])
    assert set(got) == {"reply preprocess", "clear preprocess"}
    assert reasons(report) == {"after preprocess": "no sample: reply preprocess answers the request with a Reply"}


def test_a_skip_is_what_it_is_in_the_server(got: Got) -> None:
    advice_on(words_graph(lambda words: clear(skip(words))), words=["a"])
    assert got["clear preprocess"] == (["a"],)


def test_a_process_that_raises_ends_the_request(got: Got) -> None:
    class Broken(Count):
        def process(self, batch: list[int]) -> list[int]:
            raise ValueError("no weights")

    report = advice_on(words_graph(Broken), words=["a"])
    why = "no sample: the request ended before: op 'broken' process: ValueError: no weights"
    assert reasons(report) == {"broken postprocess": why}


def test_a_reply_of_process_ends_the_request(got: Got) -> None:
    class Early(Count):
        def process(self, batch: list[int]) -> list[Any]:
            return [Reply("early") for _ in batch]

    report = advice_on(words_graph(Early), words=["a"])
    assert list(got) == ["early preprocess"]
    assert reasons(report) == {"early postprocess": "no sample: the request did not come here"}


def test_a_hook_that_does_not_return_is_told(got: Got, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "RUN_MS", 50)
    release = threading.Event()
    report = advice_on(words_graph(op(cpu="thread")(lambda words: release.wait())), words=["a"])
    release.set()
    assert reasons(report)["lambda preprocess"].startswith("did not return within ")


def test_a_hook_that_fails_when_it_is_measured_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(tap: Tap, barred: str = "") -> Figures:
        raise Unmeasured("raises StopIteration")

    monkeypatch.setattr(module, "measure", measure)
    assert reasons(advice_on(words_graph(clear), words=["a"])) == {"clear preprocess": "raises StopIteration"}


def test_an_op_that_workers_cannot_make_says_why(got: Got) -> None:
    class Local(Op):
        def preprocess(self, words: list[str]) -> list[str]:
            return words

    (row,) = advice_on(words_graph(Local), words=["a"]).rows
    assert row.figures is not None and row.advice is not None
    assert row.figures.barred.startswith("its hooks run in the CPU pool, which cannot import")
    assert row.advice.lane == "thread"


def test_a_model_that_cannot_be_loaded_is_fatal(got: Got) -> None:
    class NoModel(Count):
        def load_model(self, device: str) -> int:
            raise FileNotFoundError("weights.onnx")

    with pytest.raises(LoadError, match=r"op 'no_model' load_model: FileNotFoundError: weights\.onnx"):
        advice_on(words_graph(NoModel), words=["a"])


def test_an_op_that_exits_at_its_start_is_fatal(got: Got) -> None:
    class Leaving(Count):
        def init_op(self) -> None:
            raise SystemExit("no licence")

    with pytest.raises(LoadError, match="the app ends its process instead of getting ready: SystemExit: no licence"):
        advice_on(words_graph(Leaving), words=["a"])


# -- examples


class Counted(Count):
    def example(self) -> list[str]:
        return ["ab"] * self.unit


class Paired(Op):
    def __init__(self, *inputs: Input, example: Any, **settings: Any) -> None:
        super().__init__(*inputs, **settings)
        self._example = example

    def example(self) -> Any:
        if isinstance(self._example, Exception):
            raise self._example
        return self._example

    def preprocess(self, left: Any, right: Any) -> Any:
        return left


def test_an_example_is_asked_for_after_init_op_and_runs_on(got: Got) -> None:
    advice_on(words_graph(lambda words: total(Counted(words))))
    assert got == {
        "counted preprocess": (["ab"],),
        "counted postprocess": ([20], ["ab"]),
        "total preprocess": ({"ab": 20},),
    }


def test_an_example_serves_where_no_value_comes(got: Got) -> None:
    report = advice_on(words_graph(lambda words: total(Counted(clear(words)))))
    assert list(got) == ["counted preprocess", "counted postprocess", "total preprocess"]
    assert reasons(report) == {"clear preprocess": NO_SAMPLE}


def test_an_example_of_several_inputs_is_a_tuple(got: Got) -> None:
    words = Request(words=Json()).words
    advice_on(Graph("words", Paired(words, words, example=(1, (2, 3)))))
    assert got == {"paired preprocess": (1, (2, 3))}


@pytest.mark.parametrize(
    ("example", "why"),
    [
        ((1, 2, 3), "returns 3 values, expected a tuple of 2 values"),
        ([1, 2], "returns list, expected a tuple of 2 values"),
        (ValueError("no file"), "raises ValueError: no file"),
    ],
)
def test_an_example_that_is_none_is_told(example: Any, why: str, got: Got) -> None:
    words = Request(words=Json()).words
    report = advice_on(Graph("words", bad=Paired(words, words, example=example), good=Counted(words)))
    assert list(got) == ["counted preprocess", "counted postprocess"]
    assert reasons(report) == {"paired preprocess": f"no sample: its example {why}"}


def test_a_request_is_preferred_to_examples(got: Got) -> None:
    advice_on(words_graph(Counted), words=["request"])
    assert got["counted preprocess"] == (["request"],)


def test_without_any_value_nothing_is_loaded(got: Got) -> None:
    class NoModel(Count):
        def load_model(self, device: str) -> int:
            raise AssertionError("loaded for nothing")

    assert set(reasons(advice_on(words_graph(NoModel))).values()) == {NO_SAMPLE}


def test_what_goes_on_is_noted(got: Got) -> None:
    notes: list[str] = []
    graph = words_graph(clear)
    advise(plan_of(graph), {graph.request.words: ["a"]}, notes.append)
    assert notes == ["loading models", "running the request", "measuring clear preprocess"]
